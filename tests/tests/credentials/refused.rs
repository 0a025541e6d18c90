//! What a person reads where no credentials come: what happened, where they were looked for, and what to do.

use anyhow::{Result, ensure};
use duramen_tests::{Bucket, Tool};

use super::service::{Service, json, xml_refusal};
use super::{HOUR, ROLE, metadata, not_there, restore};

const WHAT_TO_DO: &str = "mend that, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE";

/// What `list` says: it must fail with `code` in one line that has all of `parts`.
fn says(tool: &Tool, code: i32, parts: &[&str]) -> Result<()> {
    let said = tool.clone().args(["list", "--attempts", "1"]).fail(code, parts)?;
    ensure!(said.trim_end().lines().count() == 1, "more than a line: {said}");
    for noise in ["Response {", "ProviderError", "WARN"] {
        ensure!(!said.contains(noise), "{noise} is no word for people: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_s_refusal_is_told_with_its_address() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let service = Service::start(|_| (200, String::new())).await?;
    let tool = restore(&bucket, home.path())?.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &service.url());
    let place = format!("asked: container credentials at {}", service.url());
    for status in [403, 404] {
        service.answer_with(move |_| (status, r#"{"code":"No","message":"not for you"}"#.to_owned()));
        let status = format!("StatusCode({status})");
        says(&tool, 1, &["no usable credentials", &status, &place, WHAT_TO_DO])?;
    }
    // Who can't answer refuses nothing: that is worth another try.
    service.answer_with(|_| (503, "away".to_owned()));
    let for_now = "no credentials can be had for now (1 attempt)";
    says(&tool, 6, &[for_now, "StatusCode(503)", &place, "if it lasts"])?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let tool = tool.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://{nobody}/c"));
    says(&tool, 6, &[for_now, "Connection refused", &format!("http://{nobody}/c")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_metadata_or_without_a_role_is_told() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let service = Service::start(|_| (403, String::new())).await?;
    let tool = restore(&bucket, home.path())?
        .variable("AWS_EC2_METADATA_DISABLED", "false")
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service.url());
    let place = format!("asked: instance metadata at {}", service.url());
    says(&tool, 1, &["no usable credentials", "IMDS is disabled", &place, WHAT_TO_DO])?;

    service.answer_with(
        |asked| {
            if asked.method == "PUT" { (200, "token".to_owned()) } else { not_there(asked) }
        },
    );
    let said = tool.clone().args(["list"]).fail(
        1,
        &[
            "no usable credentials",
            "Environment: environment variable not set",
            "WebIdentityToken: $AWS_WEB_IDENTITY_TOKEN_FILE was not set",
            "EcsContainer: ECS provider not configured",
            "Ec2InstanceMetadata: received 404 from IMDS",
            WHAT_TO_DO,
        ],
    )?;
    ensure!(said.contains("may not have an IAM role associated"), "{said}");

    // The whole answer of a server, which the library has in its message, is of no use to anybody.
    service.answer_with(|asked| match asked.target.as_str() {
        "/latest/meta-data/iam/security-credentials/archive-role" => (400, "secret-answer".to_owned()),
        _ => metadata(String::new())(asked),
    });
    says(&tool, 1, &["error response from IMDS (code: 400)", &place])?;
    let said = tool.args(["list"]).fail(1, &[])?;
    ensure!(!said.contains("secret-answer"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_web_identity_is_told_with_its_role_and_its_token_s_file() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let service = Service::start(|_| {
        (403, xml_refusal("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"))
    })
    .await?;
    let token = home.path().join("token");
    std::fs::write(&token, "identity-of-a-pod")?;
    let tool = restore(&bucket, home.path())?
        .variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string())
        .variable("AWS_ROLE_ARN", ROLE)
        .variable("AWS_ENDPOINT_URL_STS", &service.url());
    let place = format!("asked: web identity {ROLE} with the token in {}", token.display());
    let refusal = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    says(&tool, 1, &["no usable credentials", "AccessDenied", refusal, &place, WHAT_TO_DO])?;
    let away = "<ErrorResponse/>".to_owned();
    service.answer_with(move |_| (503, away.clone()));
    says(&tool, 6, &["no credentials can be had for now (1 attempt)", &place])?;
    std::fs::remove_file(&token)?;
    says(&tool, 1, &["no usable credentials", &place])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_session_token_is_told_to_be_refused_by_the_store() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    if bucket.server().kind() == duramen_tests::ServerKind::InProcess {
        println!("passed over: only a MinIO looks at the token");
        return Ok(());
    }
    let mut session = bucket.session()?;
    session.token = "wrong".to_owned();
    let answer = json(&session, HOUR)?;
    let service = Service::start(move |_| (200, answer.clone())).await?;
    let tool = restore(&bucket, home.path())?.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &service.url());
    tool.args(["list"]).fail(1, &["InvalidTokenId", "the store does not accept the credentials"])?;
    Ok(())
}
