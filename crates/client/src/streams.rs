//! Streams: create, describe, list, configure, trim, delete, fence.

use duramen_proto::v1;
use duramen_types::{FencingToken, HybridTime, Offset, StreamConfig, StreamName};

use crate::model::config_to_proto;
use crate::retry::Effect;
use crate::{Client, ConfigChange, Error, Page, StreamInfo};

impl Client {
    /// Creates a stream; fails with `stream_exists` if there is one of that name.
    pub async fn create_stream(
        &self,
        stream: &StreamName,
        config: &StreamConfig,
    ) -> Result<StreamInfo, Error> {
        const CALL: &str = "creating a stream";
        let request = v1::CreateStreamRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            config: Some(config_to_proto(config)),
        };
        let info =
            self.call(CALL, Effect::Once, request, |mut log, request| async move {
                log.create_stream(request).await
            })
            .await?;
        StreamInfo::from_proto(CALL, Effect::Once, info)
    }

    /// Describes a stream.
    pub async fn describe_stream(&self, stream: &StreamName) -> Result<StreamInfo, Error> {
        const CALL: &str = "describing a stream";
        let request =
            v1::DescribeStreamRequest { tenant: self.tenant().to_string(), stream: stream.to_string() };
        let info = self
            .call(CALL, Effect::None, request, |mut log, request| async move {
                log.describe_stream(request).await
            })
            .await?;
        StreamInfo::from_proto(CALL, Effect::None, info)
    }

    /// Lists the tenant's streams whose names begin with `prefix`, at most `page_size` (0: the node's choice).
    pub async fn list_streams(
        &self,
        prefix: &str,
        page_size: u32,
        page: Option<&str>,
    ) -> Result<Page<StreamInfo>, Error> {
        const CALL: &str = "listing streams";
        let request = v1::ListStreamsRequest {
            tenant: self.tenant().to_string(),
            prefix: prefix.to_owned(),
            page_size,
            page_token: page.unwrap_or_default().to_owned(),
        };
        let list =
            self.call(CALL, Effect::None, request, |mut log, request| async move {
                log.list_streams(request).await
            })
            .await?;
        let streams = list.streams.into_iter().map(|info| StreamInfo::from_proto(CALL, Effect::None, info));
        Ok(Page::new(streams.collect::<Result<_, _>>()?, list.next_page_token))
    }

    /// Changes a stream's configuration, and gives the stream as it is then.
    pub async fn configure_stream(
        &self,
        stream: &StreamName,
        change: ConfigChange,
    ) -> Result<StreamInfo, Error> {
        const CALL: &str = "configuring a stream";
        let request = v1::ConfigureStreamRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            patch: Some(change.to_proto()),
        };
        let info = self
            .call(CALL, Effect::Idempotent, request, |mut log, request| async move {
                log.configure_stream(request).await
            })
            .await?;
        StreamInfo::from_proto(CALL, Effect::Idempotent, info)
    }

    /// Makes `to` the first readable offset, and gives the first readable one and when that was.
    ///
    /// An offset before the present one changes nothing; one beyond the tail is refused.
    pub async fn trim_stream(&self, stream: &StreamName, to: Offset) -> Result<(Offset, HybridTime), Error> {
        let request = v1::TrimStreamRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            to: to.get(),
        };
        let trimmed = self
            .call("trimming a stream", Effect::Idempotent, request, |mut log, request| async move {
                log.trim_stream(request).await
            })
            .await?;
        self.note_seen(HybridTime::from_micros(trimmed.time));
        Ok((Offset::new(trimmed.first_readable), HybridTime::from_micros(trimmed.time)))
    }

    /// Deletes a stream with its cursors, and says when: its past stays readable `as_of` an earlier instant.
    pub async fn delete_stream(&self, stream: &StreamName) -> Result<HybridTime, Error> {
        let request =
            v1::DeleteStreamRequest { tenant: self.tenant().to_string(), stream: stream.to_string() };
        let deleted = self
            .call("deleting a stream", Effect::Once, request, |mut log, request| async move {
                log.delete_stream(request).await
            })
            .await?;
        self.note_seen(HybridTime::from_micros(deleted.time));
        Ok(HybridTime::from_micros(deleted.time))
    }

    /// Replaces the stream's fencing token if it is `expected`; fails with `fenced`, and the present token, if not.
    pub async fn set_fencing_token(
        &self,
        stream: &StreamName,
        expected: Option<&FencingToken>,
        token: Option<&FencingToken>,
    ) -> Result<HybridTime, Error> {
        let request = v1::SetFencingTokenRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            expected: expected.map(ToString::to_string),
            token: token.map(ToString::to_string),
        };
        let set = self
            .call("setting a fencing token", Effect::Once, request, |mut log, request| async move {
                log.set_fencing_token(request).await
            })
            .await?;
        self.note_seen(HybridTime::from_micros(set.time));
        Ok(HybridTime::from_micros(set.time))
    }
}
