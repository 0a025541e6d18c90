//! The object store alone, with the client that the archive uses.

use anyhow::Result;
use bytes::Bytes;
use duramen_types::{Clock as _, SystemClock};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use super::Store;
use crate::content::{Content, Records};
use crate::node::Archive;

const OBJECT: usize = 64 << 20;
const OBJECTS: usize = 12;
const AT_ONCE: usize = 4;

/// Puts objects, reads them back and removes them.
#[expect(clippy::cast_precision_loss, reason = "a report has fewer digits than that")]
pub async fn measure(archive: &Archive) -> Result<Store> {
    let store = archive.bucket.store();
    let value = Records::new(Content::Random, 1 << 20, 11).next().value.clone().unwrap_or_default();
    let object = Bytes::from(value.repeat(OBJECT / value.len()));
    let paths: Vec<Path> = (0..OBJECTS).map(|number| Path::from(format!("ceiling/{number}"))).collect();
    let mib_per_second =
        |clock: SystemClock| ((OBJECT * OBJECTS) >> 20) as f64 / clock.monotonic().as_secs_f64();

    let clock = SystemClock::new();
    stream::iter(&paths)
        .map(|path| store.put(path, object.clone().into()))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let put = mib_per_second(clock);

    let clock = SystemClock::new();
    stream::iter(&paths)
        .map(|path| async {
            let mut body = store.get(path).await?.into_stream();
            while body.try_next().await?.is_some() {}
            Ok::<_, object_store::Error>(())
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let get = mib_per_second(clock);

    for path in &paths {
        store.delete(path).await?;
    }
    Ok(Store { put_mib_per_second: put, get_mib_per_second: get })
}
