//! Tenants, streams, cursors, fencing tokens, producers and restore points.

use std::sync::Arc;
use std::time::Duration;

use duramen_state::{ControlResult, Cursor, Stream};
use duramen_types::{
    ControlOp, CursorName, FencingToken, HybridTime, Offset, ProducerId, RestorePointName, ShardId,
    StreamConfig, StreamId, StreamName, TenantName,
};
use tokio::sync::oneshot;

use super::{Node, not_proposed, rejected};
use crate::api::{
    Code, CursorInfo, Error, RestorePointInfo, Result, StreamConfigPatch, StreamInfo, StreamPage, StreamRef,
    TenantInfo,
};
use crate::shard::{Job, Outcome, Shard, Waiting};

/// How long a look at a cursor waits for the archive to say how old the record is that its reader is at.
const LAG_PATIENCE: Duration = Duration::from_secs(2);
/// And how long the answer to a commit does.
const COMMIT_LAG_PATIENCE: Duration = Duration::from_millis(100);
/// How often a configuration change is tried again when another one came between.
const CONFIGURE_ATTEMPTS: usize = 8;

impl Node {
    /// Creates a tenant; [`Code::TenantExists`] if there is one of that name.
    pub async fn create_tenant(&self, tenant: TenantName) -> Result<TenantInfo> {
        let outcome = self.meta(ControlOp::CreateTenant { tenant: tenant.clone() }, tenant.as_str()).await?;
        Ok(TenantInfo { tenant, created: outcome.0.applied.time })
    }

    /// All tenants, by name.
    pub async fn tenants(&self) -> Result<Vec<TenantInfo>> {
        let state = self.shard(ShardId::META).view.state.read();
        Ok(state.tenants().map(|(tenant, created)| TenantInfo { tenant: tenant.clone(), created }).collect())
    }

    /// Fails with [`Code::UnknownTenant`] unless the tenant exists.
    pub(super) fn check_tenant(&self, tenant: &TenantName) -> Result<()> {
        if self.shard(ShardId::META).view.state.read().has_tenant(tenant) {
            return Ok(());
        }
        Err(Error::new(Code::UnknownTenant, format!("tenant {tenant} does not exist: create it first")))
    }

    pub async fn create_stream(&self, stream: &StreamRef, config: StreamConfig) -> Result<StreamInfo> {
        super::users_only(stream)?;
        self.check_tenant(&stream.tenant)?;
        let op = ControlOp::CreateStream { tenant: stream.tenant.clone(), name: stream.name.clone(), config };
        self.control(self.shard_of(stream), op, stream).await?;
        self.describe_stream(stream).await
    }

    pub async fn describe_stream(&self, stream: &StreamRef) -> Result<StreamInfo> {
        let shard = self.shard_of(stream);
        let state = shard.view.state.read();
        let found = state
            .stream_id(&stream.tenant, &stream.name)
            .and_then(|id| state.stream(id).map(|found| self.info(shard.id, id, found)));
        drop(state);
        match found {
            Some(info) => Ok(info),
            None => {
                self.check_tenant(&stream.tenant)?;
                Err(self.unknown_stream(stream))
            }
        }
    }

    /// At most `limit` streams whose names begin with `prefix` and come after `after`, by name.
    pub async fn list_streams(
        &self,
        tenant: &TenantName,
        prefix: &str,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Result<StreamPage> {
        self.check_tenant(tenant)?;
        let mut streams = Vec::new();
        for shard in self.data_shards() {
            let state = shard.view.state.read();
            // One more than asked for tells whether there is a further page.
            let found = state.list(tenant, prefix, after).take(limit.saturating_add(1));
            streams.extend(found.map(|(id, stream)| self.info(shard.id, id, stream)));
        }
        streams.sort_unstable_by(|a, b| a.stream.name.cmp(&b.stream.name));
        let more = streams.len() > limit;
        streams.truncate(limit);
        let next = if more { streams.last().map(|info| info.stream.name.clone()) } else { None };
        Ok(StreamPage { streams, next })
    }

    pub async fn configure_stream(&self, stream: &StreamRef, patch: StreamConfigPatch) -> Result<StreamInfo> {
        for attempt in 1.. {
            let (shard, id, expected) = self.locate(stream, |found| found.config.clone())?;
            let config = patched(&expected, &patch);
            let op = ControlOp::ConfigureStream { stream: id, expected, config };
            match self.control(&shard, op, stream).await {
                Ok(_) => break,
                Err(error) if error.code == Code::ConfigChanged && attempt < CONFIGURE_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
        self.describe_stream(stream).await
    }

    /// Makes `to` the first readable offset, unless a later one is; gives the first readable offset and when this was
    /// committed.
    pub async fn trim_stream(&self, stream: &StreamRef, to: Offset) -> Result<(Offset, HybridTime)> {
        let (shard, id, ()) = self.locate(stream, |_| ())?;
        match self.control(&shard, ControlOp::TrimStream { stream: id, to }, stream).await? {
            (outcome, ControlResult::Trimmed(first)) => Ok((first, outcome.applied.time)),
            (_, other) => Err(Error::new(Code::Internal, format!("stream {stream}: a trim gave {other:?}"))),
        }
    }

    /// Gives when the deletion was committed: `as_of` an earlier time, the stream is there.
    pub async fn delete_stream(&self, stream: &StreamRef) -> Result<HybridTime> {
        let (shard, id, ()) = self.locate(stream, |_| ())?;
        let (outcome, _) = self.control(&shard, ControlOp::DeleteStream { stream: id }, stream).await?;
        Ok(outcome.applied.time)
    }

    pub async fn commit_cursor(
        &self,
        stream: &StreamRef,
        cursor: &CursorName,
        offset: Offset,
    ) -> Result<CursorInfo> {
        let (shard, id, ()) = self.locate(stream, |_| ())?;
        let op = ControlOp::CommitCursor { stream: id, cursor: cursor.clone(), offset };
        let committed = self.control(&shard, op, stream).await?.0.applied.time;
        // It is committed: whatever else the answer says, it must not say that it isn't.
        self.cursor_info(stream, cursor.clone(), Cursor { offset, committed }, COMMIT_LAG_PATIENCE).await
    }

    pub async fn cursor(&self, stream: &StreamRef, cursor: &CursorName) -> Result<CursorInfo> {
        let (_, _, found) = self.locate(stream, |found| found.cursors.get(cursor).copied())?;
        match found {
            Some(position) => self.cursor_info(stream, cursor.clone(), position, LAG_PATIENCE).await,
            None => Err(Error::new(
                Code::UnknownCursor,
                format!("stream {stream} has no cursor {:?}: commit it first", cursor.as_str()),
            )),
        }
    }

    pub async fn cursors(&self, stream: &StreamRef) -> Result<Vec<CursorInfo>> {
        let (_, _, cursors) = self.locate(stream, |found| found.cursors.clone())?;
        let mut infos = Vec::with_capacity(cursors.len());
        for (cursor, position) in cursors {
            infos.push(self.cursor_info(stream, cursor, position, LAG_PATIENCE).await?);
        }
        Ok(infos)
    }

    /// Gives when the deletion was committed.
    pub async fn delete_cursor(&self, stream: &StreamRef, cursor: &CursorName) -> Result<HybridTime> {
        let (shard, id, ()) = self.locate(stream, |_| ())?;
        let op = ControlOp::DeleteCursor { stream: id, cursor: cursor.clone() };
        let deleted = self.control(&shard, op, stream).await.map_err(|mut error| {
            if error.code == Code::UnknownCursor {
                let name = cursor.as_str();
                error.message = format!(
                    "stream {stream} has no cursor {name:?}: look for the right name in the list of its cursors"
                );
            }
            error
        })?;
        Ok(deleted.0.applied.time)
    }

    /// Compare-and-set: fails with [`Code::Fenced`] unless the stream's token is `expected`. Gives when it was committed.
    pub async fn set_fencing_token(
        &self,
        stream: &StreamRef,
        expected: Option<FencingToken>,
        token: Option<FencingToken>,
    ) -> Result<HybridTime> {
        let (shard, id, ()) = self.locate(stream, |_| ())?;
        let op = ControlOp::SetFencingToken { stream: id, expected, token };
        Ok(self.control(&shard, op, stream).await?.0.applied.time)
    }

    /// A producer id that the cluster never gave before.
    pub async fn allocate_producer(&self) -> Result<ProducerId> {
        match self.meta(ControlOp::AllocateProducer, "producer").await?.1 {
            ControlResult::Producer(id) => Ok(id),
            other => Err(Error::new(Code::Internal, format!("allocating a producer gave {other:?}"))),
        }
    }

    /// Names the present instant: everything acknowledged before the call lies before it.
    pub async fn create_restore_point(&self, name: RestorePointName) -> Result<RestorePointInfo> {
        // Each shard's log gets an entry first; the point is the latest of their times.
        let ticks = self.shards().iter().map(|shard| self.tick(shard));
        let time = super::append::latest(futures::future::try_join_all(ticks).await?);
        self.meta(ControlOp::CreateRestorePoint { name: name.clone(), time }, name.as_str()).await?;
        Ok(RestorePointInfo { name, time })
    }

    pub async fn restore_points(&self) -> Result<Vec<RestorePointInfo>> {
        let state = self.shard(ShardId::META).view.state.read();
        Ok(state.restore_points().map(|(name, time)| RestorePointInfo { name: name.clone(), time }).collect())
    }

    /// Commits an entry whose only effect is its time; gives the time.
    pub(crate) async fn tick(&self, shard: &Shard) -> Result<HybridTime> {
        let (sender, outcome) = oneshot::channel();
        shard.submit(Job::Tick(Waiting { outcome: sender, budget: None }));
        let what = format!("shard {}", shard.id);
        Ok(self.outcome(&what, outcome).await?.applied.time)
    }

    async fn meta(&self, op: ControlOp, what: &str) -> Result<(Outcome, ControlResult)> {
        let shard = self.shard(ShardId::META);
        let (sender, outcome) = oneshot::channel();
        let name = op.name();
        shard.submit(Job::Control(op, Waiting { outcome: sender, budget: None }));
        let outcome = self.outcome(what, outcome).await?;
        match &outcome.applied.control {
            Some(Ok(result)) => Ok((outcome.clone(), result.clone())),
            Some(Err(rejection)) => Err(super::rejected_what(what, rejection)),
            None => Err(Error::new(Code::Internal, format!("{name} gave no result"))),
        }
    }

    pub(super) async fn control(
        &self,
        shard: &Shard,
        op: ControlOp,
        stream: &StreamRef,
    ) -> Result<(Outcome, ControlResult)> {
        let (sender, outcome) = oneshot::channel();
        let name = op.name();
        shard.submit(Job::Control(op, Waiting { outcome: sender, budget: None }));
        let outcome = self.outcome(&stream.to_string(), outcome).await?;
        match &outcome.applied.control {
            Some(Ok(result)) => Ok((outcome.clone(), result.clone())),
            Some(Err(rejection)) => Err(rejected(stream, rejection)),
            None => Err(Error::new(Code::Internal, format!("stream {stream}: {name} gave no result"))),
        }
    }

    async fn outcome(
        &self,
        what: &str,
        outcome: oneshot::Receiver<std::result::Result<Outcome, crate::shard::NotProposed>>,
    ) -> Result<Outcome> {
        let unknown = |why: &str| {
            Error::new(
                Code::UnknownOutcome,
                format!("{what}: {why}; the change may or may not have been made: look before you repeat it"),
            )
        };
        match tokio::time::timeout(self.settings().append_timeout, outcome).await {
            Err(_) => Err(unknown("no answer from the log in time")),
            Ok(Err(_)) => Err(unknown("the shard's leadership ended")),
            Ok(Ok(Err(reason))) => Err(not_proposed(what, &reason)),
            Ok(Ok(Ok(outcome))) => Ok(outcome),
        }
    }

    /// The stream's shard and id, and what `look` sees of it.
    pub(super) fn locate<T>(
        &self,
        stream: &StreamRef,
        look: impl FnOnce(&Stream) -> T,
    ) -> Result<(Arc<Shard>, StreamId, T)> {
        let shard = self.shard_of(stream);
        let state = shard.view.state.read();
        let found = state
            .stream_id(&stream.tenant, &stream.name)
            .and_then(|id| state.stream(id).map(|found| (id, look(found))));
        drop(state);
        match found {
            Some((id, seen)) => Ok((Arc::clone(shard), id, seen)),
            None => {
                self.check_tenant(&stream.tenant)?;
                Err(self.unknown_stream(stream))
            }
        }
    }

    fn info(&self, shard: ShardId, id: StreamId, stream: &Stream) -> StreamInfo {
        let settings = self.settings();
        StreamInfo {
            stream: StreamRef { tenant: stream.tenant.clone(), name: stream.name.clone() },
            id,
            shard,
            config: stream.config.clone(),
            acknowledgement: stream.config.acknowledgement.unwrap_or(settings.acknowledgement),
            compression: stream.config.compression.unwrap_or(settings.compression),
            timestamps: stream.config.timestamps.unwrap_or(settings.timestamps),
            created: stream.created,
            last_append: stream.last_append,
            first: stream.trimmed,
            next: stream.next,
            appended_bytes: stream.appended_bytes,
            fenced: stream.fencing_token.is_some(),
            cursors: stream.cursors.len(),
        }
    }

    /// A cursor with its lag. Where the archive has the record and can't be read within `patience`, the lag is what it is at
    /// most: the stream's age.
    async fn cursor_info(
        &self,
        stream: &StreamRef,
        cursor: CursorName,
        position: Cursor,
        patience: Duration,
    ) -> Result<CursorInfo> {
        let look = |found: &Stream| (found.trimmed, found.next, found.created);
        let (_, _, (first, next, created)) = self.locate(stream, look)?;
        let from = position.offset.max(first);
        let lag = if from >= next {
            Duration::ZERO
        } else {
            let now = self.clock().wall().now();
            match tokio::time::timeout(patience, self.time_of(stream, from)).await {
                Ok(Ok(Some(time))) => now.since(time),
                Ok(Ok(None)) => Duration::ZERO,
                Ok(Err(_)) | Err(_) => now.since(created),
            }
        };
        Ok(CursorInfo {
            cursor,
            offset: position.offset,
            committed: position.committed,
            lag_records: next.since(position.offset),
            lag,
        })
    }
}

fn patched(config: &StreamConfig, patch: &StreamConfigPatch) -> StreamConfig {
    let mut config = config.clone();
    if let Some(acknowledgement) = patch.acknowledgement {
        config.acknowledgement = acknowledgement;
    }
    if let Some(age) = patch.retention_age_seconds {
        config.retention.age_seconds = age;
    }
    if let Some(bytes) = patch.retention_bytes {
        config.retention.bytes = bytes;
    }
    if let Some(compression) = patch.compression {
        config.compression = compression;
    }
    if let Some(timestamps) = patch.timestamps {
        config.timestamps = timestamps;
    }
    if let Some(rescue) = patch.rescue {
        config.rescue = rescue;
    }
    config
}
