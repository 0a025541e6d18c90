# tflint --recursive --config "$PWD/.tflint.hcl": Terraform's own rules, all of them.
plugin "terraform" {
  enabled = true
  preset  = "all"
}
