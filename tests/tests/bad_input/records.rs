//! A record over the limit, an empty batch.

use anyhow::Result;
use duramen_types::batch::{BatchBuilder, Limits, Options, Record};
use tonic::Code;

use super::*;

fn small(settings: NodeSettings) -> NodeSettings {
    settings.set("log.record_limit", "1KiB").set("log.batch_limit", "4KiB")
}

#[test]
fn a_record_over_the_limit_is_refused_with_size_and_limit() -> Result<()> {
    let mut asked = Asked::start_with(small)?;
    let record = "x".repeat(2000);
    let parts = ["default/orders", "record 0 of the batch is 20", "the limit is 1024", "split it"];
    let lines = format!("fits\n{record}\nnever sent\n");
    let said = asked
        .ctl("append orders")?
        .input(&lines)
        .fail(1, &["line 2 of standard input", "[record_too_large]"])?;
    for part in parts {
        // Of which record of a batch it is, the line says.
        ensure!(part.starts_with("record") || said.contains(part), "{part:?} is not in {said}");
    }
    let body = serde_json::json!({ "records": [{ "value": record }] }).to_string();
    let error = asked.http_refused(("POST", "/orders/records"), body, (413, "record_too_large"), &parts)?;
    ensure!(error["limit"] == 1024, "{error}");
    let refusal = (Code::InvalidArgument, "record_too_large");
    let error = asked.grpc_refused(
        async |log| log.append(append("", "orders", record.clone())).await,
        refusal,
        &parts,
    )?;
    ensure!(error.limit == Some(1024), "{error:?}");
    Ok(())
}

#[test]
fn a_batch_over_the_limit_is_refused_with_size_and_limit() -> Result<()> {
    let mut asked = Asked::start_with(small)?;
    let record = "x".repeat(900);
    let parts = ["default/orders", "the limit is 4096", "send fewer records at once"];
    let body = serde_json::json!({ "records": vec![serde_json::json!({ "value": record }); 8] }).to_string();
    asked.http_refused(("POST", "/orders/records"), body, (413, "batch_too_large"), &parts)?;
    let mut request = append("", "orders", record.clone());
    if let Some(v1::append_request::Payload::Records(records)) = &mut request.payload {
        records.records = vec![records.records[0].clone(); 8];
    }
    let refusal = (Code::InvalidArgument, "batch_too_large");
    let error = asked.grpc_refused(async |log| log.append(request).await, refusal, &parts)?;
    ensure!(error.limit == Some(4096), "{error:?}");
    // A body that can't hold any batch that fits is not even kept.
    let body = "x".repeat(40_000);
    asked.http_refused(
        ("POST", "/orders/records"),
        body,
        (413, "batch_too_large"),
        &["log.batch_limit", "less"],
    )?;
    Ok(())
}

#[test]
fn an_empty_batch_is_refused_and_appends_nothing() -> Result<()> {
    let mut asked = Asked::start()?;
    let refusal = (400, "empty_batch");
    let body = r#"{"records":[]}"#;
    asked.http_refused(("POST", "/orders/records"), body, refusal, &["no record", "at least one"])?;
    let mut request = append("", "orders", "x");
    request.payload = Some(v1::append_request::Payload::Records(v1::Records::default()));
    let refusal = (Code::InvalidArgument, "empty_batch");
    let parts = ["default/orders", "no records", "at least one"];
    asked.grpc_refused(async |log| log.append(request).await, refusal, &parts)?;
    let none = append("", "orders", "x");
    let none = v1::AppendRequest { payload: None, ..none };
    let refusal = (Code::InvalidArgument, "invalid_argument");
    asked.grpc_refused(
        async |log| log.append(none).await,
        refusal,
        &["needs records or an encoded_batch"],
    )?;
    // An empty file is no batch at all, and no mistake.
    asked.ctl("append orders")?.succeed()?;
    Ok(())
}

#[test]
fn a_line_that_is_no_record_is_named_and_what_came_before_it_stays() -> Result<()> {
    let asked = Asked::start()?;
    let lines = "{\"value\":\"a\"}\n{\"value\":5}\n";
    asked.ctl("append orders --import")?.input(lines).fail(
        1,
        &["line 2 of standard input", "not a record", "correct the line; what was appended before it stays"],
    )?;
    ensure!(asked.ctl("read orders --json")?.succeed()?.lines().count() == 1, "the first record is there");
    let body = "{\"records\":[{\"value\":{\"base64\":\"?\"}}]}";
    let refusal = (400, "invalid_argument");
    asked.http_refused(("POST", "/orders/records"), body, refusal, &["record 1", "value", "Base64"])?;
    Ok(())
}

#[test]
fn an_encoded_batch_is_held_to_the_same_limits() -> Result<()> {
    let mut asked = Asked::start_with(small)?;
    let encoded = |values: &[usize]| -> Result<Vec<u8>> {
        let mut builder = BatchBuilder::new(Limits::default());
        for length in values {
            let value = Some(vec![b'x'; *length].into());
            builder.push_record(&Record { value, ..Record::default() })?;
        }
        Ok(builder.finish(Options::default())?.into_bytes().to_vec())
    };
    let mut cut = encoded(&[10])?;
    cut.pop();
    let mut altered = encoded(&[10])?;
    if let Some(last) = altered.last_mut() {
        *last ^= 1;
    }
    for (batch, code, parts) in [
        (encoded(&[10, 2000])?, "record_too_large", ["record 1 of the batch is 20", "the limit is 1024"]),
        (encoded(&[900; 8])?, "batch_too_large", ["the limit is 4096", "send fewer records at once"]),
        (Vec::new(), "invalid_argument", ["append to default/orders", "0 bytes are too few for a batch"]),
        (cut, "invalid_argument", ["append to default/orders", "bytes"]),
        (altered, "invalid_argument", ["append to default/orders", "fails its checksum"]),
    ] {
        let mut request = append("", "orders", "");
        request.payload = Some(v1::append_request::Payload::EncodedBatch(batch.into()));
        let refusal = (Code::InvalidArgument, code);
        asked.grpc_refused(async |log| log.append(request).await, refusal, &parts)?;
    }
    ensure!(asked.ctl("stream list --json")?.succeed()?.lines().count() <= 1, "nothing else was created");
    Ok(())
}
