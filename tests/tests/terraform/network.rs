//! Who reaches a node through the load balancer.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{Terraform, only};

/// The networks that may reach a port of the node.
fn let_in(resources: &[Value], port: u16) -> BTreeSet<&str> {
    let rules = resources.iter().filter(|rule| rule["type"] == "aws_vpc_security_group_ingress_rule");
    let rules =
        rules.map(|rule| &rule["values"]).filter(|rule| rule["from_port"] == port && rule["to_port"] == port);
    rules.filter_map(|rule| rule["cidr_ipv4"].as_str()).collect()
}

/// Without the clients' own addresses the rules for clients would meet those of the load balancer.
#[test]
fn the_load_balancer_keeps_the_addresses_that_the_rules_are_about() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let resources = terraform.apply("ecs", "acme-duramen")?;
    let group = only(&resources, "aws_lb_target_group", "clients")?;
    ensure!(group["target_type"] == "ip" && group["preserve_client_ip"] == "true", "{group:#}");
    ensure!(let_in(&resources, 7700) == BTreeSet::from(["10.0.0.0/8"]), "{:?}", let_in(&resources, 7700));
    // Its health checks come from its own addresses, which are in the nodes' subnets.
    ensure!(group["health_check"][0]["port"] == "7702", "{group:#}");
    let subnets = resources.iter().filter(|data| data["type"] == "aws_subnet");
    let subnets: BTreeSet<_> = subnets.filter_map(|subnet| subnet["values"]["cidr_block"].as_str()).collect();
    ensure!(!subnets.is_empty(), "the node is in no subnet");
    let operators = let_in(&resources, 7702);
    ensure!(subnets.is_subset(&operators) && operators.contains("10.1.0.0/16"), "{operators:?}");
    Ok(())
}
