//! What a node shows, in the model's words.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use duramen::Node;
use duramen::api::{Code, ReadFrom, ReadRequest};
use duramen_types::batch::{Batch, normalise};
use duramen_types::{HybridTime, TenantName};

use crate::player::stream_ref;
use crate::{Log, Seen};

/// The log as it is now, cursors and configuration included.
pub async fn now(node: &Node) -> Result<Log> {
    let tenant = TenantName::parse("default")?;
    let page = node.list_streams(&tenant, "", None, 1000).await?;
    let mut log = Log::new();
    for info in page.streams {
        let name = info.stream.name.as_str().to_owned();
        let values = read(node, &name, None).await.with_context(|| format!("reading {name}"))?;
        let cursors = node.cursors(&info.stream).await?;
        let seen = Seen {
            first: info.first.get(),
            next: info.next.get(),
            values,
            retention_bytes: info.config.retention.bytes,
            cursors: cursors.into_iter().map(|c| (c.cursor.as_str().to_owned(), c.offset.get())).collect(),
        };
        log.insert(name, seen);
    }
    Ok(log)
}

/// The values that each existing stream held at `time`: all that a read can show of the past.
pub async fn as_of(
    node: &Node,
    time: HybridTime,
    streams: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for name in streams {
        match read(node, &name, Some(time)).await {
            Ok(values) => drop(found.insert(name, values)),
            Err(error) if unknown(&error) => {}
            Err(error) => return Err(error.context(format!("reading {name} as of {time}"))),
        }
    }
    Ok(found)
}

fn unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<duramen::api::Error>().is_some_and(|error| error.code == Code::UnknownStream)
}

async fn read(node: &Node, name: &str, as_of: Option<HybridTime>) -> Result<Vec<String>> {
    let request = ReadRequest {
        stream: stream_ref(name),
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of,
        seen: HybridTime::ZERO,
    };
    let mut session = node.read(request).await?;
    let mut values = Vec::new();
    let mut next = session.position();
    while let Some(served) = session.next().await {
        let served = served?;
        anyhow::ensure!(served.from == next, "{name}: offset {next} was expected, {} came", served.from);
        next = served.end;
        let (base, bytes) = normalise(served.batch.clone())?;
        for record in &Batch::from_trusted(bytes)?.records(base)? {
            let record = record?;
            if record.offset >= served.from && record.offset < served.end {
                values.push(String::from_utf8(record.value.unwrap_or_default().to_vec())?);
            }
        }
    }
    Ok(values)
}
