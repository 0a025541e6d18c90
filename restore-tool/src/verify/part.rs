//! One shard: every member of the line with the part that the branch has of it, oldest first.

mod objects;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use duramen_archive::{
    Branch, BranchView, HistoryPoint, Manifest, ObjectKey, SegmentRow, VerifiedShard, ViewCursor, ViewRow,
    describe, paths::ShardFolder,
};
use duramen_state::ShardState;
use duramen_types::{Hash, Index, ManifestNumber, SegmentId, ShardId};
use futures::TryStreamExt;

use super::Context;
use super::replay::Replay;
use crate::{Result, plan};

/// The largest manifest, page or checkpoint that is read.
const MAX_META: u64 = 64 << 20;
/// How many numbers of missing manifests are named one by one.
const NAMED_MISSING: u64 = 16;

pub(super) async fn verify_shard(
    context: &Context,
    view: &BranchView,
    shard: ShardId,
) -> Result<VerifiedShard> {
    let since = context.since.get(&shard).copied();
    let own = ObjectKey::Manifest { branch: context.branch.clone(), shard, number: ManifestNumber::ZERO };
    let rows = context.absorb(&own, view.shard(shard).await)?;
    let state = match (&since, &rows) {
        // Where it can't be read, what keeps it from being read is found below.
        (Some(since), Some(rows)) if context.is_full() => {
            plan::history(view).state_at(rows, since.end).await.ok()
        }
        (None, _) if context.is_full() => Some(ShardState::new(shard)),
        _ => None,
    };
    let mut walk = Walk {
        context,
        shard,
        skip: since.map_or(Index::ZERO, |since| since.end),
        since: since.map(|since| (since.end, since.chain)),
        replay: Replay::new(state),
        // Readers begin with a checkpoint.
        logged: rows.map(|rows| rows.cursor(Index::ZERO, None)),
        tip: HistoryPoint::genesis(shard),
        whole: true,
    };
    let ancestry = &view.branch().ancestry;
    let at = usize::from(shard.get());
    let mut from = Index::ZERO;
    for (number, member) in view.line().enumerate() {
        let end = ancestry.get(number).map(|ancestor| ancestor.ends.get(at).copied().unwrap_or_default());
        if end.is_none_or(|end| end > from) {
            walk.member(member, end).await?;
            from = end.unwrap_or(from);
        }
    }
    Ok(VerifiedShard { shard, first: Index::ZERO, end: walk.tip.end, chain: walk.tip.chain })
}

struct Walk<'a> {
    context: &'a Context,
    shard: ShardId,
    /// Segments that end here or before were verified earlier.
    skip: Index,
    since: Option<(Index, Hash)>,
    replay: Replay,
    /// What readers see, who begin with a checkpoint: must be the same as what the manifests say.
    logged: Option<ViewCursor>,
    tip: HistoryPoint,
    /// Whether everything up to the tip was there.
    whole: bool,
}

impl Walk<'_> {
    /// Verifies what the branch has of `branch`: everything, or the rows that begin before `end`.
    async fn member(&mut self, branch: &Branch, end: Option<Index>) -> Result<()> {
        let context = self.context;
        let checkpoints = self.checkpoints(branch).await?;
        let newest = checkpoints.last().copied();
        if end.is_none() || context.is_full() {
            self.pages(branch).await?;
        }
        let start = branch.start(self.shard).unwrap_or(self.tip);
        if self.whole
            && (start.end, start.chain) != (self.tip.end, self.tip.chain)
            && self.tip.end <= start.end
        {
            let reason = "its cut is not the point that its parent's history has there";
            context.find(ObjectKey::Branch(branch.name.clone()), reason);
        }
        self.tip = start;
        let folder = ShardFolder::Manifest.prefix(&branch.name, self.shard);
        let mut listed = context.store.list(&folder, None);
        let mut next = ManifestNumber::ZERO;
        while let Some(object) = listed.try_next().await? {
            let Some(ObjectKey::Manifest { number, .. }) = object.key else {
                context.find(&object.path, "it is no object of an archive");
                continue;
            };
            self.missing(branch, next, number);
            next = number.next();
            self.see(branch, &self.manifest_key(branch, number));
            self.manifest(branch, number, end, &checkpoints).await?;
            if end.is_some_and(|end| self.tip.end >= end) {
                return Ok(());
            }
        }
        if let Some(newest) = newest {
            self.missing(branch, next, newest.next());
        }
        match end {
            Some(end) if self.tip.end < end => {
                let reason = format!(
                    "it is missing: the branch needs the history to index {end}, it ends at {}",
                    self.tip.end
                );
                context.find(
                    self.manifest_key(branch, next.max(newest.map_or(next, ManifestNumber::next))),
                    reason,
                );
                self.whole = false;
            }
            Some(_) => {}
            None => self.lost_end(branch, next).await?,
        }
        Ok(())
    }

    fn manifest_key(&self, branch: &Branch, number: ManifestNumber) -> ObjectKey {
        ObjectKey::Manifest { branch: branch.name.clone(), shard: self.shard, number }
    }

    /// An object of the branch itself is there; those of its ancestors are their verdicts' business.
    fn see(&self, branch: &Branch, key: &ObjectKey) {
        if branch.name == self.context.branch {
            self.context.newest.see(key);
        }
    }

    fn missing(&mut self, branch: &Branch, next: ManifestNumber, found: ManifestNumber) {
        let count = found.since(next);
        for ahead in 0..count.min(NAMED_MISSING) {
            let key = self.manifest_key(branch, next.plus(ahead));
            self.context
                .find(key, format!("it is missing, and manifest {found} or a checkpoint of it is there"));
        }
        if count > 0 {
            self.whole = false;
            self.replay.lose();
        }
    }

    async fn manifest(
        &mut self,
        branch: &Branch,
        number: ManifestNumber,
        end: Option<Index>,
        checkpoints: &BTreeSet<ManifestNumber>,
    ) -> Result<()> {
        let context = self.context;
        let key = self.manifest_key(branch, number);
        let Some(manifest) = self.read(&key, Manifest::decode).await? else {
            self.whole = false;
            self.replay.lose();
            return Ok(());
        };
        if manifest.number != number {
            context.find(&key, format!("it is manifest {}: it was swapped", manifest.number));
        }
        if branch.name == context.branch {
            match &context.owner {
                Some(owner) if owner.cluster == manifest.committer.cluster => {}
                Some(owner) => {
                    let (found, expected) = (manifest.committer.cluster, owner.cluster);
                    context.find(
                        &key,
                        format!("cluster {found} committed it, the branch belongs to {expected}"),
                    );
                    // Which of the two was replaced nothing tells.
                    let problem =
                        format!("it says cluster {expected}, and cluster {found} committed manifests");
                    context.find(ObjectKey::Owner(branch.name.clone()), problem);
                }
                None => context.find(
                    ObjectKey::Owner(branch.name.clone()),
                    "it is missing, and the branch has been written to",
                ),
            }
        }
        let joins = (manifest.previous_end, manifest.previous_chain) == (self.tip.end, self.tip.chain);
        if self.whole && !joins {
            let reason = format!(
                "it follows index {}, where the history is at {}, or has another chain",
                manifest.previous_end, self.tip.end
            );
            context.find(&key, reason);
        }
        // After a gap the manifest itself says where it goes on.
        self.tip = HistoryPoint { end: manifest.previous_end, chain: manifest.previous_chain, ..self.tip };
        self.whole = true;
        if let Some(checkpoint) = manifest.checkpoint
            && !checkpoints.contains(&checkpoint)
        {
            let missing =
                ObjectKey::Checkpoint { branch: branch.name.clone(), shard: self.shard, number: checkpoint };
            context.find(missing, format!("it is missing: {key} speaks of it"));
        }
        for row in &manifest.rows {
            if end.is_some_and(|end| row.first >= end) {
                return Ok(());
            }
            self.join(&key, row);
            self.row(branch, row, end).await?;
        }
        for snapshot in &manifest.snapshots {
            if end.is_none_or(|end| snapshot.index <= end) {
                self.snapshot(branch, snapshot).await?;
            }
        }
        Ok(())
    }

    fn join(&mut self, key: &ObjectKey, row: &SegmentRow) {
        let tip = self.tip;
        let joins = row.first == tip.end
            && row.chain_before == tip.chain
            && row.first_time >= tip.time
            && row.last_term >= tip.term;
        if !joins {
            let (first, end) = (row.first, row.end);
            self.context
                .find(key, format!("its segment {first}..{end} does not join the history at {}", tip.end));
        }
        self.tip = HistoryPoint::after(row);
        if let Some((end, chain)) = self.since
            && end == row.end
            && chain != row.chain_after
        {
            self.context
                .find(key, format!("at index {end} the history is not the one that was verified before"));
        }
    }

    async fn row(&mut self, branch: &Branch, row: &Arc<SegmentRow>, end: Option<Index>) -> Result<()> {
        let visible = row.first..end.map_or(row.end, |end| row.end.min(end));
        let row = ViewRow { shard: self.shard, branch: branch.name.clone(), row: Arc::clone(row), visible };
        self.compare_logged(&row).await?;
        if row.row.end <= self.skip {
            return Ok(());
        }
        let key = row.key();
        if !self.segment(&key, &row).await? {
            self.replay.lose();
        }
        Ok(())
    }

    /// Readers begin with the newest checkpoint: it and its pages must say the same as the manifests.
    async fn compare_logged(&mut self, row: &ViewRow) -> Result<()> {
        let Some(cursor) = &mut self.logged else { return Ok(()) };
        let key = ObjectKey::Checkpoint {
            branch: row.branch.clone(),
            shard: self.shard,
            number: ManifestNumber::ZERO,
        };
        let logged = self.context.absorb(&key, cursor.next().await)?;
        match logged {
            Some(Some(logged)) if logged == *row => {}
            Some(None) if self.whole => {
                // Committed after the view was opened.
                self.logged = None;
            }
            Some(_) => {
                let folder = ShardFolder::Checkpoint.prefix(&row.branch, self.shard);
                self.context.find(
                    folder,
                    format!(
                        "the newest checkpoint or its pages do not have {} as the manifests do",
                        row.key()
                    ),
                );
                self.logged = None;
            }
            None => self.logged = None,
        }
        Ok(())
    }

    /// Every checkpoint reads; gives the numbers of those that are there.
    async fn checkpoints(&self, branch: &Branch) -> Result<BTreeSet<ManifestNumber>> {
        let mut listed =
            self.context.store.list(&ShardFolder::Checkpoint.prefix(&branch.name, self.shard), None);
        let mut found = BTreeSet::new();
        while let Some(object) = listed.try_next().await? {
            let Some(key @ ObjectKey::Checkpoint { number, .. }) = object.key else {
                self.context.find(&object.path, "it is no object of an archive");
                continue;
            };
            found.insert(number);
            self.see(branch, &key);
            if let Some(says) = self.read(&key, |bytes| describe(&key, bytes)).await?
                && says.get("number").and_then(serde_json::Value::as_u64) != Some(number.get())
            {
                self.context.find(&key, "it is of another number than its key says: it was swapped");
            }
        }
        Ok(found)
    }

    /// Every page reads, and has the name that its content gives it.
    async fn pages(&self, branch: &Branch) -> Result<()> {
        let mut listed = self.context.store.list(&ShardFolder::Pages.prefix(&branch.name, self.shard), None);
        while let Some(object) = listed.try_next().await? {
            let Some(key @ ObjectKey::Page { id, .. }) = object.key else {
                self.context.find(&object.path, "it is no object of an archive");
                continue;
            };
            let named = |bytes: &Bytes| {
                let hash: [u8; 32] = blake3::hash(bytes).into();
                let mut name = [0; 16];
                name.copy_from_slice(hash.first_chunk::<16>().expect("a hash has more than 16 bytes"));
                describe(&key, bytes).map(|_| SegmentId::from_bytes(name))
            };
            if let Some(found) = self.read(&key, named).await?
                && found != id
            {
                self.context.find(&key, "its content is that of another page: it was altered or swapped");
            }
        }
        Ok(())
    }

    async fn read<T>(
        &self,
        key: &ObjectKey,
        decode: impl Fn(&Bytes) -> Result<T, duramen_archive::FormatError>,
    ) -> Result<Option<T>> {
        let bytes = self.context.store.get(key, MAX_META).await;
        let Some(bytes) = self.context.absorb(key, bytes)? else { return Ok(None) };
        self.context.looked_at(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(self.context.decoded(key, decode(&bytes)))
    }

    /// The newest manifests leave no later one that misses them: what else speaks of them is asked.
    async fn lost_end(&mut self, branch: &Branch, next: ManifestNumber) -> Result<()> {
        let context = self.context;
        let key = self.manifest_key(branch, next);
        let verdict = context.verdict_claims.get(&self.shard).filter(|(end, _)| *end > self.tip.end);
        if let Some((end, verdict)) = verdict {
            let reason = format!(
                "it is missing: {verdict} saw the history to index {end}, it ends at {}",
                self.tip.end
            );
            context.find(key, reason);
            return Ok(());
        }
        let Some((end, closed)) =
            context.closed_claims.get(&self.shard).filter(|(end, _)| *end > self.tip.end)
        else {
            return Ok(());
        };
        // A node that could not upload closes times ahead of what is archived; but then there is no segment.
        let folder = ShardFolder::Segments.prefix(&branch.name, self.shard);
        let mut listed = context.store.list(&folder, Some(&format!("{folder}{:020}", self.tip.end)));
        let segment = match listed.try_next().await? {
            Some(object) => object
                .key
                .filter(|key| matches!(key, ObjectKey::Segment { first, .. } if *first == self.tip.end)),
            None => None,
        };
        let committed_meanwhile = context.store.size(&key).await.is_ok();
        if let Some(segment) = segment
            && !committed_meanwhile
        {
            let reason =
                format!("it is missing: {closed} speaks of entries to index {end}, and {segment} is there");
            context.find(key, reason);
        }
        Ok(())
    }
}
