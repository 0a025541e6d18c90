//! What a segment and a snapshot hold, against what the manifest says of them.

use std::sync::Arc;

use duramen_archive::{Branch, BytesSource, ObjectKey, Snapshot, SnapshotRow, ViewRow};
use duramen_types::Hash;

use super::Walk;
use crate::Result;
use crate::object::{StoreSource, open_segment};

/// Larger segments are read in pieces, twice: for their hash and for their content.
const IN_MEMORY: u64 = 64 << 20;
const PIECE: u64 = 8 << 20;

impl Walk<'_> {
    /// Verifies one segment; whether nothing is wrong with it.
    pub(super) async fn segment(&mut self, key: &ObjectKey, row: &ViewRow) -> Result<bool> {
        let context = self.context;
        if !context.is_full() {
            let source = Arc::new(StoreSource::new(&context.store, key.clone()));
            let checked = async {
                let length = context.store.size(key).await?;
                if length != row.row.bytes {
                    return Ok(Some(length));
                }
                open_segment(source, context.identity.archive, row)
                    .await?
                    .verify_structure()
                    .await
                    .map(|()| None)
            };
            return match context.absorb_segment(key, checked.await)? {
                None => Ok(false),
                Some(Some(length)) => {
                    context.find(key, format!("it has {length} bytes where {} were expected", row.row.bytes));
                    Ok(false)
                }
                Some(None) => {
                    context.looked_at(row.row.bytes);
                    Ok(true)
                }
            };
        }
        let Some((source, hash)) = self.load(key, row.row.bytes).await? else { return Ok(false) };
        context.looked_at(row.row.bytes);
        if hash != row.row.hash {
            context.find(key, format!("its hash is {hash}, its manifest says {}", row.row.hash));
        }
        let verified = async {
            let reader = open_segment(source, context.identity.archive, row).await?;
            reader.verify_full().await?;
            self.replay.apply(&reader, &row.visible).await
        };
        match context.absorb_segment(key, verified.await)? {
            Some(Ok(())) => Ok(hash == row.row.hash),
            Some(Err(problem)) => {
                context.find(key, problem);
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// A source of the object's bytes, and the hash of all of them.
    async fn load(
        &self,
        key: &ObjectKey,
        bytes: u64,
    ) -> Result<Option<(Arc<dyn duramen_archive::RangeSource>, Hash)>> {
        let context = self.context;
        if bytes <= IN_MEMORY {
            let object = context.store.get(key, IN_MEMORY).await;
            let Some(object) = context.absorb(key, object)? else { return Ok(None) };
            if u64::try_from(object.len()).ok() != Some(bytes) {
                context.find(key, format!("it has {} bytes where {bytes} were expected", object.len()));
                return Ok(None);
            }
            let hash = Hash::from_bytes(blake3::hash(&object).into());
            return Ok(Some((Arc::new(BytesSource::new(key.to_string(), object)), hash)));
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = 0_u64;
        while at < bytes {
            let end = bytes.min(at.saturating_add(PIECE));
            let piece = context.store.get_range(key, at..end).await;
            let Some(piece) = context.absorb(key, piece)? else { return Ok(None) };
            hasher.update(&piece);
            at = end;
        }
        let source = StoreSource::new(&context.store, key.clone());
        Ok(Some((Arc::new(source), Hash::from_bytes(hasher.finalize().into()))))
    }

    /// Verifies one snapshot, against the replayed state where that is at hand.
    pub(super) async fn snapshot(&mut self, branch: &Branch, row: &SnapshotRow) -> Result<()> {
        let context = self.context;
        let key = row.key(&branch.name, self.shard);
        if row.index < self.skip {
            return Ok(());
        }
        if !context.is_full() {
            if let Some(bytes) = context.absorb(&key, context.store.size(&key).await)? {
                context.looked_at(bytes);
                if bytes != row.bytes {
                    context.find(&key, format!("it has {bytes} bytes where {} were expected", row.bytes));
                }
            }
            return Ok(());
        }
        let bytes = context.store.get(&key, duramen_archive::MAX_PUT_BYTES).await;
        let Some(bytes) = context.absorb(&key, bytes)? else { return Ok(()) };
        context.looked_at(row.bytes);
        let hash = Hash::from_bytes(blake3::hash(&bytes).into());
        if hash != row.hash || u64::try_from(bytes.len()).ok() != Some(row.bytes) {
            context.find(&key, format!("its hash is {hash}, its manifest says {}", row.hash));
        }
        let decoded = Snapshot::decode(&bytes).and_then(|snapshot| {
            snapshot.check(context.identity.archive, &branch.name, self.shard, row).map(|()| snapshot)
        });
        let Some(snapshot) = context.decoded(&key, decoded.map_err(Into::into)) else { return Ok(()) };
        match self.replay.at(row.index) {
            Some(state) if *state == snapshot.state => {}
            Some(_) => context.find(&key, "its state is not the one that the history adds up to"),
            None if self.tip.end == row.index => self.replay.find(snapshot.state),
            None => {}
        }
        Ok(())
    }
}
