output "cluster_name" {
  description = "The ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "endpoints" {
  description = "Where clients in the VPC find each node."
  value       = { for number, _ in var.nodes : number => "http://node-${number}.${var.namespace}:7700" }
}

output "load_balancer_dns_name" {
  description = "The load balancer's name, or null."
  value       = var.load_balancer ? aws_lb.clients[0].dns_name : null
}

output "autoscaling_groups" {
  description = "Names of the autoscaling groups by node, for the module monitoring."
  value       = { for number, group in aws_autoscaling_group.machine : number => group.name }
}

output "volume_ids" {
  description = "The data volumes by node."
  value       = { for number, volume in aws_ebs_volume.data : number => volume.id }
}
