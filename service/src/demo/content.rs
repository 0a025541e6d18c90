//! What a node holds, byte for byte, and how two of them differ.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use duramen_client::{Client, ReadOptions, jsonl};
use duramen_types::{HybridTime, Offset, StreamName};

/// Every stream's batches with their base offsets: the bytes as they were appended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    streams: BTreeMap<StreamName, Vec<(Offset, Bytes)>>,
    /// The records as `duramenctl read --json` writes them, one stream after the other.
    lines: Vec<u8>,
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
            for record in &batch.decode()? {
                jsonl::write_ref(&mut self.lines, &record?)?;
            }
        }
        Ok(())
    }

    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The streams' names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &StreamName> {
        self.streams.keys()
    }

    /// What `cksum` says of the records as `duramenctl read --json` writes them.
    pub fn cksum(&self) -> String {
        cksum(&self.lines)
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

/// What the program `cksum` of POSIX says of its input: a CRC of the bytes and of their number, and the number.
fn cksum(input: &[u8]) -> String {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Cksum);
    digest.update(input);
    let length = input.len().to_le_bytes();
    let significant = length.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    digest.update(&length[..significant]);
    format!("{} {}", digest.finalize(), input.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_program_cksum() {
        // As `printf '' | cksum` and `seq 1 100000 | cksum` say.
        assert_eq!(cksum(b""), "4294967295 0");
        let lines: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
        assert_eq!(cksum(lines.as_bytes()), "2052179976 588895");
    }
}
