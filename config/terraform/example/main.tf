# Two regions, an account each: the source and coordination in us-east-1, the replica in eu-west-1. iam.tf is what
#   replicator iam --format terraform > iam.tf
# prints for the configuration; it has a policy document per region.

provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "eu"
  region = "eu-west-1"
  assume_role {
    role_arn    = "arn:aws:iam::444455556666:role/terraform"
    external_id = "orders"
  }
}

module "us" {
  source = "../tables"
  group  = "orders"
  home   = true
}

module "eu" {
  source    = "../tables"
  providers = { aws = aws.eu }
  group     = "orders"
}

data "aws_iam_policy_document" "pods" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "replicator"
  assume_role_policy = data.aws_iam_policy_document.pods.json
}

data "aws_iam_policy_document" "from_the_worker" {
  provider = aws.eu
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.worker.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = ["orders"]
    }
  }
}

resource "aws_iam_role" "target" {
  provider           = aws.eu
  name               = "replicator-target"
  assume_role_policy = data.aws_iam_policy_document.from_the_worker.json
}
