output "archive_url" {
  description = "The archive, for duramen-restore."
  value       = module.archive.url
}

output "autoscaling_groups" {
  description = "Where the node's machine is found."
  value       = module.node.autoscaling_groups
}
