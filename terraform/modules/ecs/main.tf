# One node as an ECS service on EC2 capacity: one machine per node with a volume that outlives it, bind-mounted into the task. A task
# that is replaced stops before its successor starts, because a data directory has one owner.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ecs/optimized-ami/amazon-linux-2023${var.architecture == "arm64" ? "/arm64" : ""}/recommended/image_id"
}

data "aws_subnet" "node" {
  for_each = var.nodes
  id       = each.value.subnet_id
}

locals {
  arn       = "arn:${data.aws_partition.current.partition}"
  ec2_arn   = "${local.arn}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}"
  first     = data.aws_subnet.node[keys(var.nodes)[0]]
  node_tags = { for number, _ in var.nodes : number => merge(var.tags, { Name = "${var.name}-${number}", "duramen:node" = "${var.name}-${number}" }) }

  settings = merge({
    "node.data"             = "/var/lib/duramen"
    "listen.clients"        = "0.0.0.0:7700"
    "listen.admin"          = "0.0.0.0:7702"
    "listen.allow_insecure" = "true"
    "telemetry.log_format"  = "json"
    "archive.url"           = var.archive_url
    "archive.region"        = data.aws_region.current.region
    # What the alarms and the dashboard of the module monitoring watch.
    "cloudwatch.emf"     = "true"
    "cloudwatch.cluster" = var.name
  }, var.settings)

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

  # How long a stop may take: requests under way and then the archiver have shutdown.timeout each.
  shutdown     = regex("^([0-9]+) *(ms|s|m|h)$", lookup(var.settings, "shutdown.timeout", "30s"))
  stop_seconds = max(90, 2 * ceil(tonumber(local.shutdown[0]) * { ms = 0.001, s = 1, m = 60, h = 3600 }[local.shutdown[1]]) + 30)

  # What every container has: the image's user, nothing to write but what is mounted, no capability.
  container = {
    image                  = var.image
    essential              = true
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"], add = [] }, initProcessEnabled = false }
  }
  # What works with the archive: every container.
  with_archive = { secrets = [for name, arn in var.secrets : { name = name, valueFrom = arn }] }
  # What has the node's data: itself, and the task that rebuilds it.
  with_data = {
    mountPoints = [{ sourceVolume = "data", containerPath = "/var/lib/duramen", readOnly = false }]
    ulimits     = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
  }
  # What duramen-restore has, which reads no setting.
  restore = {
    entryPoint = ["/usr/bin/duramen-restore"]
    environment = [
      { name = "DURAMEN_ARCHIVE", value = var.archive_url },
      { name = "DURAMEN_BRANCH", value = var.restore_branch },
      { name = "AWS_REGION", value = local.settings["archive.region"] },
    ]
  }
  # By the beginning of their streams.
  logs = { for prefix in concat([for number, _ in var.nodes : "node-${number}"], ["hydrate", "verify"]) : prefix => {
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = var.log_group.name
        "awslogs-region"        = data.aws_region.current.region
        "awslogs-stream-prefix" = prefix
      }
    }
  } }
  cpu_architecture = var.architecture == "arm64" ? "ARM64" : "X86_64"
  subnets          = distinct([for node in var.nodes : node.subnet_id])

  # Who takes the role of a task: ECS, for this account.
  task_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })

  containers = { for number, _ in var.nodes : number => [merge(local.container, local.with_archive, local.with_data, local.logs["node-${number}"], {
    name        = "duramen"
    command     = ["serve"]
    stopTimeout = local.stop_seconds
    environment = concat(
      [for key, value in merge(local.settings, { "node.id" = number }) : { name = "DURAMEN_${upper(replace(key, ".", "__"))}", value = value }],
      [{ name = "DURAMEN_ARCHIVE", value = var.archive_url }],
    )
    portMappings = [for port in [7700, 7702] : { containerPort = port, hostPort = port, protocol = "tcp" }]
    healthCheck = {
      command     = ["CMD", "/usr/bin/duramenctl", "health", "--degraded-ok"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 120
    }
  })] }
}

# The machine's files, as cloud-init reads it.
locals {
  files = { for number, _ in var.nodes : number => {
    "/etc/ecs/ecs.config" = {
      mode = "0644"
      content = templatefile("${path.module}/templates/ecs.config.tftpl", {
        cluster = aws_ecs_cluster.this.name
        node    = number

        stop_seconds = local.stop_seconds
      })
    }
    "/etc/systemd/system/ecs.service.d/duramen.conf" = { content = file("${path.module}/templates/ecs-waits.conf"), mode = "0644" }
    "/etc/systemd/system/duramen-boot.service"       = { content = file("${path.module}/templates/duramen-boot.service"), mode = "0644" }
    "/usr/local/sbin/duramen-boot" = {
      mode    = "0755"
      content = templatefile("${path.module}/templates/boot.sh.tftpl", { volume_id = aws_ebs_volume.data[number].id })
    }
  } }

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
  for_each = var.nodes

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

# The machine: joins the cluster and attaches the volume. What the node itself may is the task's role.
resource "aws_iam_role" "machine" {
  name = "${var.name}-machine"
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

resource "aws_iam_role_policy_attachment" "machine" {
  for_each = toset(["service-role/AmazonEC2ContainerServiceforEC2Role", "AmazonSSMManagedInstanceCore"])

  role       = aws_iam_role.machine.name
  policy_arn = "${local.arn}:iam::aws:policy/${each.value}"
}

resource "aws_iam_role_policy" "attach" {
  name = "attach"
  role = aws_iam_role.machine.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Sid       = "AttachTheVolume"
      Effect    = "Allow"
      Action    = "ec2:AttachVolume"
      Resource  = ["${local.ec2_arn}:volume/*", "${local.ec2_arn}:instance/*"]
      Condition = { StringEquals = { "aws:ResourceTag/duramen:node" = [for number in keys(var.nodes) : "${var.name}-${number}"] } }
    }], local.key_statements)
  })
}

resource "aws_iam_instance_profile" "machine" {
  name = "${var.name}-machine"
  role = aws_iam_role.machine.name
  tags = var.tags
}

# ECS itself: pulls the image, writes logs, reads secrets.
resource "aws_iam_role" "execution" {
  name = "${var.name}-execution"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "${local.arn}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role_policy" "secrets" {
  count = length(var.secrets) > 0 ? 1 : 0

  name = "secrets"
  role = aws_iam_role.execution.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Sid    = "ReadSecrets"
      Effect = "Allow"
      Action = ["ssm:GetParameters", "secretsmanager:GetSecretValue"]
      # A secret's ARN has seven parts, a parameter's six; what follows says which of its values and versions ECS takes.
      Resource = distinct([for arn in values(var.secrets) :
        join(":", slice(split(":", arn), 0, strcontains(arn, ":secretsmanager:") ? 7 : 6))
      ])
      }], length(var.secrets_kms_key_arns) == 0 ? [] : [{
      Sid       = "DecryptSecrets"
      Effect    = "Allow"
      Action    = "kms:Decrypt"
      Resource  = var.secrets_kms_key_arns
      Condition = { StringLike = { "kms:ViaService" = [for service in ["secretsmanager", "ssm"] : "${service}.${data.aws_region.current.region}.amazonaws.com"] } }
    }])
  })
}

resource "aws_iam_role" "task" {
  name               = "${var.name}-task"
  assume_role_policy = local.task_trust
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "task" {
  for_each = var.policy_arns

  role       = aws_iam_role.task.name
  policy_arn = each.value
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
  for_each = toset(concat(var.operator_cidrs, var.load_balancer ? [for subnet in data.aws_subnet.node : subnet.cidr_block] : []))

  security_group_id = aws_security_group.node.id
  description       = "Operators and the load balancer's health checks"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 7702
  to_port           = 7702
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.node.id
  description       = "S3, ECS, ECR, logs, SSM"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_launch_template" "machine" {
  for_each = var.nodes

  name                   = "${var.name}-${each.key}"
  image_id               = data.aws_ssm_parameter.image.value
  instance_type          = var.instance_type
  user_data              = local.user_data[each.key]
  update_default_version = true
  tags                   = local.node_tags[each.key]

  iam_instance_profile {
    arn = aws_iam_instance_profile.machine.arn
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
      volume_size = 30
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

resource "aws_autoscaling_group" "machine" {
  for_each = var.nodes

  name                      = "${var.name}-${each.key}"
  min_size                  = 1
  max_size                  = 1
  vpc_zone_identifier       = [each.value.subnet_id]
  health_check_type         = "EC2"
  health_check_grace_period = 300
  enabled_metrics           = ["GroupInServiceInstances"]

  launch_template {
    id      = aws_launch_template.machine[each.key].id
    version = aws_launch_template.machine[each.key].latest_version
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

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = var.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_task_definition" "node" {
  for_each = var.nodes

  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["EC2"]
  network_mode             = "awsvpc"
  cpu                      = var.task.cpu
  memory                   = var.task.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode(local.containers[each.key])
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = local.cpu_architecture
  }

  volume {
    name      = "data"
    host_path = "/var/lib/duramen"
  }

  placement_constraints {
    type       = "memberOf"
    expression = "attribute:duramen.node == ${each.key}"
  }
}

resource "aws_ecs_service" "node" {
  for_each = var.nodes

  name            = "${var.name}-${each.key}"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.node[each.key].arn
  launch_type     = "EC2"
  desired_count   = 1
  # The old task ends before the new one starts.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100
  health_check_grace_period_seconds  = var.load_balancer ? 300 : null
  propagate_tags                     = "SERVICE"
  tags                               = var.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets         = [each.value.subnet_id]
    security_groups = [aws_security_group.node.id]
  }

  service_registries {
    registry_arn = aws_service_discovery_service.node[each.key].arn
  }

  dynamic "load_balancer" {
    for_each = var.load_balancer ? [1] : []

    content {
      target_group_arn = aws_lb_target_group.clients[0].arn
      container_name   = "duramen"
      container_port   = 7700
    }
  }

  depends_on = [aws_autoscaling_group.machine, aws_lb_listener.clients]
}

resource "aws_service_discovery_private_dns_namespace" "this" {
  name        = var.namespace
  description = "Duramen nodes"
  vpc         = local.first.vpc_id
  tags        = var.tags
}

resource "aws_service_discovery_service" "node" {
  for_each = var.nodes

  name = "node-${each.key}"
  tags = var.tags

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}

resource "aws_lb" "clients" {
  #checkov:skip=CKV_AWS_91:A network load balancer logs TLS connections only, and there is no TLS here yet
  count = var.load_balancer ? 1 : 0

  name                             = var.name
  internal                         = true
  load_balancer_type               = "network"
  subnets                          = local.subnets
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = true
  tags                             = var.tags
}

resource "aws_lb_target_group" "clients" {
  count = var.load_balancer ? 1 : 0

  name        = var.name
  vpc_id      = local.first.vpc_id
  target_type = "ip"
  port        = 7700
  protocol    = "TCP"
  # Of targets by address it is off by default: then everybody behind the load balancer comes from its addresses, and client_cidrs would
  # have to let all of them in.
  preserve_client_ip = true
  # A stopping node refuses new work at once and finishes what it has.
  deregistration_delay = 30
  tags                 = var.tags

  health_check {
    protocol            = "HTTP"
    port                = "7702"
    path                = "/ready"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "clients" {
  count = var.load_balancer ? 1 : 0

  load_balancer_arn = aws_lb.clients[0].arn
  port              = 7700
  protocol          = "TCP"
  tags              = var.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.clients[0].arn
  }
}
