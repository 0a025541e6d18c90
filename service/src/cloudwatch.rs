//! Tells CloudWatch the node's metrics, by lines on standard output.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::Node;
use crate::config::Config;
use crate::telemetry::EmfLines;

/// Lines that wait for somebody to read standard output.
const WAITING: usize = 4;

/// Writes a line each `cloudwatch.interval`, for ever; ends at once without `cloudwatch.emf`, and when standard output
/// can't be written any more, which is logged.
pub async fn report(node: Node, config: &Config) {
    if !config.cloudwatch.emf {
        return;
    }
    let (lines, waiting) = sync_channel(WAITING);
    // A thread that nobody waits for: output that isn't read holds up neither a request nor the end of the process.
    let writer = std::thread::Builder::new().name("cloudwatch".to_owned()).spawn(move || write(waiting));
    if let Err(error) = writer {
        tracing::error!(%error, "CloudWatch gets no metrics: there is no thread to write them");
        return;
    }
    let mut emf = EmfLines::new(config.cloudwatch.clone(), config.node.id);
    let mut interval = tokio::time::interval(config.cloudwatch.interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A line is about the interval before it.
    interval.tick().await;
    loop {
        interval.tick().await;
        let health = node.health().await;
        let now = Duration::from_micros(node.clock().wall().now().as_micros());
        let mut line = emf.next(&node.metrics().render(), health.condition, now);
        line.push('\n');
        if !sent(&lines, line) {
            return;
        }
    }
}

/// Whether there is somebody to send the next line to.
fn sent(lines: &SyncSender<String>, line: String) -> bool {
    match lines.try_send(line) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            tracing::warn!("metrics for CloudWatch are lost: nobody reads standard output");
            true
        }
        Err(TrySendError::Disconnected(_)) => false,
    }
}

fn write(lines: Receiver<String>) {
    for line in lines {
        // One write for a whole line, so that lines of the log can't come in between where both go to one pipe or file.
        let mut output = io::stdout().lock();
        if let Err(error) = output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
            tracing::error!(%error, "CloudWatch gets no metrics any more: standard output can't be written");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_nobody_takes_is_dropped_and_a_closed_output_ends_it() {
        let (lines, waiting) = sync_channel(1);
        assert!(sent(&lines, "first".to_owned()));
        assert!(sent(&lines, "dropped".to_owned()), "the next one may find a reader again");
        assert_eq!(waiting.recv().unwrap(), "first");
        assert!(sent(&lines, "second".to_owned()));
        assert_eq!(waiting.recv().unwrap(), "second");
        drop(waiting);
        assert!(!sent(&lines, "third".to_owned()));
    }
}
