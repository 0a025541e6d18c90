# For the day on which a volume is lost: a task that rebuilds the node's directory from the archive, on the node's machine and with the
# node's role, because it makes a branch. Nothing starts it but a person; see README.md.

locals {
  hydrate_containers = { for number, _ in var.nodes : number => [{
    name       = "hydrate"
    image      = var.image
    essential  = true
    entryPoint = ["/usr/bin/duramen-restore"]
    command    = ["hydrate", "--to", "/var/lib/duramen", "--latest", "--node-id", number]
    user       = "65532:65532"

    readonlyRootFilesystem = true
    environment = [
      { name = "DURAMEN_ARCHIVE", value = var.archive_url },
      { name = "DURAMEN_BRANCH", value = lookup(var.settings, "archive.branch", "main") },
      { name = "AWS_REGION", value = local.settings["archive.region"] },
    ]
    secrets     = [for name, arn in var.secrets : { name = name, valueFrom = arn }]
    mountPoints = [{ sourceVolume = "data", containerPath = "/var/lib/duramen", readOnly = false }]
    ulimits     = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]

    linuxParameters = { capabilities = { drop = ["ALL"], add = [] }, initProcessEnabled = false }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = var.log_group.name
        "awslogs-region"        = data.aws_region.current.region
        "awslogs-stream-prefix" = "hydrate"
      }
    }
  }] }
}

resource "aws_ecs_task_definition" "hydrate" {
  for_each = var.nodes

  family                   = "${var.name}-${each.key}-hydrate"
  requires_compatibilities = ["EC2"]
  network_mode             = "awsvpc"
  cpu                      = var.task.cpu
  memory                   = var.task.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode(local.hydrate_containers[each.key])
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture == "arm64" ? "ARM64" : "X86_64"
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
