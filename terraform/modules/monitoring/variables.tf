variable "name" {
  description = "Name of the cluster, the same as in the module vm or ecs; begins the names of everything made here."
  type        = string
  default     = "duramen"
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch knows 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653 days."
  }
}

variable "kms_key_arn" {
  description = "KMS key of the log group. Its policy must let CloudWatch Logs use it. Without one, CloudWatch encrypts with its own."
  type        = string
  default     = null
}

variable "autoscaling_groups" {
  description = "Autoscaling group of each node, the output of the modules vm and ecs."
  type        = map(string)
}

variable "volume_ids" {
  description = "Data volume of each node, the output of the modules vm and ecs."
  type        = map(string)
  default     = {}
}

variable "alarm_actions" {
  description = "What an alarm sets off, and its end: ARNs, such as of an SNS topic."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of everything made here."
  type        = map(string)
  default     = {}
}
