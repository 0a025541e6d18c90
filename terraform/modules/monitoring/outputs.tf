output "log_group" {
  description = "The log group: name and ARN, for the modules vm and ecs."
  value = {
    name = aws_cloudwatch_log_group.node.name
    arn  = aws_cloudwatch_log_group.node.arn
  }
}

output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}
