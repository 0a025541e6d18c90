# One node on a virtual machine. An autoscaling group of size one brings a lost instance back, in the zone where its volume is,
# and the new instance attaches the volume and goes on. Groups never grow: nodes of a log are not copies of each other.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

data "aws_subnet" "node" {
  for_each = var.nodes
  id       = each.value.subnet_id
}

locals {
  arn       = "arn:${data.aws_partition.current.partition}"
  ec2_arn   = "${local.arn}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}"
  sources   = "${path.module}/../../../deploy"
  first     = data.aws_subnet.node[keys(var.nodes)[0]]
  node_tags = { for number, _ in var.nodes : number => merge(var.tags, { Name = "${var.name}-${number}", "duramen:node" = "${var.name}-${number}" }) }

  # Whether the journal goes to CloudWatch.
  ships = var.log_group != null

  settings = merge({
    "listen.clients"        = "0.0.0.0:7700"
    "listen.admin"          = "0.0.0.0:7702"
    "listen.allow_insecure" = "true"
    "archive.url"           = var.archive_url
    "archive.region"        = data.aws_region.current.region
    }, local.ships ? {
    # What the alarms and the dashboard of the module monitoring watch.
    "cloudwatch.emf"     = "true"
    "cloudwatch.cluster" = var.name
  } : {}, var.settings)

  # Who attaches an encrypted volume needs its key: EC2 is given a grant of it, and makes the data key with it.
  key_statements = [for statement in [
    {
      Sid       = "GrantTheKeyToTheVolume"
      Effect    = "Allow"
      Action    = "kms:CreateGrant"
      Resource  = var.kms_key_arn
      Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
    },
    {
      Sid       = "UseTheKeyOfTheVolume"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*"]
      Resource  = var.kms_key_arn
      Condition = { StringEquals = { "kms:ViaService" = "ec2.${data.aws_region.current.region}.amazonaws.com" } }
    },
  ] : statement if var.kms_key_arn != null]

  # As environment variables: what is set so wins over duramen.toml.
  variables = { for number, _ in var.nodes : number => merge(
    { for key, value in merge(local.settings, { "node.id" = number }) : "DURAMEN_${upper(replace(key, ".", "__"))}" => value },
    # For duramen-restore, which reads no setting; the branch is for it alone.
    { DURAMEN_ARCHIVE = var.archive_url, DURAMEN_BRANCH = var.restore_branch, AWS_REGION = data.aws_region.current.region },
  ) }
  # In double quotes, with a backslash before each of the four characters that mean something there: systemd and a shell read that alike.
  # Outside of the text's ${}, where checkov can't read quotes that are escaped.
  special = "/([\"\\\\$`])/"
  environment = { for number, variables in local.variables : number => join("", [
    for name, value in variables : format("%s=\"%s\"\n", name, replace(value, local.special, "\\$1"))
  ]) }

  # How long a stop may take: requests under way and then the archiver have shutdown.timeout each.
  shutdown     = regex("^([0-9]+) *(ms|s|m|h)$", lookup(var.settings, "shutdown.timeout", "30s"))
  stop_seconds = max(90, 2 * ceil(tonumber(local.shutdown[0]) * { ms = 0.001, s = 1, m = 60, h = 3600 }[local.shutdown[1]]) + 30)

  # The agent reads files and not the journal; duramen-journal makes one of it.
  agent = { for number, _ in var.nodes : number => jsonencode({
    logs = {
      force_flush_interval = 5
      logs_collected = { files = { collect_list = [{
        file_path       = "/var/log/duramen/node.log"
        log_group_name  = try(var.log_group.name, "")
        log_stream_name = "node-${number}/{instance_id}"
      }] } }
    }
  }) }
  shipping = { for number, _ in var.nodes : number => local.ships ? {
    "/etc/systemd/system/duramen-journal.service" = { content = file("${path.module}/templates/duramen-journal.service"), mode = "0644" }
    "/usr/local/sbin/duramen-journal"             = { content = file("${path.module}/templates/journal.sh"), mode = "0755" }
    "/etc/duramen/cloudwatch-agent.json"          = { content = local.agent[number], mode = "0644" }
  } : {} }

  files = { for number, _ in var.nodes : number => merge(local.shipping[number], {
    "/etc/systemd/system/duramen.service"             = { content = file("${local.sources}/systemd/duramen.service"), mode = "0644" }
    "/etc/systemd/system/duramen-boot.service"        = { content = file("${path.module}/templates/duramen-boot.service"), mode = "0644" }
    "/etc/systemd/system/duramen-verify.service"      = { content = file("${local.sources}/systemd/duramen-verify.service"), mode = "0644" }
    "/etc/systemd/system/duramen-verify.timer"        = { content = file("${local.sources}/systemd/duramen-verify.timer"), mode = "0644" }
    "/etc/systemd/system/duramen-verify-all.service"  = { content = file("${local.sources}/systemd/duramen-verify-all.service"), mode = "0644" }
    "/etc/systemd/system/duramen-verify-all.timer"    = { content = file("${local.sources}/systemd/duramen-verify-all.timer"), mode = "0644" }
    "/etc/systemd/system/duramen.service.d/stop.conf" = { content = "[Service]\nTimeoutStopSec=${local.stop_seconds}s\n", mode = "0644" }
    "/etc/sysusers.d/duramen.conf"                    = { content = file("${local.sources}/sysusers/duramen.conf"), mode = "0644" }
    "/etc/duramen/duramen.toml"                       = { content = file("${local.sources}/duramen.toml"), mode = "0644" }
    "/etc/duramen/duramen.env"                        = { content = local.environment[number], mode = "0600" }
    "/usr/local/sbin/duramen-boot" = {
      mode = "0755"
      content = templatefile("${path.module}/templates/boot.sh.tftpl", {
        package   = var.package
        volume_id = var.storage == "ebs" ? aws_ebs_volume.data[number].id : ""
        ships     = local.ships
      })
    }
  }) }

  # The volume, the programs and the service are the business of duramen-boot.
  cloud_config = { for number, files in local.files : number => join("\n", ["#cloud-config", jsonencode({
    write_files = [for path, file in files : { path = path, permissions = file.mode, content = file.content }]
    runcmd = [
      ["systemctl", "daemon-reload"],
      ["systemctl", "enable", "--now", "--no-block", "duramen-boot.service"],
    ]
  }), ""]) }
  user_data = { for number, config in local.cloud_config : number => base64gzip(config) }
}

resource "aws_ebs_volume" "data" {
  for_each = var.storage == "ebs" ? var.nodes : {}

  availability_zone = data.aws_subnet.node[each.key].availability_zone
  type              = "gp3"
  size              = var.volume.size
  iops              = var.volume.iops
  throughput        = var.volume.throughput
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  tags              = local.node_tags[each.key]

  lifecycle {
    # It holds what isn't archived yet. To give a node up for good, take this out first.
    prevent_destroy = true
  }
}

resource "aws_iam_role" "node" {
  name = "${var.name}-node"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "archive" {
  for_each = var.policy_arns

  role       = aws_iam_role.node.name
  policy_arn = each.value
}

# A shell on the machine without SSH, keys or an open port.
resource "aws_iam_role_policy_attachment" "ssm" {
  role       = aws_iam_role.node.name
  policy_arn = "${local.arn}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_role_policy" "boot" {
  name = "boot"
  role = aws_iam_role.node.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid      = "FetchThePackage"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${local.arn}:s3:::${var.package.bucket}/${var.package.key}"
      },
      {
        # Of volumes and instances alike only those that carry this cluster's tag.
        Sid       = "AttachTheVolume"
        Effect    = "Allow"
        Action    = "ec2:AttachVolume"
        Resource  = ["${local.ec2_arn}:volume/*", "${local.ec2_arn}:instance/*"]
        Condition = { StringEquals = { "aws:ResourceTag/duramen:node" = [for number in keys(var.nodes) : "${var.name}-${number}"] } }
      },
    ], local.key_statements)
  })
}

resource "aws_iam_role_policy" "logs" {
  count = local.ships ? 1 : 0

  name = "logs"
  role = aws_iam_role.node.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "WriteItsLog"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${var.log_group.arn}:log-stream:node-*"
    }]
  })
}

resource "aws_iam_instance_profile" "node" {
  name = "${var.name}-node"
  role = aws_iam_role.node.name
  tags = var.tags
}

resource "aws_security_group" "node" {
  name        = "${var.name}-node"
  description = "Duramen nodes"
  vpc_id      = local.first.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = toset(var.client_cidrs)

  security_group_id = aws_security_group.node.id
  description       = "Clients: gRPC and HTTP"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 7700
  to_port           = 7700
}

resource "aws_vpc_security_group_ingress_rule" "operators" {
  for_each = toset(var.operator_cidrs)

  security_group_id = aws_security_group.node.id
  description       = "Operators: metrics, health, administration"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 7702
  to_port           = 7702
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.node.id
  description       = "S3, SSM, EC2, logs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_launch_template" "node" {
  for_each = var.nodes

  name                   = "${var.name}-${each.key}"
  image_id               = data.aws_ssm_parameter.image.value
  instance_type          = var.instance_type
  user_data              = local.user_data[each.key]
  update_default_version = true
  tags                   = local.node_tags[each.key]

  lifecycle {
    precondition {
      condition     = length(local.user_data[each.key]) / 4 * 3 <= 16384
      error_message = "EC2 gives a machine 16,384 bytes, compressed, and these settings make more: put some of them into an image of your own, or shorten them."
    }
  }

  iam_instance_profile {
    arn = aws_iam_instance_profile.node.arn
  }

  network_interfaces {
    associate_public_ip_address = false
    security_groups             = [aws_security_group.node.id]
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type = "gp3"
      volume_size = 10
      encrypted   = true
      kms_key_id  = var.kms_key_arn
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = local.node_tags[each.key]
  }

  # The machine's first disk. EC2 takes no empty list of tags; "duramen:node" would let a machine attach it.
  tag_specifications {
    resource_type = "volume"
    tags          = merge(var.tags, { Name = "${var.name}-${each.key}-root" })
  }
}

resource "aws_autoscaling_group" "node" {
  for_each = var.nodes

  name                = "${var.name}-${each.key}"
  min_size            = 1
  max_size            = 1
  vpc_zone_identifier = [each.value.subnet_id]
  # The instance's own checks: a node that is busy recovering must not be shot.
  health_check_type         = "EC2"
  health_check_grace_period = 300
  enabled_metrics           = ["GroupInServiceInstances"]

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  dynamic "tag" {
    for_each = local.node_tags[each.key]

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }
}
