# Three regions that all write: the user's tables, replicator's own in each of them, and one role for all. policies/ is what
# `replicator iam --region REGION > policies/REGION.json` prints for us, eu and ap of replicator.yaml.

provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "eu"
  region = "eu-west-1"
}

provider "aws" {
  alias  = "ap"
  region = "ap-northeast-1"
}

module "us" {
  source = "../../tables"
  group  = "profiles"
  home   = true
}

module "eu" {
  source    = "../../tables"
  providers = { aws = aws.eu }
  group     = "profiles"
}

module "ap" {
  source    = "../../tables"
  providers = { aws = aws.ap }
  group     = "profiles"
}

module "worker" {
  source   = "../../role"
  name     = "replicator"
  services = ["pods.eks.amazonaws.com"]
  policies = { for region in ["us", "eu", "ap"] : region => file("${path.module}/policies/${region}.json") }
}

# The user's own table, the same in each region: its key, and a stream with both images.
resource "aws_dynamodb_table" "profiles_us" {
  name             = "profiles"
  billing_mode     = "PAY_PER_REQUEST"
  hash_key         = "pk"
  stream_enabled   = true
  stream_view_type = "NEW_AND_OLD_IMAGES"

  attribute {
    name = "pk"
    type = "S"
  }
}

resource "aws_dynamodb_table" "profiles_eu" {
  provider         = aws.eu
  name             = "profiles"
  billing_mode     = "PAY_PER_REQUEST"
  hash_key         = "pk"
  stream_enabled   = true
  stream_view_type = "NEW_AND_OLD_IMAGES"

  attribute {
    name = "pk"
    type = "S"
  }
}

resource "aws_dynamodb_table" "profiles_ap" {
  provider         = aws.ap
  name             = "profiles"
  billing_mode     = "PAY_PER_REQUEST"
  hash_key         = "pk"
  stream_enabled   = true
  stream_view_type = "NEW_AND_OLD_IMAGES"

  attribute {
    name = "pk"
    type = "S"
  }
}

output "worker_role_arn" {
  description = "For the association of the chart's service account"
  value       = module.worker.arn
}
