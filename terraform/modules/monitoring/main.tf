# What CloudWatch knows of a node: the metrics that the node writes into its log (cloudwatch.emf), what else its log says, its machine and
# its volume. The limits are those of grafana/alerts.

data "aws_region" "current" {}

locals {
  # Of a node with the settings that the modules vm and ecs give it.
  namespace = "Duramen"

  # By name: what is too much of a metric, minute by minute, and for how many minutes. A percentile is absent while nothing happens.
  limits = {
    unhealthy           = { metric = "health", statistic = "Maximum", above = 1, minutes = 5, missing = "breaching", about = "is unhealthy, or says nothing: RUNBOOK.md#node-down" }
    append-slow         = { metric = "append_duration_p99", statistic = "Maximum", above = 0.1, minutes = 5, missing = "notBreaching", about = "acknowledges appends slowly, p99 over 100 ms: RUNBOOK.md#high-append-latency" }
    wal-slow            = { metric = "wal_fsync_duration_p99", statistic = "Maximum", above = 0.05, minutes = 5, missing = "notBreaching", about = "has slow fsyncs, p99 over 50 ms: RUNBOOK.md#wal-slow" }
    errors              = { metric = "errors", statistic = "Sum", above = 10, minutes = 3, missing = "notBreaching", about = "answers more than 10 operations a minute with errors of its own: RUNBOOK.md#errors" }
    corruption          = { metric = "corruption_errors", statistic = "Sum", above = 0, minutes = 1, missing = "notBreaching", about = "met damaged bytes: RUNBOOK.md#corruption" }
    clock-refused       = { metric = "clock_refused_errors", statistic = "Sum", above = 0, minutes = 1, missing = "notBreaching", about = "refused times ahead of its own: RUNBOOK.md#clock-refused" }
    disk-filling        = { metric = "disk_used", statistic = "Maximum", above = 85, minutes = 5, missing = "notBreaching", about = "uses more than 85 % of its disk: RUNBOOK.md#disk-full" }
    disk-full           = { metric = "disk_full", statistic = "Maximum", above = 0, minutes = 1, missing = "notBreaching", about = "refuses appends for want of disk: RUNBOOK.md#disk-full" }
    archive-lag-entries = { metric = "archive_lag_entries", statistic = "Minimum", above = 10000, minutes = 3, missing = "notBreaching", about = "has more than 10,000 entries that are not in the archive: RUNBOOK.md#archive-lag" }
    upload-slow         = { metric = "archive_upload_duration_p99", statistic = "Maximum", above = 30, minutes = 5, missing = "notBreaching", about = "uploads slowly, p99 over 30 s: RUNBOOK.md#archive-lag" }
    archive-failing     = { metric = "archive_failing", statistic = "Minimum", above = 0, minutes = 5, missing = "notBreaching", about = "can't use its archive: RUNBOOK.md#object-store-outage" }
    snapshot-old        = { metric = "snapshot_age", statistic = "Minimum", above = 86400, minutes = 3, missing = "notBreaching", about = "has shards without a snapshot for a day: RUNBOOK.md#snapshot-old" }
    verification-failed = { metric = "verification_findings", statistic = "Minimum", above = 0, minutes = 1, missing = "notBreaching", about = "has an archive with altered or missing objects: RUNBOOK.md#verification-failed" }
    verification-old    = { metric = "verification_age", statistic = "Minimum", above = 691200, minutes = 3, missing = "notBreaching", about = "has an archive that was not verified in full for eight days: RUNBOOK.md#verification-failed" }
  }
  nodes = keys(var.autoscaling_groups)
  alarms = merge([for number in local.nodes : {
    for name, limit in local.limits : "${number}-${name}" => merge(limit, { node = number })
  }]...)
  # The oldest entry that is not in the archive, as a multiple of the age at which it should be.
  lag = ["archive_lag_age", "archive_segment_age"]

  # By name: the pattern of log lines that are counted, and how many in five minutes are too many. Only the log has these.
  patterns = {
    error-lines = { pattern = "{ $.level = \"ERROR\" }", threshold = 10, about = "Error lines in the log" }
    node-ended  = { pattern = "\"the node ends, its restart recovers\"", threshold = 0, about = "The node ended because it can promise nothing more: RUNBOOK.md#node-down" }
  }
  counts_of_lines = "Duramen/${var.name}"

  widgets = [
    { title = "Appends a minute", metrics = ["appends", "append_records"], statistic = "Sum" },
    { title = "Reads a minute", metrics = ["reads"], statistic = "Sum" },
    { title = "Bytes a minute", metrics = ["append_bytes", "read_bytes"], statistic = "Sum" },
    { title = "Errors a minute", metrics = ["errors", "corruption_errors", "clock_refused_errors"], statistic = "Sum" },
    { title = "p99 of appends, fsyncs and uploads, seconds", metrics = ["append_duration_p99", "wal_fsync_duration_p99", "archive_upload_duration_p99"], statistic = "Maximum" },
    { title = "At risk now (RPO), seconds", metrics = ["archive_lag_age", "archive_segment_age", "recovery_point_age"], statistic = "Maximum" },
    { title = "Entries not in the archive", metrics = ["archive_lag_entries"], statistic = "Maximum" },
    { title = "Bytes not in the archive", metrics = ["archive_lag_bytes"], statistic = "Maximum" },
    { title = "Health (0 is well) and what fails", metrics = ["health", "archive_failing", "disk_full", "verification_findings"], statistic = "Maximum" },
    { title = "Since the last snapshot and verification, seconds", metrics = ["snapshot_age", "verification_age"], statistic = "Maximum" },
    { title = "Disk used, percent", metrics = ["disk_used"], statistic = "Maximum" },
    { title = "Memory, bytes", metrics = ["resident_memory"], statistic = "Maximum" },
  ]
  # Two in a row, then the volumes, then the log.
  rows_of_metrics = ceil(length(local.widgets) / 2)
  rows            = local.rows_of_metrics + ceil(length(var.volume_ids) / 2)
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
    namespace     = local.counts_of_lines
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "lines" {
  for_each = local.patterns

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.about
  namespace           = local.counts_of_lines
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

resource "aws_cloudwatch_metric_alarm" "node" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "Node ${each.value.node} ${each.value.about}"
  namespace           = local.namespace
  metric_name         = each.value.metric
  dimensions          = { cluster = var.name, node = each.value.node }
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = each.value.minutes
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "archive_lag_age" {
  for_each = toset(local.nodes)

  alarm_name          = "${var.name}-${each.key}-archive-lag-age"
  alarm_description   = "Node ${each.key} has entries that are not in the archive, older than five times archive.segment_age: RUNBOOK.md#archive-lag"
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags

  metric_query {
    id          = "times"
    expression  = join(" / ", local.lag)
    label       = "Times archive.segment_age"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = local.lag

    content {
      id = metric_query.value

      metric {
        namespace   = local.namespace
        metric_name = metric_query.value
        dimensions  = { cluster = var.name, node = each.key }
        period      = 60
        stat        = "Minimum"
      }
    }
  }
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
      [for index, widget in local.widgets : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = widget.title
          region  = data.aws_region.current.region
          metrics = [for pair in setproduct(local.nodes, widget.metrics) : [local.namespace, pair[1], "cluster", var.name, "node", pair[0]]]
          stat    = widget.statistic
          period  = 60
          view    = "timeSeries"
        }
      }],
      [for index, number in keys(var.volume_ids) : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * (local.rows_of_metrics + floor(index / 2))
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
        y      = 6 * local.rows
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
