//! Streams, cursors, tenants and restore points.

use bytesize::ByteSize;
use duramen_client::{
    Client, CursorInfo, Error, ErrorCode, Page, RestorePoint, StreamInfo, TenantInfo, when,
};
use duramen_types::{HybridTime, StreamConfig};
use serde_json::{Value, json};

use crate::cli::{CursorCommand, RestorePointCommand, StreamCommand, TenantCommand};
use crate::failure::Failure;
use crate::output;

const PAGE: u32 = 1000;

pub async fn stream(client: &Client, command: &StreamCommand, as_json: bool) -> Result<(), Failure> {
    match command {
        StreamCommand::Create { stream, config } => {
            show_stream(&client.create_stream(stream, &config.config()).await?, as_json)
        }
        StreamCommand::Describe { stream } => show_stream(&client.describe_stream(stream).await?, as_json),
        StreamCommand::Set { stream, change } => {
            show_stream(&client.configure_stream(stream, change.change()).await?, as_json)
        }
        StreamCommand::List { prefix } => {
            let streams =
                all(async |page: Option<String>| client.list_streams(prefix, PAGE, page.as_deref()).await)
                    .await?;
            if as_json {
                return streams.iter().try_for_each(|stream| output::json(&stream_json(stream)));
            }
            let row = |stream: &StreamInfo| {
                vec![
                    output::visible(&stream.name),
                    stream.first_readable.to_string(),
                    stream.tail.to_string(),
                    ByteSize(stream.appended_bytes).to_string(),
                    stream.cursors.to_string(),
                    stream.shard.to_string(),
                    when::format(stream.last_append),
                ]
            };
            let headings = ["stream", "first", "tail", "appended", "cursors", "shard", "last append"];
            output::table(&headings, streams.iter().map(row).collect())
        }
        StreamCommand::Trim { stream, to } => {
            let (first, time) = client.trim_stream(stream, *to).await?;
            if as_json {
                let trimmed = json!({ "stream": stream.as_str(), "first_readable": first.get() });
                return output::json(&timed(trimmed, time));
            }
            let before = when::format(time);
            output::line(&format!(
                "{stream} begins at offset {first}; what was before is readable --as-of before {before}"
            ))
        }
        StreamCommand::Delete { stream } => {
            let time = client.delete_stream(stream).await?;
            if as_json {
                return output::json(&timed(json!({ "stream": stream.as_str(), "deleted": true }), time));
            }
            let before = when::format(time);
            output::line(&format!("{stream} is deleted; it stays readable --as-of before {before}"))
        }
    }
}

pub async fn cursor(client: &Client, command: &CursorCommand, as_json: bool) -> Result<(), Failure> {
    let cursors = match command {
        CursorCommand::List { stream } => {
            all(async |page: Option<String>| client.list_cursors(stream, PAGE, page.as_deref()).await).await?
        }
        CursorCommand::Get { stream, cursor } => vec![client.get_cursor(stream, cursor).await?],
        CursorCommand::Commit { stream, cursor, offset } => {
            vec![client.commit_cursor(stream, cursor, *offset).await?]
        }
        CursorCommand::Delete { stream, cursor } => {
            let time = client.delete_cursor(stream, cursor).await?;
            if as_json {
                let deleted =
                    json!({ "stream": stream.as_str(), "cursor": cursor.as_str(), "deleted": true });
                return output::json(&timed(deleted, time));
            }
            return output::line(&format!("cursor {cursor} of {stream} is deleted"));
        }
    };
    if as_json {
        return cursors.iter().try_for_each(|cursor| output::json(&cursor_json(cursor)));
    }
    let row = |cursor: &CursorInfo| {
        vec![
            output::visible(&cursor.name),
            cursor.offset.to_string(),
            cursor.lag_records.to_string(),
            when::format_duration(whole_millis(cursor.lag)),
            when::format(cursor.committed),
        ]
    };
    let headings = ["cursor", "offset", "lag (records)", "lag (time)", "committed"];
    output::table(&headings, cursors.iter().map(row).collect())
}

pub async fn tenant(client: &Client, command: &TenantCommand, as_json: bool) -> Result<(), Failure> {
    let tenants = match command {
        TenantCommand::Create { name } => vec![client.create_tenant(name).await?],
        TenantCommand::List => {
            all(async |page: Option<String>| client.list_tenants(PAGE, page.as_deref()).await).await?
        }
    };
    if as_json {
        let tenant =
            |tenant: &TenantInfo| json!({ "tenant": tenant.name, "created": instant(tenant.created) });
        return tenants.iter().try_for_each(|info| output::json(&tenant(info)));
    }
    let row = |tenant: &TenantInfo| vec![output::visible(&tenant.name), since(tenant.created)];
    output::table(&["tenant", "created"], tenants.iter().map(row).collect())
}

pub async fn restore_point(
    client: &Client,
    command: &RestorePointCommand,
    as_json: bool,
) -> Result<(), Failure> {
    let points = match command {
        RestorePointCommand::Create { name } => vec![client.create_restore_point(name).await?],
        RestorePointCommand::List => {
            all(async |page: Option<String>| client.list_restore_points(PAGE, page.as_deref()).await).await?
        }
    };
    if as_json {
        let point = |point: &RestorePoint| timed(json!({ "name": point.name }), point.time);
        return points.iter().try_for_each(|info| output::json(&point(info)));
    }
    let row = |point: &RestorePoint| vec![output::visible(&point.name), when::format(point.time)];
    output::table(&["restore point", "time"], points.iter().map(row).collect())
}

/// Creates a stream unless it exists.
pub async fn ensure_stream(client: &Client, stream: &duramen_types::StreamName) -> Result<(), Error> {
    match client.create_stream(stream, &StreamConfig::default()).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == ErrorCode::StreamExists => Ok(()),
        // An answer that was lost is no harm where existing is all that is asked for.
        Err(error) if error.may_have_had_effect() => client.describe_stream(stream).await.map(|_| ()),
        Err(error) => Err(error),
    }
}

/// Creates a tenant unless it exists.
pub async fn ensure_tenant(client: &Client, tenant: &duramen_types::TenantName) -> Result<(), Error> {
    match client.create_tenant(tenant).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == ErrorCode::TenantExists => Ok(()),
        Err(error) => Err(error),
    }
}

async fn all<T>(list: impl AsyncFn(Option<String>) -> Result<Page<T>, Error>) -> Result<Vec<T>, Error> {
    let (mut items, mut next) = (Vec::new(), None);
    loop {
        let page = list(next).await?;
        items.extend(page.items);
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(items),
        }
    }
}

fn show_stream(stream: &StreamInfo, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json(&stream_json(stream));
    }
    let (set, effective) = (&stream.config, &stream.effective_config);
    let mark =
        |value: String, is_default: bool| if is_default { format!("{value} (default)") } else { value };
    let level = |level: Option<duramen_types::Acknowledgement>| text_of(&json!(level));
    output::fields(vec![
        ("stream", output::visible(&stream.name)),
        ("tenant", output::visible(&stream.tenant)),
        ("id", stream.id.to_string()),
        ("shard", stream.shard.to_string()),
        ("first readable offset", stream.first_readable.to_string()),
        ("tail", stream.tail.to_string()),
        ("bytes appended", ByteSize(stream.appended_bytes).to_string()),
        ("cursors", stream.cursors.to_string()),
        ("fenced", if stream.fenced { "yes" } else { "no" }.to_owned()),
        ("created", when::format(stream.created)),
        ("last append", when::format(stream.last_append)),
        ("acknowledgement", mark(level(effective.acknowledgement), set.acknowledgement.is_none())),
        (
            "retention by age",
            effective.retention.age_seconds.map_or("none".to_owned(), |seconds| {
                when::format_duration(std::time::Duration::from_secs(seconds))
            }),
        ),
        (
            "retention by size",
            effective.retention.bytes.map_or("none".to_owned(), |bytes| ByteSize(bytes).to_string()),
        ),
        ("archive compression", mark(text_of(&json!(effective.compression)), set.compression.is_none())),
        ("timestamps", mark(text_of(&json!(effective.timestamps)), set.timestamps.is_none())),
        ("rescue", mark(text_of(&json!(effective.rescue)), set.rescue.is_none())),
    ])
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn stream_json(stream: &StreamInfo) -> Value {
    json!({
        "stream": stream.name,
        "tenant": stream.tenant,
        "id": stream.id.get(),
        "shard": stream.shard.get(),
        "first_readable": stream.first_readable.get(),
        "tail": stream.tail.get(),
        "appended_bytes": stream.appended_bytes,
        "cursors": stream.cursors,
        "fenced": stream.fenced,
        "created": instant(stream.created),
        "last_append": instant(stream.last_append),
        "config": stream.config,
        "effective_config": stream.effective_config,
    })
}

fn cursor_json(cursor: &CursorInfo) -> Value {
    json!({
        "cursor": cursor.name,
        "offset": cursor.offset.get(),
        "lag_records": cursor.lag_records,
        "lag_seconds": cursor.lag.as_secs_f64(),
        "committed": instant(cursor.committed),
    })
}

fn instant(time: HybridTime) -> Value {
    if time == HybridTime::ZERO { Value::Null } else { when::format(time).into() }
}

fn since(time: HybridTime) -> String {
    if time == HybridTime::ZERO { "always".to_owned() } else { when::format(time) }
}

fn timed(mut value: Value, time: HybridTime) -> Value {
    value["time"] = instant(time);
    value
}

fn whole_millis(duration: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
