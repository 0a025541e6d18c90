output "autoscaling_groups" {
  description = "Names of the autoscaling groups by node, for the module monitoring."
  value       = { for number, group in aws_autoscaling_group.node : number => group.name }
}

output "volume_ids" {
  description = "The data volumes by node; empty with an instance store."
  value       = { for number, volume in aws_ebs_volume.data : number => volume.id }
}

output "security_group_id" {
  description = "The nodes' security group."
  value       = aws_security_group.node.id
}

output "role_name" {
  description = "The nodes' role, to attach more policies to."
  value       = aws_iam_role.node.name
}
