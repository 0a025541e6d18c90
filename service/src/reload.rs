//! What SIGHUP does: the configuration is read again, and what can change while the node runs is changed.

use crate::Node;
use crate::config::{Loaded, Problems};
use crate::telemetry::LogLevel;

/// The settings that take effect without a restart.
const RELOADABLE: [&str; 2] = ["telemetry.log_level", "archive.snapshot_schedule"];

/// Applies new configurations to a running node.
#[derive(Debug)]
pub struct Reload {
    /// What the node runs with.
    running: Loaded,
    node: Node,
    level: LogLevel,
}

impl Reload {
    /// For a node that was started with `running`.
    pub fn new(running: Loaded, node: Node, level: LogLevel) -> Self {
        Self { running, node, level }
    }

    /// Changes the log level and schedules to those of `newer`, and logs what else differs and waits for a restart.
    /// With mistakes in it nothing is changed.
    pub fn apply(&mut self, newer: Result<Loaded, Problems>) {
        let newer = match newer {
            Ok(newer) => newer,
            Err(problems) => {
                tracing::error!(%problems, "the configuration has mistakes: the node goes on with what it has");
                return;
            }
        };
        let differing = self.running.differences(&newer);
        let (changed, waiting): (Vec<_>, Vec<_>) =
            differing.into_iter().partition(|key| RELOADABLE.contains(key));
        if let Err(error) = self.level.set(&newer.config.telemetry.log_level) {
            tracing::error!(%error, "the log level stays as it is");
            return;
        }
        self.node.reschedule_snapshots(&newer.config.archive.snapshot_schedule);
        let running = &mut self.running.config;
        running.telemetry.log_level = newer.config.telemetry.log_level;
        running.archive.snapshot_schedule = newer.config.archive.snapshot_schedule;
        let changed = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
        tracing::info!(changed, "the configuration was reloaded");
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(", "), "these settings change with the next restart only");
        }
    }
}
