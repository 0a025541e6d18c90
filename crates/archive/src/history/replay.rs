//! The state of a shard at a cut, and the cut at an instant.

use duramen_state::ShardState;
use duramen_types::{DecodeError, Hash, HybridTime, Index};

use super::pages::Pages;
use super::{History, HistoryError, Result, source};
use crate::{Fate, RangeSource, ShardView, Snapshot, ViewSnapshot};

impl History {
    /// The state after every entry before `cut`: the nearest snapshot, and what the entry tables say after it.
    ///
    /// No batch is read. The history chain is compared with the manifests at every boundary of segments, and each
    /// batch's recorded outcome with what replaying gives. Memory: the state, and the pages read ahead.
    pub async fn state_at(&self, view: &ShardView, cut: Index) -> Result<ShardState> {
        let end = view.tip().end;
        if cut > end {
            return Err(HistoryError::BeyondEnd { shard: view.shard(), asked: cut, end });
        }
        let mut state = match view.snapshot_at(cut).await? {
            Some(snapshot) => self.snapshot(&snapshot).await?,
            None => ShardState::new(view.shard()),
        };
        self.advance(view, &mut state, cut).await?;
        Ok(state)
    }

    /// Replays what follows `state` in `view` until `cut`; for going through a history in steps.
    ///
    /// After an error the state is somewhere between where it was and `cut`.
    pub async fn advance(&self, view: &ShardView, state: &mut ShardState, cut: Index) -> Result<()> {
        if cut <= state.end() {
            return Ok(());
        }
        let mut pages = self.pages(view, state.end()..cut);
        while let Some(pages) = pages.next().await? {
            replay(state, pages)?;
        }
        if state.end() != cut {
            return Err(HistoryError::BeyondEnd { shard: view.shard(), asked: cut, end: state.end() });
        }
        Ok(())
    }

    /// The state that a snapshot holds, after comparing its bytes, identity and position with the manifest's.
    pub async fn snapshot(&self, snapshot: &ViewSnapshot) -> Result<ShardState> {
        let key = snapshot.key();
        let bytes = match source::mirrored(&self.inner, &key)? {
            Some(file) => file.read(0..snapshot.row.bytes).await?,
            None => self.inner.store.get(&key, snapshot.row.bytes).await?,
        };
        let unreadable = |cause| HistoryError::Snapshot { object: key.to_string(), cause };
        if Hash::from_bytes(blake3::hash(&bytes).into()) != snapshot.row.hash {
            return Err(unreadable(DecodeError::invalid(
                "snapshot",
                "its bytes do not have the manifest's hash",
            )));
        }
        let read = Snapshot::decode(&bytes).map_err(unreadable)?;
        read.check(self.inner.archive, &snapshot.branch, snapshot.shard, &snapshot.row)
            .map_err(unreadable)?;
        Ok(read.state)
    }

    /// The cut that has every entry with an effective time ≤ `time`: the first index whose time is later.
    ///
    /// Whether the archive is closed through `time` is not looked at here.
    pub async fn cut_at_time(&self, view: &ShardView, time: HybridTime) -> Result<Index> {
        let Some(row) = view.first_after(time).await? else { return Ok(view.tip().end) };
        let mut cursor = view.cursor(row.visible.start, None);
        // One segment, but where the view ends within it before `time`: then the next ones.
        while let Some(row) = cursor.next().await? {
            if row.row.last_time <= time {
                continue;
            }
            let reader = self.open(&row).await?;
            let page = reader.entry_page(reader.index().entry_page_at(time)).await?;
            let later = page.iter().find(|entry| entry.time > time).map(|entry| entry.id.index);
            // The page's first entry is not later than `time`, or it is the segment's first.
            let found =
                later.or_else(|| page.last().map(|entry| entry.id.index.next())).unwrap_or(row.visible.end);
            if found < row.visible.end {
                return Ok(found.max(row.visible.start));
            }
        }
        Ok(view.tip().end)
    }
}

/// Applies some pages' entries, and compares the chain with the manifest where the segment begins and ends.
fn replay(state: &mut ShardState, pages: Pages) -> Result<()> {
    let object = || pages.reader.index().name().to_owned();
    let row = &pages.row.row;
    let same_chain = |state: &ShardState, at: Index, chain| {
        if state.end() != at || state.chain() == chain {
            return Ok(());
        }
        let reason = format!("the history chain at index {at} is not the one replayed");
        Err(HistoryError::Inconsistent { object: object(), reason })
    };
    same_chain(state, row.first, row.chain_before)?;
    for entry in &pages.entries {
        let applied = state
            .apply(entry.id, &entry.head, &entry.head_bytes)
            .map_err(|cause| HistoryError::Replay { object: object(), cause })?;
        let same = applied.time == entry.time
            && applied.batches.len() == entry.batches.len()
            && applied
                .batches
                .iter()
                .zip(&entry.batches)
                .all(|(found, stated)| Fate::from(found) == stated.fate);
        if !same {
            return Err(HistoryError::Diverged { object: object(), entry: entry.id });
        }
    }
    same_chain(state, row.end, row.chain_after)
}
