# Two regions, an account each: the source and coordination in account 111122223333, the replica in 444455556666. The
# worker's role assumes one of the other account, which asks for an external id, and the tables there refuse everything
# else that would write to them. policies/ is what these commands print for replicator.yaml:
#   replicator iam --region us   > policies/us.json
#   replicator iam --region eu   > policies/eu.json
#   replicator iam --region base > policies/base.json

provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "eu"
  region = "eu-west-1"
  assume_role {
    role_arn    = "arn:aws:iam::444455556666:role/terraform"
    external_id = "terraform"
  }
}

module "us" {
  source = "../../tables"
  group  = "orders"
  home   = true
}

module "eu" {
  source    = "../../tables"
  providers = { aws = aws.eu }
  group     = "orders"
}

module "worker" {
  source   = "../../role"
  name     = "replicator"
  services = ["pods.eks.amazonaws.com"]
  policies = {
    us   = file("${path.module}/policies/us.json")
    base = file("${path.module}/policies/base.json")
  }
}

module "target" {
  source      = "../../role"
  providers   = { aws = aws.eu }
  name        = "replicator-target"
  roles       = [module.worker.arn]
  external_id = "orders"
  policies    = { eu = file("${path.module}/policies/eu.json") }
}

# What is the daemon's own in the other account is written by its role alone, whatever policies others have there.
data "aws_iam_policy_document" "written_by_the_target_role" {
  provider = aws.eu
  for_each = module.eu.arns

  statement {
    sid       = "OnlyReplicatorWrites"
    effect    = "Deny"
    actions   = ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:BatchWriteItem"]
    resources = [each.value]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = [module.target.arn]
    }
  }
}

resource "aws_dynamodb_resource_policy" "eu" {
  provider     = aws.eu
  for_each     = module.eu.arns
  resource_arn = each.value
  policy       = data.aws_iam_policy_document.written_by_the_target_role[each.key].json
}

output "worker_role_arn" {
  description = "For the association of the chart's service account"
  value       = module.worker.arn
}

output "target_role_arn" {
  description = "For `regions.eu.role_arn` of replicator.yaml"
  value       = module.target.arn
}
