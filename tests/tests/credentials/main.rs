//! Credentials for the archive from every place that `aws-config` knows: each of them is asked as AWS has it, by the real
//! program, and what it gives signs real requests.

#![expect(clippy::disallowed_methods, reason = "a test's own files")]

mod refused;
mod service;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use duramen_tests::{Bucket, Deadline, NodeSettings, ServerKind, Tool};

use self::service::{Answer, Asked, Service, json, xml};

const HOUR: Duration = Duration::from_secs(3600);
const ROLE: &str = "arn:aws:iam::123456789012:role/archive";

/// `duramen-restore` on an archive in `bucket`: it finds no credentials but those that the test adds.
fn restore(bucket: &Bucket, home: &Path) -> Result<Tool> {
    Ok(Tool::restore(&bucket.archive_url("duramen"))?
        .variable("HOME", &home.display().to_string())
        .variable("AWS_EC2_METADATA_DISABLED", "true"))
}

fn not_there(asked: &Asked) -> Answer {
    (404, format!("{} is not here", asked.target))
}

/// Instance metadata with one role.
fn metadata(credentials: String) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    move |asked: &Asked| match (asked.method.as_str(), asked.target.as_str()) {
        ("PUT", "/latest/api/token") => (200, "token-of-this-instance".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "archive-role".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/archive-role") => (200, credentials.clone()),
        _ => not_there(asked),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_credentials_from_the_address_in_its_environment() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let answer = json(&bucket.session()?, HOUR)?;
    let service = Service::start(move |asked| match asked.target.as_str() {
        "/v2/credentials/of-a-task" => (200, answer.clone()),
        _ => not_there(asked),
    })
    .await?;
    let address = format!("{}/v2/credentials/of-a-task", service.url());
    let tool = restore(&bucket, home.path())?.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address);
    // ECS writes the token into the environment, EKS into a file.
    tool.clone().variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", "from-ecs").args(["check"]).succeed()?;
    let asked = service.asked();
    ensure!(asked.len() == 1 && asked[0].header("authorization") == "from-ecs", "{asked:#?}");

    let token = home.path().join("token");
    std::fs::write(&token, "from-eks")?;
    let tool = tool.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token.display().to_string());
    tool.args(["check"]).succeed()?;
    let asked = service.asked();
    ensure!(asked.len() == 1 && asked[0].header("authorization") == "from-eks", "{asked:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_has_the_credentials_of_its_role_from_its_metadata() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let service = Service::start(metadata(json(&bucket.session()?, HOUR)?)).await?;
    let tool = restore(&bucket, home.path())?
        .variable("AWS_EC2_METADATA_DISABLED", "false")
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service.url());
    tool.args(["check"]).succeed()?;
    // A token of a session first (IMDSv2), the role's name, then its credentials: once for the six requests of a check.
    let asked = service.asked();
    let [token, name, role] = &asked[..] else { anyhow::bail!("{asked:#?}") };
    ensure!(token.method == "PUT" && token.header("x-aws-ec2-metadata-token-ttl-seconds") == "21600");
    for request in [name, role] {
        ensure!(request.header("x-aws-ec2-metadata-token") == "token-of-this-instance", "{request:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_exchanged_for_the_credentials_of_its_role() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let answer = xml("AssumeRoleWithWebIdentity", &bucket.session()?, HOUR)?;
    let service = Service::start(move |_| (200, answer.clone())).await?;
    let token = home.path().join("token");
    std::fs::write(&token, "identity-of-a-pod")?;
    let tool = restore(&bucket, home.path())?
        .variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string())
        .variable("AWS_ROLE_ARN", ROLE)
        .variable("AWS_ROLE_SESSION_NAME", "duramen")
        .variable("AWS_ENDPOINT_URL_STS", &service.url());
    tool.args(["check"]).succeed()?;
    let asked = service.asked();
    let [exchange] = &asked[..] else { anyhow::bail!("{asked:#?}") };
    for part in [
        "Action=AssumeRoleWithWebIdentity",
        "WebIdentityToken=identity-of-a-pod",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Farchive",
        "RoleSessionName=duramen",
    ] {
        ensure!(exchange.body.split('&').any(|found| found == part), "{part} is not in {}", exchange.body);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_logged_in_by_sso_has_the_credentials_of_the_profile() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let session = bucket.session()?;
    let service = Service::start(move |asked| match asked.target.as_str() {
        "/federation/credentials?role_name=archive&account_id=123456789012" => {
            // Milliseconds since 1970; far away, since nothing here waits for it.
            let credentials = serde_json::json!({ "roleCredentials": {
                "accessKeyId": session.access_key, "secretAccessKey": session.secret_key,
                "sessionToken": session.token, "expiration": 4_000_000_000_000_u64,
            }});
            (200, credentials.to_string())
        }
        _ => not_there(asked),
    })
    .await?;
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache)?;
    std::fs::write(
        home.path().join(".aws/config"),
        "[profile archive]\nsso_session = archive-session\nsso_account_id = 123456789012\nsso_role_name = archive\n\
         [sso-session archive-session]\nsso_region = us-east-1\nsso_start_url = https://example.com/start\n",
    )?;
    // As `aws sso login` leaves it, under the SHA-1 of the session's name.
    std::fs::write(
        cache.join("29e56aec553b0b69b6fdfa66704e708e536aa323.json"),
        r#"{ "accessToken": "of-a-login", "expiresAt": "2096-01-01T00:00:00Z", "region": "us-east-1",
             "startUrl": "https://example.com/start" }"#,
    )?;
    let tool = restore(&bucket, home.path())?
        .variable("AWS_PROFILE", "archive")
        .variable("AWS_ENDPOINT_URL_SSO", &service.url());
    tool.args(["check"]).succeed()?;
    let asked = service.asked();
    ensure!(asked.len() == 1 && asked[0].header("x-amz-sso_bearer_token") == "of-a-login", "{asked:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_has_keys_a_program_that_prints_them_or_a_role_to_assume() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let environment = bucket.environment();
    let value = |name: &str| {
        environment.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value.as_str())
    };
    let (key, secret) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"));
    let session = bucket.session()?;
    let printed = serde_json::json!({
        "Version": 1, "AccessKeyId": session.access_key, "SecretAccessKey": session.secret_key,
        "SessionToken": session.token,
    });
    std::fs::write(home.path().join("printed.json"), printed.to_string())?;
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws)?;
    std::fs::write(
        aws.join("credentials"),
        format!("[keys]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"),
    )?;
    std::fs::write(
        aws.join("config"),
        format!(
            "[profile program]\ncredential_process = cat {}/printed.json\n\
             [profile role]\nsource_profile = keys\nrole_arn = {ROLE}\nrole_session_name = duramen\n",
            home.path().display()
        ),
    )?;
    let answer = xml("AssumeRole", &session, HOUR)?;
    let service = Service::start(move |_| (200, answer.clone())).await?;
    for profile in ["keys", "program", "role"] {
        let tool = restore(&bucket, home.path())?.variable("AWS_PROFILE", profile);
        tool.variable("AWS_ENDPOINT_URL_STS", &service.url()).args(["check"]).succeed()?;
    }
    let asked = service.asked();
    let [role] = &asked[..] else { anyhow::bail!("{asked:#?}") };
    ensure!(role.body.contains("Action=AssumeRole&") && role.body.contains("role%2Farchive"), "{role:#?}");
    ensure!(role.header("authorization").contains(&format!("Credential={key}/")), "{role:#?}");
    Ok(())
}

/// As people set it who have a store of their own, and AWS for the rest.
#[test]
fn the_endpoint_of_s3_alone_wins_over_that_of_all_services() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let nobody = format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let here = bucket.server().endpoint();
    let tool = Tool::restore(&format!("s3://{}/duramen", bucket.name()))?
        .bucket(&bucket)
        .variable("HOME", &home.path().display().to_string())
        .args(["check", "--attempts", "1"]);
    tool.clone().variable("AWS_ENDPOINT_URL", here).succeed()?;
    let elsewhere = tool.clone().variable("AWS_ENDPOINT_URL", &nobody);
    ensure!(elsewhere.run()?.code == 6, "{:?}", elsewhere.run()?);
    elsewhere.variable("AWS_ENDPOINT_URL_S3", here).succeed()?;

    std::fs::create_dir(home.path().join(".aws"))?;
    let profile = format!(
        "[profile own]\nservices = own\nendpoint_url = {nobody}\n[services own]\ns3 =\n  endpoint_url = {here}\n"
    );
    std::fs::write(home.path().join(".aws/config"), profile)?;
    tool.variable("AWS_PROFILE", "own").succeed()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_soon_are_asked_for_again() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let (first, second) = (bucket.session()?, bucket.session()?);
    ensure!(first != second || bucket.server().kind() == ServerKind::InProcess, "two sessions are one");
    let soon = json(&first, Duration::from_secs(240))?;
    let service = Service::start(move |_| (200, soon.clone())).await?;
    let tool = restore(&bucket, home.path())?.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &service.url());
    let tool = tool.args(["check"]);
    tool.succeed()?;
    let asked = service.asked().len();
    ensure!(asked > 1, "they end within five minutes, and were asked for {asked} times");

    // The first end soon, the second last: after those nobody asks any more.
    let answers = [json(&first, Duration::from_secs(240))?, json(&second, HOUR)?];
    let count = std::sync::atomic::AtomicUsize::new(0);
    service.answer_with(move |_| {
        let turn = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (200, answers[turn.min(1)].clone())
    });
    tool.succeed()?;
    let asked = service.asked().len();
    ensure!(asked == 2, "asked for {asked} times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_still_valid_outlast_the_service_that_gave_them() -> Result<()> {
    let (bucket, home) = (Bucket::create()?, tempfile::tempdir()?);
    let soon = json(&bucket.session()?, Duration::from_secs(240))?;
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let service = Service::start(move |_| {
        if is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            (200, soon.clone())
        } else {
            (403, r#"{"code":"AccessDenied","message":"no more"}"#.to_owned())
        }
    })
    .await?;
    let tool = restore(&bucket, home.path())?.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &service.url());
    let ran = tool.args(["check"]).run()?;
    ensure!(ran.code == 0, "{ran:#?}");
    ensure!(ran.stderr.contains("those of before are used while they last"), "{ran:#?}");
    // And not each request asks in vain.
    ensure!(service.asked().len() == 2, "{:#?}", service.asked());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_while_its_credentials_cannot_be_had_and_archives_once_they_can() -> Result<()> {
    let (bucket, directory) = (Bucket::create()?, tempfile::tempdir()?);
    let answer = json(&bucket.session()?, HOUR)?;
    let given = answer.clone();
    let service = Service::start(move |_| (200, given.clone())).await?;
    let settings = NodeSettings::in_directory(&directory.path().join("data"))
        .set("archive.url", &format!("{}&attempts=1", bucket.archive_url("duramen")))
        .set("archive.segment_age", "1s")
        .set("log.append_timeout", "2m")
        .variable("HOME", &directory.path().display().to_string())
        .variable("AWS_EC2_METADATA_DISABLED", "true")
        .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &service.url());
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(180)));
    let agent = agent.build().new_agent();
    let mut node = settings.start()?;
    let records = |url: String, ack: &str| format!("{url}/v1/tenants/default/streams/s/records?ack={ack}");
    agent.post(records(node.client_url(), "archived")).send("before")?;
    ensure!(node.terminate()?.success(), "the node stops badly");

    service.answer_with(|_| (503, "away".to_owned()));
    node.start_again()?;
    agent.post(records(node.client_url(), "local")).send("meanwhile")?;
    let status = || {
        let (_, status) = node.admin_get("/admin/archive/status")?;
        anyhow::Ok(status)
    };
    let deadline = Deadline::after_secs(60);
    while !status()?.contains("no credentials can be had for now") {
        ensure!(!deadline.has_passed(), "{}", status()?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    service.answer_with(move |_| (200, answer.clone()));
    agent.post(records(node.client_url(), "archived")).send("after")?;
    ensure!(node.terminate()?.success(), "the node stops badly");
    Ok(())
}
