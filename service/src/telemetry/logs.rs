//! Log lines: text for people or one JSON object a line, on standard error.
//!
//! Lines carry the fields of the spans that they are in: `node`, and for a request its `request_id`, `tenant` and
//! `stream`; in JSON they are fields of the line itself. Values of records, credentials and tokens are never fields.

use std::io::IsTerminal as _;

use duramen_archive::LOG_DIRECTIVES;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::json_lines::JsonLines;
use super::traces::Traces;
use crate::config::{Config, LogFormat};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("telemetry.log_level {level:?} is not understood")]
    Level {
        level: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("telemetry.otlp_endpoint {endpoint:?} can't be used")]
    Traces {
        endpoint: String,
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    #[error("the log level can't be changed any more")]
    Reload(#[source] reload::Error),
    #[error("logging was started before in this process")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// What is logged, to be changed while the process runs.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Logs as `telemetry.log_level` would say from now on.
    pub fn set(&self, level: &str) -> Result<(), Error> {
        self.0.reload(filter(level)?).map_err(Error::Reload)
    }
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    // The libraries' own news at `info` would bury the node's; directives that name them win over this.
    let directives = format!("openraft=warn,tokio_cron_scheduler=warn,{LOG_DIRECTIVES},{level}");
    EnvFilter::builder().parse(&directives).map_err(|source| Error::Level { level: level.to_owned(), source })
}

/// What was started.
#[derive(Debug)]
pub struct Started {
    pub level: LogLevel,
    pub traces: Option<Traces>,
}

/// Starts logs, and traces if they are configured, for the whole process; once, on its runtime.
pub fn start(config: &Config) -> Result<Started, Error> {
    let (filter, level) = reload::Layer::new(filter(&config.telemetry.log_level)?);
    let traces = Traces::start(config)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colours are for a terminal; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match config.telemetry.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().event_format(JsonLines::of_node(config.node.id)).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.as_ref().map(Traces::layer))
        .try_init()?;
    Ok(Started { level: LogLevel(level), traces })
}
