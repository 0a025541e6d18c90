//! Archived segments: immutable objects with the committed entries of one index range of one shard.
//!
//! [`SegmentWriter`] makes one from entries in index order, [`SegmentReader`] reads one through a [`RangeSource`],
//! wherever its bytes are. The format is described in `segment/format.rs`.

mod block;
mod directory;
mod entries;
mod error;
mod format;
mod index;
mod part;
mod reader;
mod source;
mod streams;
mod trailer;
mod verify;
mod writer;

pub use block::{Block, BlockBatch};
pub use entries::{EntryRow, Fate, Location, RejectionCode, TableBatch};
pub use error::SegmentError;
pub use format::SegmentIdentity;
pub use index::SegmentIndex;
pub use reader::SegmentReader;
pub use source::{BytesSource, FileSource, RangeSource};
pub use streams::StreamRow;
pub use trailer::Trailer;
pub use writer::{SegmentFacts, SegmentObject, SegmentOptions, SegmentWriter, WriteError};

#[cfg(test)]
pub(crate) mod tests;
