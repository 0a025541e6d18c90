//! Where the node is: options that a command has only if it uses them, and that may stand before the command as well.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _};
use duramen_types::TenantName;

use crate::cli::{Cli, Command};
use crate::wait::Patience;

const ENDPOINT: &str = "http://127.0.0.1:7700";
const ADMIN: &str = "http://127.0.0.1:7702";

/// Where a node serves clients.
#[derive(Debug, Clone, Default, Args)]
pub struct EndpointArg {
    /// Where the node serves clients [env: DURAMEN_ENDPOINT] [default: http://127.0.0.1:7700].
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// How long the node may be silent while something is due, such as 90s or 5m [default: 60s].
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<Duration>,
}

/// Whose streams are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct TenantArg {
    /// The tenant whose streams are meant [default: default].
    #[arg(long, global = true, value_name = "NAME", value_parser = TenantName::parse)]
    pub tenant: Option<TenantName>,
}

/// Where a node serves operators.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminArg {
    /// Where the node serves operators [env: DURAMEN_ADMIN] [default: http://127.0.0.1:7702].
    #[arg(long, global = true, value_name = "URL")]
    pub admin: Option<String>,
    /// How long to wait for the answer, such as 90s or 5m [default: 10s; 5m where the answer waits for the archive].
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<Duration>,
}

/// The same before the command, where it is not known yet which of them the command has.
#[derive(Debug, Clone, Default, Args)]
pub struct BeforeArgs {
    /// Where the node serves clients, for commands of clients [env: DURAMEN_ENDPOINT] [default: http://127.0.0.1:7700].
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Where the node serves operators, for status, metrics, health, archive and snapshot [env: DURAMEN_ADMIN] [default:
    /// http://127.0.0.1:7702].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The tenant whose streams are meant, for stream, append, read and cursor [default: default].
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// How long to wait for an answer; each command's help has its default.
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(duration) }
}

/// What a command is to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub endpoint: String,
    pub admin: String,
    pub tenant: Option<TenantName>,
    /// If one was given.
    pub timeout: Option<Duration>,
    /// Whether a program reads the answers.
    pub as_json: bool,
}

impl Connection {
    /// How long to wait, where `usual` is how long if nothing was said.
    pub fn patience(&self, usual: Duration) -> Patience {
        Patience::new(self.timeout.unwrap_or(usual), self.as_json)
    }

    /// Puts together what stands before and after the command and in the environment; an option that does nothing for
    /// the command is wrong usage.
    pub fn new(cli: &Cli, variable: impl Fn(&str) -> Option<String>) -> Result<Self, clap::Error> {
        let (endpoint, tenant, admin) = cli.command.connection();
        let useless = [
            ("--endpoint", cli.before.endpoint.is_some() && endpoint.is_none()),
            ("--tenant", cli.before.tenant.is_some() && tenant.is_none()),
            ("--admin", cli.before.admin.is_some() && admin.is_none()),
            ("--timeout", cli.before.timeout.is_some() && endpoint.is_none() && admin.is_none()),
        ];
        if let Some((option, _)) = useless.into_iter().find(|(_, is_useless)| *is_useless) {
            let what = format!("{option} does nothing for this command: leave it out");
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, what));
        }
        let url = |after: Option<&Option<String>>, before: &Option<String>, name: &str, usual: &str| {
            let given = after.cloned().flatten().or_else(|| before.clone());
            given.or_else(|| variable(name).filter(|url| !url.is_empty())).unwrap_or_else(|| usual.to_owned())
        };
        Ok(Self {
            endpoint: url(
                endpoint.map(|arg| &arg.endpoint),
                &cli.before.endpoint,
                "DURAMEN_ENDPOINT",
                ENDPOINT,
            ),
            admin: url(admin.map(|arg| &arg.admin), &cli.before.admin, "DURAMEN_ADMIN", ADMIN),
            tenant: tenant.and_then(|arg| arg.tenant.clone()).or_else(|| cli.before.tenant.clone()),
            timeout: endpoint
                .and_then(|arg| arg.timeout)
                .or_else(|| admin.and_then(|arg| arg.timeout))
                .or(cli.before.timeout),
            as_json: cli.json,
        })
    }
}

impl Command {
    /// The options that the command has.
    fn connection(&self) -> (Option<&EndpointArg>, Option<&TenantArg>, Option<&AdminArg>) {
        match self {
            Self::Stream { endpoint, tenant, .. }
            | Self::Append { endpoint, tenant, .. }
            | Self::Read { endpoint, tenant, .. }
            | Self::Cursor { endpoint, tenant, .. } => (Some(endpoint), Some(tenant), None),
            Self::Tenant { endpoint, .. } | Self::RestorePoint { endpoint, .. } => {
                (Some(endpoint), None, None)
            }
            Self::Status { admin }
            | Self::Metrics { admin }
            | Self::Health { admin, .. }
            | Self::Archive { admin, .. }
            | Self::Snapshot { admin } => (None, None, Some(admin)),
            Self::Completions { .. } => (None, None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn connection(line: &str) -> Result<Connection, clap::Error> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        let variable = |name: &str| (name == "DURAMEN_ENDPOINT").then(|| "http://variable:1".to_owned());
        Connection::new(&cli, variable)
    }

    #[test]
    fn an_option_may_stand_before_and_after_its_command_and_in_the_environment() {
        for (line, expected) in [
            ("duramenctl read s", "http://variable:1"),
            ("duramenctl --endpoint http://a:1 read s", "http://a:1"),
            ("duramenctl read s --endpoint http://a:1", "http://a:1"),
            ("duramenctl stream list --endpoint http://a:1", "http://a:1"),
            ("duramenctl stream --endpoint http://a:1 list", "http://a:1"),
            ("duramenctl --endpoint http://b:1 stream list --endpoint http://a:1", "http://a:1"),
        ] {
            assert_eq!(connection(line).unwrap().endpoint, expected, "{line}");
        }
        assert_eq!(connection("duramenctl archive flush").unwrap().admin, ADMIN);
        assert_eq!(connection("duramenctl archive flush --admin http://a:1").unwrap().admin, "http://a:1");
        let tenant = |line| connection(line).unwrap().tenant.map(|tenant| tenant.to_string());
        assert_eq!(tenant("duramenctl --tenant acme stream list").as_deref(), Some("acme"));
        assert_eq!(tenant("duramenctl stream list --tenant acme").as_deref(), Some("acme"));
        assert_eq!(tenant("duramenctl stream list"), None);
        let timeout = |line| connection(line).unwrap().timeout;
        assert_eq!(timeout("duramenctl read s --timeout 5m"), Some(Duration::from_secs(300)));
        assert_eq!(timeout("duramenctl --timeout 1s archive flush"), Some(Duration::from_secs(1)));
        assert_eq!(timeout("duramenctl status"), None);
        assert!(connection("duramenctl status --timeout 0s").is_err());
        assert!(connection("duramenctl --timeout 1s completions bash").is_err());
    }

    #[test]
    fn an_option_that_does_nothing_for_a_command_is_refused() {
        for (option, commands) in [
            (
                "--admin http://a:1",
                ["read s", "append s", "stream list", "tenant list", "restore-point list"],
            ),
            (
                "--tenant acme",
                ["status", "tenant list", "restore-point list", "snapshot", "completions bash"],
            ),
            ("--endpoint http://a:1", ["status", "metrics", "health", "archive status", "completions bash"]),
        ] {
            for command in commands {
                for line in
                    [format!("duramenctl {option} {command}"), format!("duramenctl {command} {option}")]
                {
                    let error = connection(&line).expect_err(&line);
                    assert_eq!(error.exit_code(), 2, "{line}");
                    let name = option.split(' ').next().unwrap();
                    assert!(error.to_string().contains(name), "{line}: {error}");
                }
            }
        }
    }
}
