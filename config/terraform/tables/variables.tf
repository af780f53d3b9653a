variable "group" {
  description = "`group` of the configuration"
  type        = string
}

variable "home" {
  description = "Whether this is the region of `coordination.region`: it also gets the coordination and the conflict table"
  type        = bool
  default     = false
}

variable "coordination_table" {
  description = "`coordination.table` of the configuration"
  type        = string
  default     = "replicator-coordination"
}

variable "kms_key_arn" {
  description = "A key of yours that encrypts the tables; else DynamoDB's own. `replicator iam` prints what it must allow"
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of every table"
  type        = map(string)
  default     = {}
}
