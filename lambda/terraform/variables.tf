variable "name" {
  description = "Name of the function, its role and its queue"
  type        = string
  default     = "replicator"
}

variable "package" {
  description = "The zip that `make lambda` built"
  type        = string
}

variable "architecture" {
  description = "arm64 or x86_64, as the zip was built for"
  type        = string
  default     = "arm64"
}

variable "runtime" {
  description = "The runtime, of the version of Python that the zip was built for"
  type        = string
  default     = "python3.13"
}

variable "stream_arns" {
  description = "Streams of the source tables, in the function's region"
  type        = list(string)
}

variable "policy_json" {
  description = "What `replicator iam --lambda --config-ssm NAME` prints"
  type        = string
}

variable "config_parameter" {
  description = "A parameter of Systems Manager that holds replicator.yaml, or several with a comma between"
  type        = string
  default     = ""
}

variable "config_object" {
  description = "In place of that, s3://bucket/key of an object that holds it"
  type        = string
  default     = ""
}

variable "environment" {
  description = "More variables, such as keys of the configuration"
  type        = map(string)
  default     = {}
}

variable "concurrency" {
  description = "Reserved concurrency; write units are divided by it"
  type        = number
  default     = 20
}

variable "batch_size" {
  type    = number
  default = 1000
}

variable "parallelization_factor" {
  description = "Invocations per shard at once, 10 at most; the order of a key is kept"
  type        = number
  default     = 1
}

variable "memory_size" {
  type    = number
  default = 512
}

variable "timeout" {
  description = "Seconds of an invocation; nothing new is begun 2 seconds before the end"
  type        = number
  default     = 120
}

variable "alarm_actions" {
  description = "ARNs that alarms go to"
  type        = list(string)
  default     = []
}
