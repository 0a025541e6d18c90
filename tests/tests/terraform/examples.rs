//! What the READMEs of the examples say to do, done with a made-up AWS.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::run;

use crate::{Terraform, one, workspace};

/// The first fenced block after a heading.
fn block(readme: &str, heading: &str) -> Result<String> {
    let (_, section) =
        readme.split_once(&format!("\n## {heading}\n")).with_context(|| format!("no {heading}"))?;
    let (_, rest) = section.split_once("\n```\n").with_context(|| format!("{heading} has no commands"))?;
    Ok(rest.split_once("\n```\n").with_context(|| format!("{heading} has no end"))?.0.to_owned())
}

/// Runs commands in the example's folder as a person would who says yes to everything.
fn shell(terraform: &Terraform, example: &str, commands: &str) -> Result<String> {
    let bin = terraform.copy.path().join("bin");
    std::fs::create_dir_all(&bin)?;
    for (name, text) in [
        ("terraform", format!("#!/bin/bash\nexec {} \"$@\"\n", terraform.program.display())),
        ("aws", "#!/bin/bash\necho \"aws $*\"\n".to_owned()),
    ] {
        let file = bin.join(name);
        std::fs::write(&file, text)?;
        run(Command::new("chmod").arg("+x").arg(&file))?;
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euc", commands]).env("PATH", path).env("TF_CLI_ARGS", "-no-color");
    for yes in ["apply", "destroy"] {
        command.env(format!("TF_CLI_ARGS_{yes}"), "-auto-approve -input=false");
    }
    run(terraform.environment(&mut command).current_dir(terraform.example(example)))
}

#[test]
fn an_example_is_built_and_removed_as_its_readme_says_and_the_log_is_kept() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for example in ["archive-only", "single-vm", "ecs"] {
        let readme =
            std::fs::read_to_string(workspace().join(format!("terraform/examples/{example}/README.md")))?;
        // A sum that nobody has.
        let build = block(&readme, "Build")?.replace('…', &"a".repeat(64));
        let said = shell(&terraform, example, &build).with_context(|| example.to_owned())?;
        ensure!(said.contains("Apply complete!"), "{example}: {said}");

        let volume = "module.node.aws_ebs_volume.data";
        let made = terraform.run(example, &["state", "list"])?;
        let has_volume = made.contains(volume);
        ensure!(has_volume == (example != "archive-only"), "{example}: {made}");
        if has_volume {
            let error =
                shell(&terraform, example, "terraform destroy").expect_err("it holds what isn't archived");
            ensure!(format!("{error:#}").contains("prevent_destroy"), "{example}: {error:#}");
        }
        let said =
            shell(&terraform, example, &block(&readme, "Remove")?).with_context(|| example.to_owned())?;
        for kept in [
            volume,
            "module.archive.aws_s3_bucket.archive",
            "module.archive.aws_s3_bucket_versioning.archive",
        ] {
            ensure!(!said.contains(&format!("{kept}: Destroy")), "{example} destroys {kept}: {said}");
            ensure!(!said.contains(&format!("{kept}[\"1\"]: Destroy")), "{example} destroys {kept}: {said}");
        }
        let left = terraform.run(example, &["state", "list"])?;
        ensure!(left.trim().is_empty(), "{example}: {left} is left");
        let protected = made.contains("aws_lb.clients");
        ensure!(said.contains("deletion_protection.enabled,Value=false") == protected, "{example}: {said}");
    }
    Ok(())
}

/// EC2 refuses a specification of tags that has none, when the autoscaling group starts a machine and not before.
#[test]
fn a_launch_template_has_tags_for_all_that_it_tags_also_without_tags_of_the_users() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for example in ["single-vm", "ecs"] {
        let resources = terraform.apply(example, "acme-duramen")?;
        let templates = resources.iter().filter(|resource| resource["type"] == "aws_launch_template");
        let template = &one(templates, "launch template")?["values"];
        let specifications = template["tag_specifications"].as_array().context("it tags")?;
        let mut kinds = Vec::new();
        for specification in specifications {
            let tags = specification["tags"].as_object();
            ensure!(tags.is_some_and(|tags| !tags.is_empty()), "{example}: no tags in {specification:#}");
            kinds.push(specification["resource_type"].as_str().unwrap_or_default());
        }
        ensure!(kinds == ["instance", "volume"], "{example}: {kinds:?}");
        // The machine's role may attach what has this tag: the volume of its data, and no machine's first disk.
        let disk = &specifications[1]["tags"];
        ensure!(disk["duramen:node"].is_null(), "{example}: {disk:#}");
    }
    Ok(())
}
