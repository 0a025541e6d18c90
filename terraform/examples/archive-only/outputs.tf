output "archive_url" {
  description = "archive.url of the node."
  value       = module.archive.url
}

output "node_policy_arn" {
  description = "Attach it to the user or role of the node."
  value       = module.archive.node_policy_arn
}

output "restore_policy_arn" {
  description = "Attach it to those who only look at the archive."
  value       = module.archive.restore_policy_arn
}
