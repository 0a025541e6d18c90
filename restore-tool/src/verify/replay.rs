//! The state that the verified entries add up to, compared with what segments and snapshots say of it.

use std::ops::Range;

use duramen_archive::{EntryRow, Fate, SegmentError, SegmentReader};
use duramen_state::ShardState;
use duramen_types::Index;

/// A state that follows the verified history. It is lost where the history is damaged, and found again at a snapshot.
#[derive(Debug)]
pub(super) struct Replay(Option<ShardState>);

impl Replay {
    pub(super) const fn new(state: Option<ShardState>) -> Self {
        Self(state)
    }

    pub(super) fn lose(&mut self) {
        self.0 = None;
    }

    /// The state exactly at `end`, if it is known.
    pub(super) fn at(&self, end: Index) -> Option<&ShardState> {
        self.0.as_ref().filter(|state| state.end() == end)
    }

    /// Goes on from a snapshot where the state was lost.
    pub(super) fn find(&mut self, state: ShardState) {
        self.0.get_or_insert(state);
    }

    /// Applies the visible entries of a segment; `Err` says which of them is not what the history makes of it.
    pub(super) async fn apply(
        &mut self,
        reader: &SegmentReader,
        visible: &Range<Index>,
    ) -> Result<Result<(), String>, SegmentError> {
        let Some(state) = &mut self.0 else { return Ok(Ok(())) };
        for number in 0..reader.index().entry_pages() {
            for row in reader.entry_page(number).await? {
                if !visible.contains(&row.id.index) || row.id.index < state.end() {
                    continue;
                }
                if let Err(problem) = step(state, &row) {
                    self.0 = None;
                    return Ok(Err(problem));
                }
            }
        }
        Ok(Ok(()))
    }
}

fn step(state: &mut ShardState, row: &EntryRow) -> Result<(), String> {
    let applied = state.apply(row.id, &row.head, &row.head_bytes).map_err(|error| error.to_string())?;
    if applied.time != row.time {
        return Err(format!("entry {} has time {}, replaying gives {}", row.id, row.time, applied.time));
    }
    let same = applied.batches.len() == row.batches.len()
        && applied
            .batches
            .iter()
            .zip(&row.batches)
            .all(|(outcome, stated)| Fate::from(outcome) == stated.fate);
    if same {
        return Ok(());
    }
    Err(format!("what it says became of the batches of entry {} is not what replaying gives", row.id))
}
