//! Control operations on a shard's catalogue.

use duramen_types::{ControlOp, EntryId, HybridTime, Offset, ProducerId, ShardId, StreamId};

use crate::{
    ControlResult, Cursor, MAX_CURSORS_PER_STREAM, MAX_RESTORE_POINTS, MAX_STREAMS_PER_SHARD, MAX_TENANTS,
    Rejection, ShardState, Stream,
};

type Result = std::result::Result<ControlResult, Rejection>;

impl ShardState {
    pub(crate) fn control(&mut self, id: EntryId, time: HybridTime, op: &ControlOp) -> Result {
        match op {
            ControlOp::CreateStream { tenant, name, config } => {
                self.only_data()?;
                if let Some(existing) = self.stream_id(tenant, name) {
                    return Err(Rejection::StreamExists(existing));
                }
                cap(self.streams.len(), "streams in the shard", MAX_STREAMS_PER_SHARD)?;
                let stream = StreamId::new(id.index.get());
                self.insert_stream(stream, Stream::new(tenant.clone(), name.clone(), config.clone(), time));
                Ok(ControlResult::Created(stream))
            }
            ControlOp::ConfigureStream { stream, expected, config } => {
                let stream = self.stream_mut(*stream)?;
                if stream.config != *expected {
                    return Err(Rejection::ConfigChanged(Box::new(stream.config.clone())));
                }
                stream.config = config.clone();
                Ok(ControlResult::Done)
            }
            ControlOp::TrimStream { stream, to } => {
                let stream = self.stream_mut(*stream)?;
                within_tail(stream, *to)?;
                stream.trimmed = stream.trimmed.max(*to);
                Ok(ControlResult::Trimmed(stream.trimmed))
            }
            ControlOp::DeleteStream { stream } => self.delete_stream(*stream),
            ControlOp::CommitCursor { stream, cursor, offset } => {
                let stream = self.stream_mut(*stream)?;
                within_tail(stream, *offset)?;
                if !stream.cursors.contains_key(cursor) {
                    cap(stream.cursors.len(), "cursors of the stream", MAX_CURSORS_PER_STREAM)?;
                }
                stream.cursors.insert(cursor.clone(), Cursor { offset: *offset, committed: time });
                Ok(ControlResult::Done)
            }
            ControlOp::DeleteCursor { stream, cursor } => {
                let stream = self.stream_mut(*stream)?;
                stream.cursors.remove(cursor).map(|_| ControlResult::Done).ok_or(Rejection::UnknownCursor)
            }
            ControlOp::SetFencingToken { stream, expected, token } => {
                let stream = self.stream_mut(*stream)?;
                if stream.fencing_token != *expected {
                    return Err(Rejection::Fenced { current: stream.fencing_token.clone() });
                }
                stream.fencing_token = token.clone();
                Ok(ControlResult::Done)
            }
            ControlOp::AllocateProducer => {
                self.only_meta()?;
                Ok(ControlResult::Producer(ProducerId::new(id.index.get())))
            }
            ControlOp::CreateTenant { tenant } => {
                self.only_meta()?;
                if self.tenants.contains_key(tenant) {
                    return Err(Rejection::TenantExists);
                }
                cap(self.tenants.len(), "tenants", MAX_TENANTS)?;
                self.tenants.insert(tenant.clone(), time);
                Ok(ControlResult::Done)
            }
            ControlOp::CreateRestorePoint { name, time } => {
                self.only_meta()?;
                if let Some(existing) = self.restore_points.get(name) {
                    return Err(Rejection::RestorePointExists(*existing));
                }
                cap(self.restore_points.len(), "restore points", MAX_RESTORE_POINTS)?;
                self.restore_points.insert(name.clone(), *time);
                Ok(ControlResult::Done)
            }
            ControlOp::DeleteRestorePoint { name } => {
                self.only_meta()?;
                let removed = self.restore_points.remove(name);
                removed.map(|_| ControlResult::Done).ok_or(Rejection::UnknownRestorePoint)
            }
        }
    }

    fn delete_stream(&mut self, id: StreamId) -> Result {
        let stream = self.streams.remove(&id).ok_or(Rejection::UnknownStream(id))?;
        // A rescue into a stream that is gone is refused anyway.
        self.forget_rescues(id);
        if let Some(names) = self.names.get_mut(&stream.tenant) {
            names.remove(&stream.name);
            if names.is_empty() {
                self.names.remove(&stream.tenant);
            }
        }
        Ok(ControlResult::Done)
    }

    pub(crate) fn insert_stream(&mut self, id: StreamId, stream: Stream) {
        self.names.entry(stream.tenant.clone()).or_default().insert(stream.name.clone(), id);
        self.streams.insert(id, stream);
    }

    fn stream_mut(&mut self, id: StreamId) -> std::result::Result<&mut Stream, Rejection> {
        self.streams.get_mut(&id).ok_or(Rejection::UnknownStream(id))
    }

    fn only_meta(&self) -> std::result::Result<(), Rejection> {
        if self.shard == ShardId::META { Ok(()) } else { Err(Rejection::WrongShard("meta")) }
    }

    fn only_data(&self) -> std::result::Result<(), Rejection> {
        if self.shard == ShardId::META { Err(Rejection::WrongShard("data")) } else { Ok(()) }
    }
}

fn within_tail(stream: &Stream, offset: Offset) -> std::result::Result<(), Rejection> {
    if offset > stream.next { Err(Rejection::BeyondTail { offset, tail: stream.next }) } else { Ok(()) }
}

const fn cap(count: usize, what: &'static str, limit: usize) -> std::result::Result<(), Rejection> {
    if count >= limit { Err(Rejection::TooMany { what, limit }) } else { Ok(()) }
}
