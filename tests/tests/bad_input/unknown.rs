//! Unknown stream, tenant or cursor.

use anyhow::Result;
use tonic::Code;

use super::*;

#[test]
fn an_unknown_stream_is_named_and_the_way_to_find_or_create_it_given() -> Result<()> {
    let mut asked = Asked::start_with(|settings| settings.set("log.auto_create_streams", "false"))?;
    let (what, todo) = ("stream default/nobody does not exist", "create it, or look for the right name");
    for line in [
        "read nobody",
        "stream describe nobody",
        "stream trim nobody 0",
        "stream delete nobody",
        "cursor list nobody",
        "cursor commit nobody me 0",
    ] {
        asked.ctl(line)?.fail(1, &[what, "[unknown_stream]", "duramenctl stream list"])?;
    }
    asked.ctl("append nobody")?.input("x\n").fail(1, &["line 1 of standard input", what, "stream create"])?;
    for (method, path, body) in [
        ("GET", "/nobody", ""),
        ("GET", "/nobody/records", ""),
        ("POST", "/nobody/records", r#"{"records":[{"value":"x"}]}"#),
        ("GET", "/nobody/cursors/me", ""),
        ("DELETE", "/nobody", ""),
    ] {
        asked.http_refused((method, path), body, (404, "unknown_stream"), &[what, todo])?;
    }
    let refusal = (Code::NotFound, "unknown_stream");
    asked.grpc_refused(async |log| log.append(append("", "nobody", "x")).await, refusal, &[what, todo])?;
    let from = v1::read_request::From::Offset(0);
    asked.grpc_refused(async |log| log.read(read("nobody", from)).await, refusal, &[what, todo])?;
    Ok(())
}

#[test]
fn an_unknown_tenant_is_named_and_the_way_to_create_it_given() -> Result<()> {
    let mut asked = Asked::start()?;
    let what = "tenant acme does not exist";
    for line in ["stream list --tenant acme", "stream create orders --tenant acme"] {
        asked.ctl(line)?.fail(1, &[what, "[unknown_tenant]", "duramenctl tenant list"])?;
    }
    asked.ctl("append orders --tenant acme")?.input("x\n").fail(1, &[what, "[unknown_tenant]"])?;
    for method in ["PUT", "GET", "DELETE"] {
        let request = (method, "/v1/tenants/acme/streams/orders");
        asked.http_refused(request, "", (404, "unknown_tenant"), &[what, "create it"])?;
    }
    let refusal = (Code::NotFound, "unknown_tenant");
    asked.grpc_refused(
        async |log| log.append(append("acme", "orders", "x")).await,
        refusal,
        &[what, "create it"],
    )?;
    Ok(())
}

#[test]
fn an_unknown_cursor_is_named_with_its_stream() -> Result<()> {
    let mut asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    let (what, todo) = ("stream default/orders has no cursor \"me\"", "commit it first");
    for line in ["cursor get orders me", "read orders --from cursor:me"] {
        asked.ctl(line)?.fail(1, &[what, "[unknown_cursor]", "duramenctl cursor list"])?;
    }
    asked
        .ctl("cursor delete orders me")?
        .fail(1, &["stream default/orders has no cursor \"me\"", "cursor list"])?;
    asked.http_refused(("GET", "/orders/cursors/me"), "", (404, "unknown_cursor"), &[what, todo])?;
    asked.http_refused(
        ("GET", "/orders/records?from=cursor:me"),
        "",
        (404, "unknown_cursor"),
        &[what, todo],
    )?;
    let from = v1::read_request::From::Cursor("me".to_owned());
    let refusal = (Code::NotFound, "unknown_cursor");
    asked.grpc_refused(async |log| log.read(read("orders", from)).await, refusal, &[what, todo])?;
    Ok(())
}

#[test]
fn what_an_archive_does_not_have_is_named_with_what_it_has() -> Result<()> {
    let asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    asked.ctl("archive flush")?.succeed()?;
    let url = asked.archive_url();
    asked
        .restore("export nobody --latest")?
        .fail(5, &["stream \"default/nobody\" does not exist on branch main", "--tenant"])?;
    asked.restore("export orders --tenant acme --latest")?.fail(5, &["acme", "branch main"])?;
    for line in ["plan --latest --branch mian", "branch new --latest --branch mian", "verify --branch mian"] {
        asked.restore(line)?.fail(5, &[&url, "has no branch mian; it has main"])?;
    }
    asked
        .restore("show main/owner")?
        .fail(2, &["\"main/owner\" is no key of an archive", "keys look like"])?;
    Ok(())
}

#[test]
fn a_producer_id_that_nobody_was_given_is_refused_with_how_to_get_one() -> Result<()> {
    let asked = Asked::start()?;
    asked.ctl("stream create orders")?.succeed()?;
    let id = |asked: &Asked| -> Result<u64> {
        let (status, answer) = asked.http("POST", "/v1/producers", "")?;
        answer["producer_id"].as_u64().with_context(|| format!("{status} {answer}"))
    };
    let given = id(&asked)?;
    let append = |id: u64| format!("/orders/records?producer={id}:0:0");
    let body = r#"{"records":[{"value":"a"}]}"#;
    ensure!(asked.http("POST", &append(given), body)?.0 == 200, "what was allocated is taken");
    // The very next one is somebody else's to come.
    let refusal = (400, "invalid_argument");
    let parts = ["append to default/orders", "was never allocated", "POST /v1/producers"];
    asked.http_refused(("POST", &append(given + 1)), body, refusal, &parts)?;
    let next = id(&asked)?;
    let (_, answer) = asked.http("POST", &append(next), body)?;
    ensure!(answer["duplicate"] != true, "{answer}");
    Ok(())
}
