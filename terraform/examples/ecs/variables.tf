variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "bucket_name" {
  description = "Name of the archive's bucket; unique in the world."
  type        = string
}

variable "subnet_id" {
  description = "A private subnet with a way to S3, SSM and EC2 (a NAT gateway or endpoints)."
  type        = string
}

variable "client_cidrs" {
  description = "Networks whose clients may use the node."
  type        = list(string)
}

variable "operator_cidrs" {
  description = "Networks of Prometheus and of operators."
  type        = list(string)
  default     = []
}

variable "alarm_actions" {
  description = "ARNs that alarms go to."
  type        = list(string)
  default     = []
}

variable "image" {
  description = "The image of deploy/docker/Dockerfile, pinned."
  type        = string
}
