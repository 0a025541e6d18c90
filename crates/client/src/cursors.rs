//! Cursors: named consumer positions of a stream.

use duramen_proto::v1;
use duramen_types::{CursorName, HybridTime, Offset, StreamName};

use crate::retry::Effect;
use crate::{Client, CursorInfo, Error, Page};

impl Client {
    /// Sets a cursor, creating it where needed, to any offset from 0 through the tail.
    ///
    /// It is repeated when its answer is lost: two consumers that share a cursor must not rely on which comes last.
    pub async fn commit_cursor(
        &self,
        stream: &StreamName,
        cursor: &CursorName,
        offset: Offset,
    ) -> Result<CursorInfo, Error> {
        let request = v1::CommitCursorRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            cursor: cursor.to_string(),
            offset: offset.get(),
        };
        let info = self
            .call("committing a cursor", Effect::Idempotent, request, |mut log, request| async move {
                log.commit_cursor(request).await
            })
            .await?;
        Ok(info.into())
    }

    /// Reads a cursor.
    pub async fn get_cursor(&self, stream: &StreamName, cursor: &CursorName) -> Result<CursorInfo, Error> {
        let request = v1::GetCursorRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            cursor: cursor.to_string(),
        };
        let info = self
            .call("reading a cursor", Effect::None, request, |mut log, request| async move {
                log.get_cursor(request).await
            })
            .await?;
        Ok(info.into())
    }

    /// Lists a stream's cursors, at most `page_size` (0: the node's choice).
    pub async fn list_cursors(
        &self,
        stream: &StreamName,
        page_size: u32,
        page: Option<&str>,
    ) -> Result<Page<CursorInfo>, Error> {
        let request = v1::ListCursorsRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            page_size,
            page_token: page.unwrap_or_default().to_owned(),
        };
        let list = self
            .call("listing cursors", Effect::None, request, |mut log, request| async move {
                log.list_cursors(request).await
            })
            .await?;
        Ok(Page::new(list.cursors.into_iter().map(Into::into).collect(), list.next_page_token))
    }

    /// Deletes a cursor, and says when.
    pub async fn delete_cursor(&self, stream: &StreamName, cursor: &CursorName) -> Result<HybridTime, Error> {
        let request = v1::DeleteCursorRequest {
            tenant: self.tenant().to_string(),
            stream: stream.to_string(),
            cursor: cursor.to_string(),
        };
        let deleted = self
            .call("deleting a cursor", Effect::Once, request, |mut log, request| async move {
                log.delete_cursor(request).await
            })
            .await?;
        self.note_seen(HybridTime::from_micros(deleted.time));
        Ok(HybridTime::from_micros(deleted.time))
    }
}
