variable "bucket_name" {
  description = "Name of the bucket. It is part of every archive's URL, so it can't change later."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens (no dots: TLS wildcards don't cover them)."
  }
}

variable "prefix" {
  description = "Prefix of the archive in the bucket, without slashes at its ends. The policies allow nothing outside of it."
  type        = string
  default     = "duramen"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.prefix))
    error_message = "Use letters, digits, '-', '_' and single slashes between them: other characters have a meaning in policies."
  }
}

variable "kms_key_arn" {
  description = "Customer-managed KMS key for SSE-KMS. Without one S3 encrypts with its own keys (SSE-S3)."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "Give the ARN of a KMS key, not of an alias, or leave it out."
  }
}

variable "old_version_days" {
  description = "Days for which deleted and overwritten objects can be brought back. Nothing is ever overwritten by Duramen."
  type        = number
  default     = 30

  validation {
    condition     = var.old_version_days >= 1
    error_message = "At least 1: a deletion by mistake has to be noticed first."
  }
}

variable "object_lock_days" {
  description = "Governance-mode object lock for this many days after an object was written, so that not even an administrator deletes it by mistake. 0 is none. Must be shorter than what expiry is to delete. Only for a new bucket."
  type        = number
  default     = 0

  validation {
    condition     = var.object_lock_days >= 0 && floor(var.object_lock_days) == var.object_lock_days
    error_message = "A whole number of days, or 0."
  }
}

variable "access_log_bucket" {
  description = "Bucket that gets the server access logs of this one, or null."
  type        = string
  default     = null

  validation {
    condition     = var.access_log_bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.access_log_bucket))
    error_message = "A bucket's name, or nothing."
  }
}

variable "force_destroy" {
  description = "Lets `terraform destroy` delete a bucket with objects in it. For tests."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of everything made here."
  type        = map(string)
  default     = {}
}
