output "arn" {
  description = "For `role_arn` of a region, `eks.amazonaws.com/role-arn` of a service account, or `roles` of another one"
  value       = aws_iam_role.this.arn
}

output "name" {
  description = "Name of the role"
  value       = aws_iam_role.this.name
}
