variable "name" {
  description = "Name of the cluster, the same as in the module vm or ecs; begins the names of everything made here."
  type        = string
  default     = "duramen"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$", var.name))
    error_message = "Up to 31 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }
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

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "Give the ARN of a KMS key, not of an alias, or leave it out."
  }
}

variable "autoscaling_groups" {
  description = "Autoscaling group of each node, the output of the modules vm and ecs."
  type        = map(string)

  validation {
    condition     = alltrue([for number in keys(var.autoscaling_groups) : can(regex("^[1-9][0-9]*$", number))])
    error_message = "Nodes are numbered from 1."
  }

  validation {
    condition     = alltrue([for name in values(var.autoscaling_groups) : can(regex("^[A-Za-z0-9_.-]{1,255}$", name))])
    error_message = "Names of autoscaling groups, not their ARNs."
  }
}

variable "volume_ids" {
  description = "Data volume of each node, the output of the modules vm and ecs."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id in values(var.volume_ids) : can(regex("^vol-[0-9a-f]+$", id))])
    error_message = "Ids of volumes, like vol-0123456789abcdef0."
  }
}

variable "alarm_actions" {
  description = "What an alarm sets off, and its end: ARNs, such as of an SNS topic."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_actions : can(regex("^arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:([0-9]{12})?:.", arn))])
    error_message = "ARNs, such as of an SNS topic."
  }
}

variable "tags" {
  description = "Tags of everything made here."
  type        = map(string)
  default     = {}
}
