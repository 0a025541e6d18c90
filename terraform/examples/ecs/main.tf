# One node as an ECS service, with its archive, its logs and its alarms.

module "archive" {
  source = "../../modules/archive"

  bucket_name = var.bucket_name
}

module "node" {
  source = "../../modules/ecs"

  name               = var.name
  nodes              = { "1" = { subnet_id = var.subnet_id } }
  image              = var.image
  archive_url        = module.archive.url
  policy_arns        = { archive = module.archive.node_policy_arn }
  verify_policy_arns = { archive = module.archive.verify_policy_arn }
  log_group          = module.monitoring.log_group
  client_cidrs       = var.client_cidrs
  operator_cidrs     = var.operator_cidrs
}

module "monitoring" {
  source = "../../modules/monitoring"

  name               = var.name
  autoscaling_groups = module.node.autoscaling_groups
  volume_ids         = module.node.volume_ids
  alarm_actions      = var.alarm_actions
}
