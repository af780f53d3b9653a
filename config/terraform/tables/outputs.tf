output "arns" {
  description = "ARNs of the tables, by what they are for"
  value = merge(
    { side = aws_dynamodb_table.side.arn, owed = aws_dynamodb_table.owed.arn },
    var.home ? { coordination = aws_dynamodb_table.coordination[0].arn, conflicts = aws_dynamodb_table.conflicts[0].arn } : {},
  )
}
