//! Writes a node's log on the runtime's one thread.

use std::sync::Arc;
use std::time::Duration;

use duramen::LogDriver;
use duramen_wal::Progress;
use tokio::sync::Notify;

/// As in a node: how long the log is idle before it publishes how far it is synced.
const IDLE: Duration = Duration::from_millis(100);

/// Drives the log whenever something waits; each turn takes as long as `latency` says, so that what is submitted meanwhile
/// goes into one frame, as behind a real disk.
pub fn driver(latency: impl Fn() -> Duration + Send + Sync + 'static) -> LogDriver {
    Box::new(move |wal| {
        Box::pin(async move {
            let work = Arc::new(Notify::new());
            let wake = Arc::clone(&work);
            wal.wake_with(move || wake.notify_one());
            loop {
                tokio::time::sleep(latency()).await;
                let progress = match wal.drive() {
                    // The log has stopped and has told everybody.
                    Err(_) => return,
                    Ok(progress) => progress,
                };
                match progress {
                    Progress::Wrote => {}
                    Progress::Blocked => tokio::time::sleep(IDLE).await,
                    Progress::Idle => {
                        if tokio::time::timeout(IDLE, work.notified()).await.is_err()
                            && wal.publish().is_ok_and(|progress| progress == Progress::Idle)
                        {
                            work.notified().await;
                        }
                    }
                }
            }
        })
    })
}
