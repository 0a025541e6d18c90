//! The entry tables of a shard's segments, page after page, read ahead.

use std::collections::VecDeque;
use std::ops::Range;

use duramen_types::Index;

use super::History;
use super::pipeline::{Pipeline, compute};
use crate::{EntryRow, SegmentReader, ShardView, ViewRow};

/// Some pages of one segment's entry table.
#[derive(Debug)]
pub(super) struct Pages {
    pub row: ViewRow,
    pub reader: SegmentReader,
    /// The rows of the pages that belong to the view and to the range asked for, in index order.
    pub entries: VecDeque<EntryRow>,
}

impl History {
    /// The entries `range` of `view` as their tables have them.
    pub(super) fn pages(&self, view: &ShardView, range: Range<Index>) -> Pipeline<Pages> {
        let mut cursor = view.cursor(range.start, None);
        let history = self.clone();
        let ahead = self.inner.options.read_ahead;
        Pipeline::spawn(ahead, move |feeder| async move {
            while let Some(row) = cursor.next().await? {
                if row.visible.start >= range.end {
                    break;
                }
                let wanted = row.visible.start.max(range.start)..row.visible.end.min(range.end);
                let Some(last) = wanted.end.previous() else { break };
                let reader = history.open(&row).await?;
                let index = reader.index();
                let pages = index.entry_page_of(wanted.start)..index.entry_page_of(last) + 1;
                for run in index.entry_page_runs(pages, history.inner.options.request_bytes) {
                    let (row, reader, wanted) = (row.clone(), reader.clone(), wanted.clone());
                    let blocking = history.inner.options.blocking;
                    let work = async move {
                        let stored = reader.read_entry_pages(run.clone()).await?;
                        compute(blocking, move || {
                            let mut entries = reader.index().decode_entry_pages(run, &stored)?;
                            entries.retain(|entry| wanted.contains(&entry.id.index));
                            Ok(Pages { row, reader, entries: entries.into() })
                        })
                        .await
                    };
                    if !feeder.submit(work).await {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }
}
