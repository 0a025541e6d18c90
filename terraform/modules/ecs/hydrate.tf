# For the day on which a volume is lost: a task that rebuilds the node's directory from the archive, on the node's machine and with the
# node's role, because it makes a branch. Nothing starts it but a person; see README.md.

locals {
  hydrate_containers = { for number, _ in var.nodes : number => [merge(local.container, local.with_archive, local.with_data, local.restore, local.logs["hydrate"], {
    name    = "hydrate"
    command = ["hydrate", "--to", "/var/lib/duramen", "--latest", "--node-id", number]
  })] }
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
