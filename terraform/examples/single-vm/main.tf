# One node on a virtual machine, with its archive and its alarms.

module "archive" {
  source = "../../modules/archive"

  bucket_name = var.bucket_name
}

module "node" {
  source = "../../modules/vm"

  name           = var.name
  nodes          = { "1" = { subnet_id = var.subnet_id } }
  package        = var.package
  archive_url    = module.archive.url
  policy_arns    = { archive = module.archive.node_policy_arn }
  log_group      = module.monitoring.log_group
  client_cidrs   = var.client_cidrs
  operator_cidrs = var.operator_cidrs
  settings       = { "local_retention.bytes" = "20GiB" }
}

module "monitoring" {
  source = "../../modules/monitoring"

  name               = var.name
  autoscaling_groups = module.node.autoscaling_groups
  volume_ids         = module.node.volume_ids
  alarm_actions      = var.alarm_actions
}
