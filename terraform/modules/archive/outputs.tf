output "url" {
  description = "The archive's URL: archive.url of a node, --archive of duramen-restore."
  value       = "s3://${aws_s3_bucket.archive.bucket}/${var.prefix}"
}

output "bucket_name" {
  description = "The bucket."
  value       = aws_s3_bucket.archive.bucket
}

output "bucket_arn" {
  description = "The bucket's ARN."
  value       = aws_s3_bucket.archive.arn
}

output "node_policy_arn" {
  description = "For a node: it may create and read, and never delete or replace."
  value       = aws_iam_policy.node.arn
}

output "expiry_policy_arn" {
  description = "For duramen-archiver where it deletes."
  value       = aws_iam_policy.expiry.arn
}

output "restore_policy_arn" {
  description = "For duramen-restore where it only reads. To branch or hydrate it also needs what a node may."
  value       = aws_iam_policy.restore.arn
}

output "verify_policy_arn" {
  description = "For duramen-restore verify: it may read, and record its verdict."
  value       = aws_iam_policy.verify.arn
}
