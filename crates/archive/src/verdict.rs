//! `verdicts/{time}-{id}.json`: what a verification or a drill covered, and what it found.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use duramen_types::{BranchName, ChainValue, DecodeError, HybridTime, Index, ShardId};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::{Document, MAX_DOCUMENT};
use crate::{FormatError, ObjectKey, Result, Store, paths};

const DOCUMENT: Document = Document { format: "duramen-verdict", oldest: 1, version: 2 };

/// How deeply an archive was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Structure, sizes and the continuity of the chain.
    Quick,
    /// Every byte.
    Full,
    /// A restore was carried out and compared.
    Drill,
}

/// What was verified, and how it came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub id: Uuid,
    /// When it ended; wall clock, microseconds since 1970.
    pub time: HybridTime,
    pub depth: Depth,
    pub branch: BranchName,
    /// What was covered; `verify --since` goes on from the ends of a verdict without findings.
    pub shards: Vec<VerifiedShard>,
    pub objects: u64,
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Each names an object and what is wrong with it; empty when all is well.
    pub findings: Vec<Finding>,
    /// Keys of the objects that nothing else spoke of: the newest of each kind, other verdicts among them. As long as they are
    /// named here, their loss leaves a trace. Empty in version 1, which had none.
    #[serde(default)]
    pub newest: Vec<String>,
}

/// The part of one shard's history that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedShard {
    pub shard: ShardId,
    pub first: Index,
    pub end: Index,
    /// The chain value at `end`.
    pub chain: ChainValue,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The key of the object, below the archive's prefix.
    pub key: String,
    pub problem: String,
}

/// What is known of a branch by its verdicts.
///
/// What one found stands until one at least as deep looks again: a quick one does not see what a full one does, and after one with
/// findings even one that goes on from an earlier one (`verify --since`) looks at everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// When the last one ended that read every byte, or every byte that the one before it had not.
    pub full: Option<HybridTime>,
    /// When the last quick one ended, if that was later.
    pub quick: Option<HybridTime>,
    /// Keys of the objects that are altered or missing.
    pub findings: BTreeSet<String>,
}

impl Verdict {
    /// Whether nothing was found wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::Verdict { time: self.time, id: self.id }
    }

    /// Writes the verdict; on `Ok` it is durable.
    pub async fn write(&self, store: &Store) -> Result<()> {
        store.create(&self.key(), self.encode()).await
    }

    /// Every verdict with its key, oldest first; where one can't be read, why.
    pub async fn each(store: &Store) -> Result<Vec<(ObjectKey, Result<Self>)>> {
        let mut verdicts = Vec::new();
        for key in keys(store).await? {
            if let Some(read) = Self::read(store, &key).await.transpose() {
                verdicts.push((key, read));
            }
        }
        Ok(verdicts)
    }

    /// What the verdicts on `branch` come to. `known` holds those that were read before, for the next time.
    pub async fn standing(
        store: &Store,
        branch: &BranchName,
        known: &mut BTreeMap<Uuid, Self>,
    ) -> Result<Standing> {
        let mut standing = Standing::default();
        let mut looked_at = BTreeMap::new();
        for key in keys(store).await?.into_iter().rev() {
            let ObjectKey::Verdict { id, .. } = &key else { continue };
            let verdict = match known.remove(id) {
                Some(verdict) => Some(verdict),
                None => match Self::read(store, &key).await {
                    // Whatever it found, what was found before it stands. `verify` names it.
                    Err(error) if error.is_damage() => {
                        tracing::warn!(%error, "a verdict can't be read");
                        None
                    }
                    read => read?,
                },
            };
            let Some(verdict) = verdict else { continue };
            let full = verdict.depth >= Depth::Full;
            if verdict.branch == *branch && (full || standing.quick.is_none()) {
                standing.findings.extend(verdict.findings.iter().map(|finding| finding.key.clone()));
                let time = if full { &mut standing.full } else { &mut standing.quick };
                *time = Some(verdict.time);
            }
            let done = verdict.branch == *branch && full;
            looked_at.insert(verdict.id, verdict);
            if done {
                break;
            }
        }
        *known = looked_at;
        Ok(standing)
    }

    async fn read(store: &Store, key: &ObjectKey) -> Result<Option<Self>> {
        let Some(bytes) = store.get_if_present(key, MAX_DOCUMENT).await? else { return Ok(None) };
        let verdict = Self::decode(&bytes).map_err(|error| store.unreadable(key, error))?;
        if verdict.key() != *key {
            let reason = "it says another id or time than its key";
            return Err(store.unreadable(key, DecodeError::invalid(DOCUMENT.format, reason)));
        }
        Ok(Some(verdict))
    }

    pub(crate) fn encode(&self) -> Bytes {
        DOCUMENT.encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(DOCUMENT.decode(bytes)?)
    }
}

async fn keys(store: &Store) -> Result<Vec<ObjectKey>> {
    let keys = store
        .list(paths::VERDICTS, None)
        .try_filter_map(async |object| Ok(object.key.filter(|key| matches!(key, ObjectKey::Verdict { .. }))));
    keys.try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::memory;

    #[tokio::test]
    async fn every_verdict_is_given_oldest_first() {
        let store = memory();
        let verdict = |micros: u64, depth: Depth, branch: &str| Verdict {
            id: Uuid::from_u128(u128::from(micros)),
            time: HybridTime::from_micros(micros),
            depth,
            branch: BranchName::parse(branch).unwrap(),
            shards: vec![],
            objects: 3,
            bytes: 4,
            took_ms: 5,
            findings: vec![],
            newest: vec![],
        };
        let all = [
            verdict(10, Depth::Full, "main"),
            verdict(20, Depth::Quick, "main"),
            verdict(30, Depth::Drill, "other"),
        ];
        for verdict in &all {
            verdict.write(&store).await.unwrap();
        }
        let each = Verdict::each(&store).await.unwrap().into_iter();
        assert_eq!(each.map(|(_, verdict)| verdict.unwrap()).collect::<Vec<_>>(), all);
    }

    #[tokio::test]
    async fn what_was_found_stands_until_a_verification_at_least_as_deep_looks_again() {
        let store = memory();
        let (mut known, mut micros) = (BTreeMap::new(), 0);
        let mut standing = async |depth: Depth, branch: &str, found: &[(&str, &str)]| {
            micros += 10;
            let finding = |(key, problem): &(&str, &str)| Finding {
                key: (*key).to_owned(),
                problem: (*problem).to_owned(),
            };
            let verdict = Verdict {
                id: Uuid::from_u128(u128::from(micros)),
                time: HybridTime::from_micros(micros),
                depth,
                branch: BranchName::parse(branch).unwrap(),
                shards: vec![],
                objects: 3,
                bytes: 4,
                took_ms: 5,
                findings: found.iter().map(finding).collect(),
                newest: vec![],
            };
            verdict.write(&store).await.unwrap();
            let main = BranchName::parse("main").unwrap();
            let standing = Verdict::standing(&store, &main, &mut known).await.unwrap();
            let anew = Verdict::standing(&store, &main, &mut BTreeMap::new()).await.unwrap();
            assert_eq!(standing, anew, "what was read before is the same");
            let times = [standing.full, standing.quick].map(|time| time.map_or(0, |time| time.as_micros()));
            (times, standing.findings.into_iter().collect::<Vec<_>>().join(" "))
        };
        let of = |full, quick, found: &str| ([full, quick], found.to_owned());
        let (one, two) = (("a", "it is damaged"), ("a", "it has 3 bytes"));
        assert_eq!(standing(Depth::Quick, "main", &[]).await, of(0, 10, ""));
        assert_eq!(standing(Depth::Quick, "main", &[("q", "it is missing")]).await, of(0, 20, "q"));
        assert_eq!(standing(Depth::Quick, "main", &[]).await, of(0, 30, ""));
        assert_eq!(standing(Depth::Full, "main", &[one, two, ("b", "")]).await, of(40, 0, "a b"));
        assert_eq!(standing(Depth::Quick, "main", &[]).await, of(40, 50, "a b"));
        assert_eq!(standing(Depth::Full, "other", &[]).await, of(40, 50, "a b"));
        assert_eq!(standing(Depth::Quick, "main", &[("q", "it is missing"), one]).await, of(40, 70, "a b q"));
        assert_eq!(standing(Depth::Quick, "main", &[]).await, of(40, 80, "a b"));
        assert_eq!(standing(Depth::Full, "main", &[("b", "")]).await, of(90, 0, "b"));
        assert_eq!(standing(Depth::Drill, "main", &[]).await, of(100, 0, ""));
    }

    #[tokio::test]
    async fn a_verdict_that_cannot_be_read_hides_none_of_those_before_it() {
        let store = memory();
        let main = BranchName::parse("main").unwrap();
        let verdict = Verdict {
            id: Uuid::from_u128(1),
            time: HybridTime::from_micros(10),
            depth: Depth::Full,
            branch: main.clone(),
            shards: vec![],
            objects: 3,
            bytes: 4,
            took_ms: 5,
            findings: vec![Finding { key: "a".to_owned(), problem: "it is missing".to_owned() }],
            newest: vec![],
        };
        verdict.write(&store).await.unwrap();
        let newer = ObjectKey::Verdict { time: HybridTime::from_micros(20), id: Uuid::from_u128(2) };
        store.create(&newer, Bytes::from_static(b"{}")).await.unwrap();
        let standing = Verdict::standing(&store, &main, &mut BTreeMap::new()).await.unwrap();
        assert_eq!(standing.full, Some(verdict.time));
        assert_eq!(standing.findings.into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
