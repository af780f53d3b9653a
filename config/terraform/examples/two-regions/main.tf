# Two regions of one account: the source and coordination in us-east-1, the replica in eu-west-1. A worker runs in EKS and
# has one role for both. policies/ is what these commands print for replicator.yaml:
#   replicator iam --region us > policies/us.json
#   replicator iam --region eu > policies/eu.json

provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "eu"
  region = "eu-west-1"
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
    us = file("${path.module}/policies/us.json")
    eu = file("${path.module}/policies/eu.json")
  }
}

output "worker_role_arn" {
  description = "For the association of the chart's service account"
  value       = module.worker.arn
}
