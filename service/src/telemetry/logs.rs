//! Log lines: text for people or one JSON object a line, on standard error.
//!
//! Lines carry the fields of the spans that they are in: `node`, and for a request its `request_id`, `tenant` and
//! `stream`. Values of records, credentials and tokens are never fields.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Telemetry};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("telemetry.log_level {level:?} is not understood")]
    Level {
        level: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging was started before in this process")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process; once.
pub fn start_logs(config: &Telemetry) -> Result<(), Error> {
    // The libraries' own news at `info` would bury the node's; directives that name them win over this.
    let directives = format!("openraft=warn,tokio_cron_scheduler=warn,{}", config.log_level);
    let filter = EnvFilter::builder()
        .parse(&directives)
        .map_err(|source| Error::Level { level: config.log_level.clone(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colours are for a terminal; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => registry.with(lines.with_target(false)).try_init()?,
        LogFormat::Json => {
            registry
                .with(lines.json().flatten_event(true).with_current_span(false).with_span_list(true))
                .try_init()?;
        }
    }
    Ok(())
}
