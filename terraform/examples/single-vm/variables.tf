variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", var.region))
    error_message = "A region, like eu-central-1."
  }
}

variable "name" {
  description = "Name of the cluster; begins the names of what is made here."
  type        = string
  default     = "duramen"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$", var.name))
    error_message = "Up to 31 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }
}

variable "bucket_name" {
  description = "Name of the archive's bucket; unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens (no dots: TLS wildcards don't cover them)."
  }
}

variable "subnet_id" {
  description = "A private subnet with a way to S3, SSM and EC2 (a NAT gateway or endpoints)."
  type        = string

  validation {
    condition     = can(regex("^subnet-[0-9a-f]+$", var.subnet_id))
    error_message = "The id of a subnet, like subnet-0123456789abcdef0."
  }
}

variable "package" {
  description = "The programs: where the .tar.gz is in S3, and its SHA-256."
  type = object({
    bucket = string
    key    = string
    sha256 = string
  })

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package.sha256))
    error_message = "sha256 is the 64 hexadecimal digits that sha256sum prints."
  }

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.package.bucket)) && can(regex("^[A-Za-z0-9_.=/+@-]+$", var.package.key))
    error_message = "A bucket's name, and a key of letters, digits and _.=/+@-: both stand in a script."
  }
}

variable "client_cidrs" {
  description = "Networks whose clients may use the node."
  type        = list(string)

  validation {
    condition     = alltrue([for cidr in var.client_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "CIDR blocks of private networks, and never the whole internet."
  }
}

variable "operator_cidrs" {
  description = "Networks of Prometheus and of operators."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.operator_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "CIDR blocks of private networks, and never the whole internet."
  }
}

variable "alarm_actions" {
  description = "ARNs that alarms go to."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_actions : can(regex("^arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:([0-9]{12})?:.", arn))])
    error_message = "ARNs, such as of an SNS topic."
  }
}
