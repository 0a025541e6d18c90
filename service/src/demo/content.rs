//! What a node holds, byte for byte, and how two of them differ.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use duramen_client::{Client, ReadOptions};
use duramen_types::{HybridTime, Offset, StreamName};

/// Every stream's batches with their base offsets: the bytes as they were appended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    streams: BTreeMap<StreamName, Vec<(Offset, Bytes)>>,
    pub records: u64,
    pub bytes: u64,
}

impl Content {
    /// Reads all streams of the default tenant from a running node.
    pub async fn of(client: &Client) -> anyhow::Result<Self> {
        let mut names = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let found =
                client.list_streams("", 1000, page.as_deref()).await.context("listing the streams")?;
            for info in found.items {
                names.push(StreamName::parse(&info.name)?);
            }
            page = found.next;
            if page.is_none() {
                break;
            }
        }
        let mut content = Self::default();
        for name in names {
            content.read(client, &name, None).await?;
        }
        Ok(content)
    }

    /// Reads the streams that `self` has as they were at `time`.
    pub async fn as_of(&self, client: &Client, time: HybridTime) -> anyhow::Result<Self> {
        let mut content = Self::default();
        for name in self.streams.keys() {
            content.read(client, name, Some(time)).await?;
        }
        Ok(content)
    }

    async fn read(
        &mut self,
        client: &Client,
        name: &StreamName,
        as_of: Option<HybridTime>,
    ) -> anyhow::Result<()> {
        let mut reader = client.reader(name, ReadOptions { as_of, ..ReadOptions::default() });
        let batches = self.streams.entry(name.clone()).or_default();
        while let Some(batch) = reader.next_batch().await.with_context(|| format!("reading stream {name}"))? {
            self.records += batch.wanted().end.since(batch.wanted().start);
            let bytes = batch.batch().bytes().clone();
            self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            batches.push((batch.base(), bytes));
        }
        Ok(())
    }

    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// An error that names the first difference.
    pub fn must_equal(&self, expected: &Self, what: &str) -> anyhow::Result<()> {
        for (name, batches) in &expected.streams {
            let found =
                self.streams.get(name).with_context(|| format!("{what}: stream {name} is missing"))?;
            anyhow::ensure!(found == batches, "{what}: stream {name} is not what it was");
        }
        match self.streams.keys().find(|name| !expected.streams.contains_key(*name)) {
            Some(name) => anyhow::bail!("{what}: stream {name} should not be there"),
            None => Ok(()),
        }
    }
}
