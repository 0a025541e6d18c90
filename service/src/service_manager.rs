//! Telling a service manager such as systemd how the node is: ready, reloading, stopping, and that it is alive.
//!
//! Where none has started the process (`NOTIFY_SOCKET` is not set), nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::Node;
use crate::status::Condition;

/// How many reports fit into the time after which the service manager gives a silent node up.
const REPORTS: u32 = 3;

/// The node takes requests.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// The node is ending, in order.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("archiving what is not archived yet")]);
}

/// Reports that the node is alive for as long as none of its checks is unhealthy, if the service manager asks for it.
///
/// A node that can't write to its data directory or has lost a shard's leader is restarted by the service manager; one
/// that is degraded goes on.
pub async fn watchdog(node: Node) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval((limit / REPORTS).max(Duration::from_millis(1)));
    loop {
        interval.tick().await;
        let health = node.health().await;
        if health.condition == Condition::Unhealthy {
            let bad = health.checks.iter().filter(|check| check.condition == Condition::Unhealthy);
            let details: Vec<_> = bad.map(|check| check.detail.as_str()).collect();
            tracing::error!(
                details = details.join("; "),
                "the node is unhealthy and not reported to the service manager as alive"
            );
        } else {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
