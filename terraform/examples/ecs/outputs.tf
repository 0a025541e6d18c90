output "endpoints" {
  description = "Where clients in the VPC find the node."
  value       = module.node.endpoints
}

output "load_balancer_dns_name" {
  description = "Where other clients find it."
  value       = module.node.load_balancer_dns_name
}

output "archive_url" {
  description = "The archive, for duramen-restore."
  value       = module.archive.url
}
