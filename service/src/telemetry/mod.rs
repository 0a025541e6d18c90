//! What a node tells about itself: log lines and metrics.

mod cloudwatch;
mod json_lines;
mod logs;
mod metrics;
mod names;
mod observed;
mod reference;
mod traces;

pub use cloudwatch::EmfLines;
pub use logs::{Error as LogsError, LogLevel, Started, start};
pub use metrics::{Gauged, Metrics, Port, ReadSource};
pub use observed::{ArchiveUse, Observed, TenantUse};
pub use reference::metrics_reference;
pub use traces::{Traces, continue_trace};
pub(crate) use traces::{number, traced};

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of the program's source; "unknown" if it was built outside a checkout.
pub const COMMIT: &str = env!("DURAMEN_COMMIT");

#[cfg(test)]
mod tests;
