# What CloudWatch can know of a node: its logs, its machine and its volume. What only the node knows (lag, latencies, verification) is
# in its metrics: have Prometheus scrape port 7702, with grafana/alerts.

data "aws_region" "current" {}

locals {
  # By name: the pattern of the JSON log lines that are counted, and how many in five minutes are too many.
  patterns = {
    errors           = { pattern = "{ $.level = \"ERROR\" }", threshold = 10, about = "Error lines in the log" }
    archiving-failed = { pattern = "{ $.message = \"archiving failed; it is tried again\" }", threshold = 10, about = "Archiving fails: RUNBOOK.md#object-store-outage" }
    log-failed       = { pattern = "\"the node ends, its restart recovers\"", threshold = 0, about = "The node ended because it can promise nothing more: RUNBOOK.md#node-down" }
    request-failures = { pattern = "{ $.message = \"a request failed\" }", threshold = 50, about = "Requests answered with a server error: RUNBOOK.md#errors" }
  }
  namespace = "Duramen/${var.name}"
}

resource "aws_cloudwatch_log_group" "node" {
  #checkov:skip=CKV_AWS_338:How long logs are kept is for the one who pays to say; the default is 90 days
  #checkov:skip=CKV_AWS_158:A key is a variable; without one CloudWatch encrypts with its own
  name              = "/duramen/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_cloudwatch_log_metric_filter" "lines" {
  for_each = local.patterns

  name           = "${var.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.node.name
  pattern        = each.value.pattern

  metric_transformation {
    name          = each.key
    namespace     = local.namespace
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "lines" {
  for_each = local.patterns

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.about
  namespace           = local.namespace
  metric_name         = each.key
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags

  depends_on = [aws_cloudwatch_log_metric_filter.lines]
}

resource "aws_cloudwatch_metric_alarm" "machine_missing" {
  for_each = var.autoscaling_groups

  alarm_name          = "${var.name}-${each.key}-machine-missing"
  alarm_description   = "Node ${each.key} has no machine in service: RUNBOOK.md#node-down"
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupInServiceInstances"
  dimensions          = { AutoScalingGroupName = each.value }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "machine_failing" {
  for_each = var.autoscaling_groups

  alarm_name          = "${var.name}-${each.key}-machine-failing"
  alarm_description   = "The machine of node ${each.key} fails its status checks: RUNBOOK.md#node-down"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { AutoScalingGroupName = each.value }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "missing"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "volume_busy" {
  for_each = var.volume_ids

  alarm_name          = "${var.name}-${each.key}-volume-busy"
  alarm_description   = "Requests queue at the data volume of node ${each.key}: RUNBOOK.md#wal-slow"
  namespace           = "AWS/EBS"
  metric_name         = "VolumeQueueLength"
  dimensions          = { VolumeId = each.value }
  statistic           = "Average"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 16
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = concat(
      [for index, name in keys(local.patterns) : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = local.patterns[name].about
          region  = data.aws_region.current.region
          metrics = [[local.namespace, name]]
          stat    = "Sum"
          period  = 300
          view    = "timeSeries"
        }
      }],
      [for index, number in keys(var.volume_ids) : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 12 + 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = "Volume of node ${number}"
          region  = data.aws_region.current.region
          metrics = [for metric in ["VolumeWriteOps", "VolumeReadOps", "VolumeQueueLength"] : ["AWS/EBS", metric, "VolumeId", var.volume_ids[number]]]
          stat    = "Average"
          period  = 60
          view    = "timeSeries"
        }
      }],
      [{
        type   = "log"
        x      = 0
        y      = 24
        width  = 24
        height = 8
        properties = {
          title  = "Warnings and errors"
          region = data.aws_region.current.region
          query  = "SOURCE '${aws_cloudwatch_log_group.node.name}' | fields @timestamp, level, message, error, request_id, tenant, stream, shard | filter level in ['WARN', 'ERROR'] | sort @timestamp desc | limit 100"
          view   = "table"
        }
      }],
    )
  })
}
