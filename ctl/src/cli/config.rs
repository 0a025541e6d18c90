//! A stream's configuration on the command line.

use clap::{Args, ValueEnum};
use duramen_client::ConfigChange;
use duramen_types::{
    Acknowledgement, Compression, RescuePolicy, RetentionPolicy, StreamConfig, TimestampPolicy,
};

/// A new stream's configuration; what is not given follows the cluster's default.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What appends wait for that do not choose.
    #[arg(long, value_enum)]
    ack: Option<Ack>,
    /// Keep records for this long, such as 30d; for ever by default.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    retention_age: Option<u64>,
    /// Keep this much, such as 10GiB; everything by default.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    retention_bytes: Option<u64>,
    /// How archived blocks are compressed.
    #[arg(long, value_enum)]
    compression: Option<Codec>,
    /// Whose time a record carries.
    #[arg(long, value_enum)]
    timestamps: Option<Timestamps>,
    /// Where records go that were acknowledged `local` and then displaced by another leader's log; separate by default.
    #[arg(long, value_enum)]
    rescue: Option<Rescue>,
}

impl ConfigArgs {
    pub fn config(&self) -> StreamConfig {
        StreamConfig {
            acknowledgement: self.ack.map(Into::into),
            retention: RetentionPolicy { age_seconds: self.retention_age, bytes: self.retention_bytes },
            compression: self.compression.map(Into::into),
            timestamps: self.timestamps.map(Into::into),
            rescue: self.rescue.map(Into::into),
        }
    }
}

/// Changes of a configuration; `default` returns a setting to the cluster's default, `none` removes a limit.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ChangeArgs {
    /// What appends wait for that do not choose: local, quorum, archived or default.
    #[arg(long, value_parser = or_default::<Ack>)]
    ack: Option<Choice<Ack>>,
    /// Keep records for this long, such as 30d, or none for ever.
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| or_none(text, seconds))]
    retention_age: Option<Choice<u64>>,
    /// Keep this much, such as 10GiB, or none for everything.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| or_none(text, size))]
    retention_bytes: Option<Choice<u64>>,
    /// How archived blocks are compressed: zstd, none or default.
    #[arg(long, value_parser = or_default::<Codec>)]
    compression: Option<Choice<Codec>>,
    /// Whose time a record carries: client-preferred, arrival or default.
    #[arg(long, value_parser = or_default::<Timestamps>)]
    timestamps: Option<Choice<Timestamps>>,
    /// Where records go that another leader's log displaced: separate, append or default.
    #[arg(long, value_parser = or_default::<Rescue>)]
    rescue: Option<Choice<Rescue>>,
}

impl ChangeArgs {
    pub fn change(&self) -> ConfigChange {
        ConfigChange {
            acknowledgement: self.ack.map(|choice| choice.0.map(Into::into)),
            retention_age_seconds: self.retention_age.map(|choice| choice.0),
            retention_bytes: self.retention_bytes.map(|choice| choice.0),
            compression: self.compression.map(|choice| choice.0.map(Into::into)),
            timestamps: self.timestamps.map(|choice| choice.0.map(Into::into)),
            rescue: self.rescue.map(|choice| choice.0.map(Into::into)),
        }
    }
}

/// A value, or the return to the default.
#[derive(Debug, Clone, Copy)]
struct Choice<T>(Option<T>);

fn or_default<T: ValueEnum>(text: &str) -> Result<Choice<T>, String> {
    if text == "default" {
        return Ok(Choice(None));
    }
    T::from_str(text, false).map(|value| Choice(Some(value))).map_err(|_| {
        let names: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("expected one of {} or default", names.join(", "))
    })
}

fn or_none(text: &str, parse: fn(&str) -> Result<u64, String>) -> Result<Choice<u64>, String> {
    if text == "none" { Ok(Choice(None)) } else { parse(text).map(|value| Choice(Some(value))) }
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match duration.as_secs() {
        0 => Err("the shortest is 1s".to_owned()),
        seconds => Ok(seconds),
    }
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>()?.as_u64() {
        0 => Err("the smallest is 1 byte".to_owned()),
        bytes => Ok(bytes),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Ack {
    /// Fsynced on the leader.
    Local,
    /// Fsynced on a majority.
    Quorum,
    /// In the object store as well.
    Archived,
}

impl From<Ack> for Acknowledgement {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Local => Self::Local,
            Ack::Quorum => Self::Quorum,
            Ack::Archived => Self::Archived,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Codec {
    Zstd,
    None,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Zstd => Self::Zstd,
            Codec::None => Self::None,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Timestamps {
    ClientPreferred,
    Arrival,
}

impl From<Timestamps> for TimestampPolicy {
    fn from(policy: Timestamps) -> Self {
        match policy {
            Timestamps::ClientPreferred => Self::ClientPreferred,
            Timestamps::Arrival => Self::Arrival,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rescue {
    /// To the stream `{stream}~rescued`.
    Separate,
    /// To the stream's own tail.
    Append,
}

impl From<Rescue> for RescuePolicy {
    fn from(policy: Rescue) -> Self {
        match policy {
            Rescue::Separate => Self::Separate,
            Rescue::Append => Self::Append,
        }
    }
}
