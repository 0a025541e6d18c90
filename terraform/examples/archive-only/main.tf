# The archive of a node that runs somewhere else: give the node's machine the policy node_policy_arn.

module "archive" {
  source = "../../modules/archive"

  bucket_name = var.bucket_name
}
