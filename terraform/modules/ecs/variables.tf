variable "name" {
  description = "Name of the cluster; begins the names of everything made here."
  type        = string
  default     = "duramen"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$", var.name))
    error_message = "Up to 31 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }

  validation {
    condition     = !startswith(var.name, "internal-")
    error_message = "A load balancer's name may not begin with internal-, which AWS keeps for itself."
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

variable "image" {
  description = "The image of deploy/docker/Dockerfile in a registry that the cluster reaches, pinned by digest or by a tag that never moves."
  type        = string

  validation {
    condition     = can(regex("(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9_.-]*)$", var.image)) && !endswith(var.image, ":latest")
    error_message = "Name a digest, or a tag other than latest: a restarted task must be what was deployed."
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
  description = "Policies of the task by a name of your choice: at least the output `node_policy_arn` of the module archive."
  type        = map(string)

  validation {
    condition     = length(var.policy_arns) > 0 && alltrue([for arn in values(var.policy_arns) : can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$", arn))])
    error_message = "ARNs of IAM policies, at least one: without any the node may do nothing."
  }
}

variable "verify_policy_arns" {
  description = "Policies of the verification by a name of your choice: at least the output `verify_policy_arn` of the module archive."
  type        = map(string)

  validation {
    condition     = length(var.verify_policy_arns) > 0 && alltrue([for arn in values(var.verify_policy_arns) : can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$", arn))])
    error_message = "ARNs of IAM policies, at least one: without any the verification may do nothing."
  }
}

variable "verify_schedule" {
  description = "When what is new in the archive is verified, as EventBridge Scheduler writes it, in UTC; it begins within six hours after. An alarm complains after eight days without."
  type        = string
  default     = "cron(0 2 ? * SUN *)"

  validation {
    condition     = can(regex("^(cron|rate)[(].+[)]$", var.verify_schedule))
    error_message = "cron(minute hour day month weekday year) or rate(number unit)."
  }
}

variable "verify_all_schedule" {
  description = "When all of the archive is verified, what was verified before too, as EventBridge Scheduler writes it, in UTC; it begins within six hours after. It reads everything, which S3 and the task are paid for."
  type        = string
  default     = "cron(0 2 1 * ? *)"

  validation {
    condition     = can(regex("^(cron|rate)[(].+[)]$", var.verify_all_schedule))
    error_message = "cron(minute hour day month weekday year) or rate(number unit)."
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
  description = "The branch that the tasks of duramen-restore verify and restore: after a restore the one that the node then writes. The node doesn't read it, its directory knows its branch."
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

variable "secrets" {
  description = "Environment variables from SSM Parameter Store or Secrets Manager: name to ARN. For credentials of a store that is not S3; S3 needs none."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:[a-z-]+:(ssm|secretsmanager):[a-z0-9-]+:[0-9]{12}:", arn))])
    error_message = "ARNs of parameters of SSM or of secrets."
  }

  validation {
    condition     = alltrue([for name in keys(var.secrets) : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name))])
    error_message = "Names of environment variables."
  }
}

variable "secrets_kms_key_arns" {
  description = "Customer-managed KMS keys with which var.secrets are encrypted, if they are."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secrets_kms_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "ARNs of KMS keys, not of aliases."
  }
}

variable "log_group" {
  description = "CloudWatch log group of the nodes: name and ARN, outputs of the module monitoring."
  type = object({
    name = string
    arn  = string
  })

  validation {
    condition     = can(regex("^arn:[a-z-]+:logs:[a-z0-9-]+:[0-9]{12}:log-group:[A-Za-z0-9_/.#-]+$", var.log_group.arn)) && endswith(var.log_group.arn, ":log-group:${var.log_group.name}")
    error_message = "The name of a log group, and the ARN of the same one, without \":*\" at its end."
  }
}

variable "task" {
  description = "CPU units and MiB of memory of a task; what the machine's type has, less some for the agent and the page cache."
  type = object({
    cpu    = optional(number, 1792)
    memory = optional(number, 3072)
  })
  default = {}

  validation {
    condition     = var.task.cpu >= 256 && var.task.memory >= 512 && floor(var.task.cpu) == var.task.cpu && floor(var.task.memory) == var.task.memory
    error_message = "Whole numbers: at least 256 CPU units (a quarter of a core) and 512 MiB."
  }
}

variable "architecture" {
  description = "arm64 or x86_64: of the machines and of the container image."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "arm64 or x86_64."
  }
}

variable "instance_type" {
  description = "Type of the instances, of var.architecture."
  type        = string
  default     = "m7g.large"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[.][a-z0-9-]+$", var.instance_type))
    error_message = "A family and a size, like m7g.large."
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

variable "namespace" {
  description = "Private DNS name in which nodes are found as node-NUMBER.NAMESPACE."
  type        = string
  default     = "duramen.internal"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", var.namespace))
    error_message = "A DNS name in lower-case letters."
  }
}

variable "load_balancer" {
  description = "Whether an internal network load balancer stands before the nodes, for clients outside of the private DNS."
  type        = bool
  default     = true
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
