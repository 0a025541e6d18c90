# A proof of every byte of the archive that is new, once a week, and of every byte, once a month, by a task that may read and record its verdict. It runs on Fargate: it reads much, and
# the node's machine is for the node. The node shows the verdict, and alarms tell of a bad one and of none for eight days.

locals {
  verify_family = "${var.name}-verify"

  verify_container = {
    name       = "verify"
    image      = var.image
    essential  = true
    entryPoint = ["/usr/bin/duramen-restore"]
    command    = ["verify", "--full", "--since"]
    user       = "65532:65532"

    readonlyRootFilesystem = true
    environment = [
      { name = "DURAMEN_ARCHIVE", value = var.archive_url },
      { name = "DURAMEN_BRANCH", value = lookup(var.settings, "archive.branch", "main") },
      { name = "AWS_REGION", value = local.settings["archive.region"] },
    ]

    linuxParameters = { capabilities = { drop = ["ALL"], add = [] }, initProcessEnabled = false }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = var.log_group.name
        "awslogs-region"        = data.aws_region.current.region
        "awslogs-stream-prefix" = "verify"
      }
    }
  }
}

resource "aws_iam_role" "verify" {
  name = local.verify_family
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "verify" {
  for_each = var.verify_policy_arns

  role       = aws_iam_role.verify.name
  policy_arn = each.value
}

resource "aws_security_group" "verify" {
  #checkov:skip=CKV2_AWS_5:The scheduler gives it to the task that it starts
  name        = local.verify_family
  description = "Verification of the archive: nobody connects to it"
  vpc_id      = local.first.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_egress_rule" "verify" {
  security_group_id = aws_security_group.verify.id
  description       = "S3, ECR, logs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_ecs_task_definition" "verify" {
  family                   = local.verify_family
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 2048
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.verify.arn
  container_definitions    = jsonencode([local.verify_container])
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture == "arm64" ? "ARM64" : "X86_64"
  }
}

# The schedule itself: it may start that task in that cluster, and give it its roles.
resource "aws_iam_role" "scheduler" {
  name = "${var.name}-scheduler"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "run-verify"
  role = aws_iam_role.scheduler.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "RunVerify"
        Effect    = "Allow"
        Action    = "ecs:RunTask"
        Resource  = "${local.arn}:ecs:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:task-definition/${local.verify_family}:*"
        Condition = { ArnEquals = { "ecs:cluster" = aws_ecs_cluster.this.arn } }
      },
      {
        Sid       = "GiveItItsRoles"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = [aws_iam_role.execution.arn, aws_iam_role.verify.arn]
        Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_scheduler_schedule" "verify" {
  #checkov:skip=CKV_AWS_297:It says when and what to run; there is nothing in it to keep secret
  name                = local.verify_family
  description         = "Weekly verification of the archive"
  schedule_expression = var.verify_schedule

  flexible_time_window {
    mode                      = "FLEXIBLE"
    maximum_window_in_minutes = 360
  }

  target {
    arn      = aws_ecs_cluster.this.arn
    role_arn = aws_iam_role.scheduler.arn

    ecs_parameters {
      task_definition_arn = aws_ecs_task_definition.verify.arn
      launch_type         = "FARGATE"
      task_count          = 1

      network_configuration {
        subnets          = distinct([for node in var.nodes : node.subnet_id])
        security_groups  = [aws_security_group.verify.id]
        assign_public_ip = false
      }
    }

    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 10
    }
  }
}

resource "aws_scheduler_schedule" "verify_all" {
  #checkov:skip=CKV_AWS_297:It says when and what to run; there is nothing in it to keep secret
  name                = "${local.verify_family}-all"
  description         = "Monthly verification of all of the archive: what was proved once may rot later"
  schedule_expression = var.verify_all_schedule

  flexible_time_window {
    mode                      = "FLEXIBLE"
    maximum_window_in_minutes = 360
  }

  target {
    arn      = aws_ecs_cluster.this.arn
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ containerOverrides = [{ name = "verify", command = ["verify", "--full"] }] })

    ecs_parameters {
      task_definition_arn = aws_ecs_task_definition.verify.arn
      launch_type         = "FARGATE"
      task_count          = 1

      network_configuration {
        subnets          = distinct([for node in var.nodes : node.subnet_id])
        security_groups  = [aws_security_group.verify.id]
        assign_public_ip = false
      }
    }

    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 10
    }
  }
}
