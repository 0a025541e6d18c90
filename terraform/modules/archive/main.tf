# The bucket of an archive, and policies for those who work with it: a node, expiry, restores, and verification.

data "aws_partition" "current" {}

locals {
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}"
  objects    = "${local.bucket_arn}/${var.prefix}/*"

  # Who may create and read needs the key as well; who deletes doesn't.
  key_statements = var.kms_key_arn == null ? [] : [
    {
      Sid      = "UseTheKey"
      Effect   = "Allow"
      Action   = ["kms:GenerateDataKey", "kms:Decrypt"]
      Resource = var.kms_key_arn
    }
  ]
  read_key_statements = var.kms_key_arn == null ? [] : [
    {
      Sid      = "ReadWithTheKey"
      Effect   = "Allow"
      Action   = "kms:Decrypt"
      Resource = var.kms_key_arn
    }
  ]

  read_statements = [
    {
      Sid      = "Read"
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = local.objects
    },
    {
      Sid       = "List"
      Effect    = "Allow"
      Action    = "s3:ListBucket"
      Resource  = local.bucket_arn
      Condition = { StringLike = { "s3:prefix" = ["${var.prefix}/*"] } }
    },
  ]

  node_policy = {
    Version = "2012-10-17"
    Statement = concat(local.read_statements, [
      {
        # With If-None-Match S3 refuses to replace an object: the node can add to the history and not change it.
        Sid       = "CreateOnly"
        Effect    = "Allow"
        Action    = "s3:PutObject"
        Resource  = local.objects
        Condition = { Null = { "s3:if-none-match" = "false" } }
      },
    ], local.key_statements)
  }

  expiry_policy = {
    Version = "2012-10-17"
    Statement = concat(local.read_statements, [
      {
        # Manifests that say what was removed.
        Sid       = "CreateOnly"
        Effect    = "Allow"
        Action    = "s3:PutObject"
        Resource  = local.objects
        Condition = { Null = { "s3:if-none-match" = "false" } }
      },
      {
        # The current version only: s3:DeleteObjectVersion is given to nobody, so a mistake can be undone.
        Sid      = "Delete"
        Effect   = "Allow"
        Action   = "s3:DeleteObject"
        Resource = local.objects
      },
    ], local.key_statements)
  }

  restore_policy = {
    Version   = "2012-10-17"
    Statement = concat(local.read_statements, local.read_key_statements)
  }

  verify_policy = {
    Version = "2012-10-17"
    Statement = concat(local.read_statements, [
      {
        # What it found, beside what it looked at.
        Sid       = "RecordVerdicts"
        Effect    = "Allow"
        Action    = "s3:PutObject"
        Resource  = "${local.bucket_arn}/${var.prefix}/verdicts/*"
        Condition = { Null = { "s3:if-none-match" = "false" } }
      },
    ], local.key_statements)
  }
}

resource "aws_s3_bucket" "archive" {
  #checkov:skip=CKV2_AWS_62:Nothing is to happen when an object is created; the node says what it archives
  #checkov:skip=CKV_AWS_144:Replication to another region is a choice with a price; the runbook says what it is for
  bucket              = var.bucket_name
  object_lock_enabled = var.object_lock_days > 0
  force_destroy       = var.force_destroy
  tags                = var.tags
}

resource "aws_s3_bucket_ownership_controls" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    id     = "aborted-uploads"
    status = "Enabled"

    filter {
      prefix = ""
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  # Never an expiration of current objects: what may go is for Duramen's expiry to say, which knows what a restore needs.
  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {
      prefix = ""
    }

    noncurrent_version_expiration {
      noncurrent_days = var.old_version_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  depends_on = [aws_s3_bucket_versioning.archive]
}

resource "aws_s3_bucket_object_lock_configuration" "archive" {
  count = var.object_lock_days > 0 ? 1 : 0

  bucket = aws_s3_bucket.archive.id

  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.object_lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.archive]
}

resource "aws_s3_bucket_logging" "archive" {
  count = var.access_log_bucket == null ? 0 : 1

  bucket        = aws_s3_bucket.archive.id
  target_bucket = var.access_log_bucket
  target_prefix = "${var.bucket_name}/"
}

resource "aws_s3_bucket_policy" "archive" {
  bucket = aws_s3_bucket.archive.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.archive]
}

resource "aws_iam_policy" "node" {
  name        = "${var.bucket_name}-node"
  description = "A Duramen node: create and read objects of the archive, nothing else"
  policy      = jsonencode(local.node_policy)
  tags        = var.tags
}

resource "aws_iam_policy" "expiry" {
  name        = "${var.bucket_name}-expiry"
  description = "duramen-archiver, where it expires and collects orphans: the one that deletes"
  policy      = jsonencode(local.expiry_policy)
  tags        = var.tags
}

resource "aws_iam_policy" "restore" {
  name        = "${var.bucket_name}-restore"
  description = "duramen-restore where it only reads: list, plan, show, export, verify --dry-run"
  policy      = jsonencode(local.restore_policy)
  tags        = var.tags
}

resource "aws_iam_policy" "verify" {
  name        = "${var.bucket_name}-verify"
  description = "duramen-restore verify: read the archive and record the verdict in it"
  policy      = jsonencode(local.verify_policy)
  tags        = var.tags
}
