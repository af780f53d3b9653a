variable "name" {
  description = "Name of the role"
  type        = string
}

variable "policies" {
  description = "What `replicator iam` prints, by names of yours: a policy for each region of the role's account, and `base`"
  type        = map(string)
}

variable "services" {
  description = "Services that run it: pods.eks.amazonaws.com (EKS Pod Identity), ec2.amazonaws.com, ecs-tasks.amazonaws.com"
  type        = list(string)
  default     = []
}

variable "roles" {
  description = "ARNs of roles that assume it, for example the worker's in another account"
  type        = list(string)
  default     = []
}

variable "external_id" {
  description = "`external_id` of the region, which those roles must send"
  type        = string
  default     = null
}

variable "service_account" {
  description = "The service account of a cluster (IRSA); issuer without https://"
  type = object({
    provider_arn = string
    issuer       = string
    namespace    = string
    name         = string
  })
  default = null
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds the role, if your account asks for one"
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the role and its policies"
  type        = map(string)
  default     = {}
}
