// A Terraform provider that knows the AWS provider's schema and nothing else: `terraform validate`, `plan` and `apply` then
// check every argument, type and reference of a configuration without AWS. What AWS would say is made up.
//
// The schema is the JSON that ../schema prints, in the file that DURAMEN_PROVIDER_SCHEMA names.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/terraform-plugin-sdk/v2/diag"
	"github.com/hashicorp/terraform-plugin-sdk/v2/helper/schema"
	"github.com/hashicorp/terraform-plugin-sdk/v2/plugin"
)

type attribute struct {
	Computed, Optional, Required bool
	Of, Collection               string
	Block                        *block
}

type nested struct {
	Computed, Optional, Required bool
	Kind                         string
	Max                          int
	Block                        block
}

type block struct {
	Attributes map[string]attribute
	Blocks     map[string]nested
}

type description struct {
	Resources, Data map[string]block
}

// What data sources answer where a configuration looks at it; everything else is made up.
var answers = map[string]string{
	"aws_partition.partition":        "aws",
	"aws_region.region":              "eu-central-1",
	"aws_region.name":                "eu-central-1",
	"aws_caller_identity.account_id": "123456789012",
	"aws_subnet.vpc_id":              "vpc-0123456789abcdef0",
	"aws_subnet.availability_zone":   "eu-central-1a",
	"aws_ssm_parameter.value":        "ami-0123456789abcdef0",
	"aws_ebs_volume.id":              "vol-0123456789abcdef0",
}

// The services whose name in an ARN isn't the first word of the type's name, and what stands before the resource's own name.
var arns = map[string]string{
	"aws_iam_policy":           "iam::123456789012:policy/",
	"aws_iam_role":             "iam::123456789012:role/",
	"aws_iam_instance_profile": "iam::123456789012:instance-profile/",
	"aws_cloudwatch_log_group": "logs:eu-central-1:123456789012:log-group:",
	"aws_ebs_volume":           "ec2:eu-central-1:123456789012:volume/",
	"aws_launch_template":      "ec2:eu-central-1:123456789012:launch-template/",
	"aws_security_group":       "ec2:eu-central-1:123456789012:security-group/",
	"aws_s3_bucket":            "s3:::",
}

// arn is well-formed, and another one for each name.
func arn(source, name string) string {
	start, ok := arns[source]
	if !ok {
		words := strings.SplitN(strings.TrimPrefix(source, "aws_"), "_", 2)
		start = words[0] + ":eu-central-1:123456789012:" + strings.ReplaceAll(words[len(words)-1], "_", "-") + "/"
	}
	return "arn:aws:" + start + name
}

func main() {
	text, err := os.ReadFile(os.Getenv("DURAMEN_PROVIDER_SCHEMA"))
	var all description
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "DURAMEN_PROVIDER_SCHEMA:", err)
		os.Exit(1)
	}
	provider := &schema.Provider{
		// The real one has many settings; the examples use these.
		Schema: map[string]*schema.Schema{
			"region": {Type: schema.TypeString, Optional: true},
			"default_tags": {Type: schema.TypeList, Optional: true, MaxItems: 1, Elem: &schema.Resource{
				Schema: map[string]*schema.Schema{"tags": {Type: schema.TypeMap, Optional: true, Elem: &schema.Schema{Type: schema.TypeString}}},
			}},
		},
		ResourcesMap:   map[string]*schema.Resource{},
		DataSourcesMap: map[string]*schema.Resource{},
	}
	nothing := func(context.Context, *schema.ResourceData, any) diag.Diagnostics { return nil }
	for name, of := range all.Resources {
		provider.ResourcesMap[name] = &schema.Resource{
			Schema: fields(of, true), CreateContext: answer(name, of), ReadContext: nothing, UpdateContext: nothing,
			DeleteContext: nothing,
		}
	}
	for name, of := range all.Data {
		provider.DataSourcesMap[name] = &schema.Resource{Schema: fields(of, true), ReadContext: schema.ReadContextFunc(answer(name, of))}
	}
	plugin.Serve(&plugin.ServeOpts{ProviderFunc: func() *schema.Provider { return provider }})
}

func fields(of block, top bool) map[string]*schema.Schema {
	made := map[string]*schema.Schema{}
	for name, a := range of.Attributes {
		if top && name == "id" && !a.Optional {
			continue // Every resource and data source has it.
		}
		field := &schema.Schema{Computed: a.Computed, Optional: a.Optional, Required: a.Required, Type: plain(a.Of)}
		switch {
		case a.Block != nil:
			field.Type, field.Elem = schema.TypeList, &schema.Resource{Schema: fields(*a.Block, false)}
		case a.Collection != "":
			field.Elem = &schema.Schema{Type: field.Type}
			field.Type = map[string]schema.ValueType{"list": schema.TypeList, "set": schema.TypeSet, "map": schema.TypeMap}[a.Collection]
		}
		made[name] = field
	}
	for name, b := range of.Blocks {
		field := &schema.Schema{
			Computed: b.Computed, Optional: b.Optional, Required: b.Required, MaxItems: b.Max,
			Type: schema.TypeList, Elem: &schema.Resource{Schema: fields(b.Block, false)},
		}
		switch b.Kind {
		case "set":
			field.Type = schema.TypeSet
		case "struct":
			field.MaxItems = 1
		}
		made[name] = field
	}
	return made
}

func plain(name string) schema.ValueType {
	switch name {
	case "number":
		return schema.TypeFloat
	case "bool":
		return schema.TypeBool
	}
	return schema.TypeString
}

// answer makes up an id and every computed text.
func answer(source string, of block) schema.CreateContextFunc {
	return func(_ context.Context, data *schema.ResourceData, _ any) diag.Diagnostics {
		own := "made-up"
		for _, name := range []string{"name", "family", "bucket"} {
			if _, has := of.Attributes[name]; has {
				if given, ok := data.GetOk(name); ok {
					own = given.(string)
					break
				}
			}
		}
		made := func(name string) string {
			if known, ok := answers[source+"."+name]; ok {
				return known
			}
			if name == "arn" || strings.HasSuffix(name, "_arn") {
				return arn(source, own)
			}
			return "made-up-" + name
		}
		data.SetId(made("id"))
		for name, a := range of.Attributes {
			if !a.Computed || a.Collection != "" || a.Block != nil || a.Of != "string" || name == "id" {
				continue
			}
			if _, given := data.GetOk(name); given {
				continue
			}
			if err := data.Set(name, made(name)); err != nil {
				return diag.FromErr(err)
			}
		}
		return nil
	}
}
