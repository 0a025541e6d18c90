# A proof of every byte of the archive that is new, once a week, and of every byte, once a month, by a task that may read and record its
# verdict. It runs on Fargate: it reads much, and the node's machine is for the node. The node shows the verdict, and alarms tell of a bad
# one and of none for eight days.

locals {
  verify_family = "${var.name}-verify"

  verify_container = merge(local.container, local.with_archive, local.restore, local.logs["verify"], {
    name    = "verify"
    command = ["verify", "--full", "--since"]
  })

  # Both start the same task; `words` are in place of the container's, if there are any.
  verify_schedules = {
    weekly  = { suffix = "", expression = var.verify_schedule, words = null, about = "Weekly verification of what is new in the archive" }
    monthly = { suffix = "-all", expression = var.verify_all_schedule, words = ["verify", "--full"], about = "Monthly verification of all of the archive: what was proved once may rot later" }
  }
}

resource "aws_iam_role" "verify" {
  name               = local.verify_family
  assume_role_policy = local.task_trust
  tags               = var.tags
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
    cpu_architecture        = local.cpu_architecture
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
  for_each = local.verify_schedules

  name                = "${local.verify_family}${each.value.suffix}"
  description         = each.value.about
  schedule_expression = each.value.expression

  flexible_time_window {
    mode                      = "FLEXIBLE"
    maximum_window_in_minutes = 360
  }

  target {
    arn      = aws_ecs_cluster.this.arn
    role_arn = aws_iam_role.scheduler.arn
    input    = each.value.words == null ? null : jsonencode({ containerOverrides = [{ name = "verify", command = each.value.words }] })

    ecs_parameters {
      task_definition_arn = aws_ecs_task_definition.verify.arn
      launch_type         = "FARGATE"
      task_count          = 1

      network_configuration {
        subnets          = local.subnets
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
