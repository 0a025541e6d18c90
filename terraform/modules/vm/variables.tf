variable "name" {
  description = "Name of the cluster; begins the names of everything made here."
  type        = string
  default     = "duramen"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$", var.name))
    error_message = "Up to 31 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }
}

variable "nodes" {
  description = "The nodes by number (node.id), each with the subnet that it lives in: its volume stays in that subnet's zone."
  type        = map(object({ subnet_id = string }))

  validation {
    condition     = length(var.nodes) == 1
    error_message = "This version of Duramen runs one node: two on one archive would refuse each other."
  }

  validation {
    condition     = alltrue([for number in keys(var.nodes) : can(regex("^[1-9][0-9]*$", number))])
    error_message = "Nodes are numbered from 1."
  }

  validation {
    condition     = alltrue([for node in values(var.nodes) : can(regex("^subnet-[0-9a-f]+$", node.subnet_id))])
    error_message = "The id of a subnet, like subnet-0123456789abcdef0."
  }
}

variable "package" {
  description = "A .tar.gz with the programs duramen, duramen-archiver, duramen-restore and duramenctl at its top, in S3, and its SHA-256. Built for the image's C library and var.architecture."
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

variable "archive_url" {
  description = "archive.url of the node, the output `url` of the module archive."
  type        = string

  validation {
    condition     = can(regex("^s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[A-Za-z0-9_-]+)*$", var.archive_url))
    error_message = "An s3:// URL of a bucket and a prefix, like s3://acme-duramen/duramen."
  }
}

variable "policy_arns" {
  description = "Policies of the node by a name of your choice: at least the output `node_policy_arn` of the module archive."
  type        = map(string)

  validation {
    condition     = length(var.policy_arns) > 0 && alltrue([for arn in values(var.policy_arns) : can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$", arn))])
    error_message = "ARNs of IAM policies, at least one: without any the node may do nothing."
  }
}

variable "settings" {
  description = "More of the node's settings, as `section.key` to value, like { \"local_retention.bytes\" = \"20GiB\" }. See docs/CONFIGURATION.md."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.settings) : can(regex("^[a-z_]+\\.[a-z_]+$", key))])
    error_message = "Keys are section.key, as in docs/CONFIGURATION.md."
  }

  validation {
    condition     = alltrue([for value in values(var.settings) : !can(regex("[[:cntrl:]]", value))])
    error_message = "A value is one line."
  }

  validation {
    condition     = can(regex("^[0-9]+ *(ms|s|m|h)$", lookup(var.settings, "shutdown.timeout", "30s")))
    error_message = "shutdown.timeout is a duration like \"45s\" or \"2m\": what stops the node waits for twice as long."
  }
}

variable "restore_branch" {
  description = "The branch that duramen-restore verifies and restores on the machine: after a restore the one that the node then writes. The node doesn't read it, its directory knows its branch."
  type        = string
  default     = "main"

  validation {
    condition     = can(regex("^[a-z0-9-]{1,63}$", var.restore_branch))
    error_message = "A branch's name: up to 63 lower-case letters, digits and hyphens."
  }

  validation {
    condition     = lookup(var.settings, "archive.branch", var.restore_branch) == var.restore_branch
    error_message = "archive.branch in settings is for a new node, and is then named here too; a directory that hydrate made refuses it: take it out of settings."
  }
}

variable "log_group" {
  description = "CloudWatch log group that gets the node's journal with its metrics: name and ARN, outputs of the module monitoring. Without one the journal stays on the machine."
  type = object({
    name = string
    arn  = string
  })
  default = null

  validation {
    condition     = var.log_group == null || try(can(regex("^arn:[a-z-]+:logs:[a-z0-9-]+:[0-9]{12}:log-group:[A-Za-z0-9_/.#-]+$", var.log_group.arn)) && endswith(var.log_group.arn, ":log-group:${var.log_group.name}"), false)
    error_message = "The name of a log group, and the ARN of the same one, without \":*\" at its end."
  }
}

variable "architecture" {
  description = "arm64 or x86_64: of the image, and of the programs in var.package."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "arm64 or x86_64."
  }
}

variable "instance_type" {
  description = "Type of the instances, of var.architecture. For var.storage = \"nvme\" one with an instance store."
  type        = string
  default     = "m7g.large"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[.][a-z0-9-]+$", var.instance_type))
    error_message = "A family and a size, like m7g.large."
  }
}

variable "storage" {
  description = "\"ebs\": a volume per node that outlives its instance. \"nvme\": the instance store; faster, and a lost instance costs what wasn't archived and has to be rebuilt by hand."
  type        = string
  default     = "ebs"

  validation {
    condition     = contains(["ebs", "nvme"], var.storage)
    error_message = "ebs or nvme."
  }
}

variable "volume" {
  description = "The data volume of each node (gp3): GiB, IOPS, MiB/s."
  type = object({
    size       = optional(number, 50)
    iops       = optional(number, 3000)
    throughput = optional(number, 125)
  })
  default = {}

  validation {
    condition     = var.volume.size >= 10 && var.volume.iops >= 3000 && var.volume.iops <= 16000 && var.volume.throughput >= 125 && var.volume.throughput <= 1000
    error_message = "gp3 has 3000 to 16000 IOPS and 125 to 1000 MiB/s; less than 10 GiB leaves no room for an outage of the store."
  }
}

variable "kms_key_arn" {
  description = "KMS key of the volumes; without one, the account's default key for EBS."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "Give the ARN of a KMS key, not of an alias, or leave it out."
  }
}

variable "client_cidrs" {
  description = "Networks whose clients may use the node (port 7700). There is no TLS and there are no tokens yet: whoever is let in may read and write everything."
  type        = list(string)

  validation {
    condition     = alltrue([for cidr in var.client_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "CIDR blocks of private networks, and never the whole internet."
  }
}

variable "operator_cidrs" {
  description = "Networks that may scrape metrics and operate the node (port 7702)."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.operator_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "CIDR blocks of private networks, and never the whole internet."
  }
}

variable "tags" {
  description = "Tags of everything made here."
  type        = map(string)
  default     = {}
}
