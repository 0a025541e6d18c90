//! Offsets beyond the tail, or below the trim point.

use anyhow::Result;
use tonic::Code;

use super::*;

/// A stream `orders` with the offsets 4 to 10.
fn asked() -> Result<Asked> {
    let asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n".repeat(10)).succeed()?;
    asked.ctl("stream trim orders 4")?.succeed()?;
    Ok(asked)
}

#[test]
fn an_offset_beyond_the_tail_is_refused_with_the_tail() -> Result<()> {
    let mut asked = asked()?;
    let parts = ["stream default/orders", "offset 11 is beyond the tail 10"];
    asked.ctl("read orders --from 11")?.fail(
        1,
        &[parts[0], parts[1], "[out_of_range]", "the first readable offset is 4", "the tail is 10"],
    )?;
    asked.ctl("stream trim orders 11")?.fail(1, &parts)?;
    asked.ctl("cursor commit orders me 11")?.fail(1, &parts)?;
    let refusal = (416, "out_of_range");
    for path in ["/orders/records?from=11", "/orders/records?from=11&follow=true"] {
        let error = asked.http_refused(("GET", path), "", refusal, &parts)?;
        ensure!((&error["tail"], &error["first_readable"]) == (&10.into(), &4.into()), "{error}");
    }
    let error = asked.http_refused(("POST", "/orders/trim"), r#"{"to":11}"#, refusal, &parts)?;
    ensure!(error["tail"] == 10, "{error}");
    let error = asked.http_refused(("PUT", "/orders/cursors/me"), r#"{"offset":11}"#, refusal, &parts)?;
    ensure!(error["tail"] == 10, "{error}");
    let refusal = (Code::OutOfRange, "out_of_range");
    let from = v1::read_request::From::Offset(11);
    let error = asked.grpc_refused(async |log| log.read(read("orders", from)).await, refusal, &parts)?;
    ensure!((error.tail, error.first_readable) == (Some(10), Some(4)), "{error:?}");
    // The tail itself is no mistake: there is nothing yet.
    ensure!(asked.ctl("read orders --from 10")?.succeed()?.is_empty(), "nothing is there");
    Ok(())
}

#[test]
fn an_offset_below_the_trim_point_is_refused_with_the_first_readable_one() -> Result<()> {
    let mut asked = asked()?;
    let parts = ["stream default/orders", "offset 3 is trimmed", "the first readable offset is 4", "as of"];
    asked.ctl("read orders --from 3")?.fail(1, &[parts[0], parts[1], parts[2], "[out_of_range]"])?;
    let refusal = (416, "out_of_range");
    for path in ["/orders/records?from=3", "/orders/records?from=3&follow=true"] {
        let error = asked.http_refused(("GET", path), "", refusal, &parts)?;
        ensure!(error["first_readable"] == 4, "{error}");
    }
    let refusal = (Code::OutOfRange, "out_of_range");
    let from = v1::read_request::From::Offset(3);
    let error = asked.grpc_refused(async |log| log.read(read("orders", from)).await, refusal, &parts)?;
    ensure!(error.first_readable == Some(4), "{error:?}");
    Ok(())
}

#[test]
fn a_condition_that_does_not_hold_is_refused_with_the_tail() -> Result<()> {
    let mut asked = asked()?;
    let parts = ["stream default/orders", "expected the tail at offset 9, it is at 10"];
    let body = r#"{"records":[{"value":"x"}]}"#;
    let request = ("POST", "/orders/records?match_offset=9");
    let error = asked.http_refused(request, body, (412, "offset_mismatch"), &parts)?;
    ensure!(error["tail"] == 10, "{error}");
    let conditional = v1::AppendRequest { match_offset: Some(9), ..append("", "orders", "x") };
    let refusal = (Code::FailedPrecondition, "offset_mismatch");
    let error = asked.grpc_refused(async |log| log.append(conditional).await, refusal, &parts)?;
    ensure!(error.tail == Some(10), "{error:?}");
    Ok(())
}
