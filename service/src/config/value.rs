//! The types that a setting can have: how each is written, shown and described.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use duramen_types::{Acknowledgement, BranchName};

/// How a value is written in TOML, and what to tell somebody who wrote it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// What TOML calls the type.
    pub(super) toml: &'static str,
    /// A noun phrase with an example.
    pub(super) is: &'static str,
}

/// A setting's value: written and shown the same way in the file, the environment and a flag.
pub(super) trait Value {
    fn kind(&self) -> Kind;

    /// Takes the value that `text` spells; on an error nothing changes and the sentence says what is expected.
    fn set(&mut self, text: &str) -> Result<(), String>;

    /// The value as `set` takes it back; `None` where there is none.
    fn show(&self) -> Option<String>;

    /// The value as TOML writes it.
    fn toml(&self) -> Option<String> {
        let shown = self.show()?;
        let bare = matches!(self.kind().toml, "integer" | "boolean");
        Some(if bare { shown } else { toml::Value::String(shown).to_string() })
    }
}

fn unfit(kind: Kind, text: &str) -> String {
    format!("{text:?} is not {}", kind.is)
}

macro_rules! parsed {
    ($toml:literal, $is:literal: $($type:ty),+) => {$(
        impl Value for $type {
            fn kind(&self) -> Kind {
                Kind { toml: $toml, is: $is }
            }

            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = text.trim().parse().map_err(|_| unfit(self.kind(), text))?;
                Ok(())
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

parsed!("integer", "a whole number": u16, u64, usize);
parsed!("boolean", "true or false": bool);
parsed!("string", "an address and port like \"127.0.0.1:7700\" or \"[::1]:7700\"": SocketAddr);

impl Value for String {
    fn kind(&self) -> Kind {
        Kind { toml: "string", is: "a text" }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        text.clone_into(self);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for PathBuf {
    fn kind(&self) -> Kind {
        Kind { toml: "string", is: "a path" }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Err("an empty path names no directory".to_owned());
        }
        *self = PathBuf::from(text);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl Value for Duration {
    fn kind(&self) -> Kind {
        Kind { toml: "string", is: "a duration like \"10s\", \"500ms\" or \"30d\"" }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = humantime::parse_duration(text.trim()).map_err(|_| unfit(self.kind(), text))?;
        Ok(())
    }

    /// In the largest unit that divides it.
    fn show(&self) -> Option<String> {
        let nanos = self.as_nanos();
        let units = [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000)];
        let finer = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
        let fitting =
            units.into_iter().chain(finer).find(|(_, unit)| nanos != 0 && nanos.is_multiple_of(*unit));
        Some(match fitting {
            Some((name, unit)) => format!("{}{name}", nanos / unit),
            None if nanos == 0 => "0s".to_owned(),
            None => format!("{nanos}ns"),
        })
    }
}

impl Value for ByteSize {
    fn kind(&self) -> Kind {
        Kind { toml: "string", is: "a size like \"64MiB\" or \"10GiB\"" }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = text.trim().parse().map_err(|_| unfit(self.kind(), text))?;
        Ok(())
    }

    /// In the largest unit that divides it.
    fn show(&self) -> Option<String> {
        let bytes = self.as_u64();
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let fitting = units.into_iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
        Some(match fitting {
            Some((name, unit)) => format!("{}{name}", bytes / unit),
            None => format!("{bytes}B"),
        })
    }
}

impl Value for BranchName {
    fn kind(&self) -> Kind {
        Kind { toml: "string", is: "a branch name" }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = Self::parse(text).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// An optional value: an empty text takes it away.
impl<T: Value + Default> Value for Option<T> {
    fn kind(&self) -> Kind {
        T::default().kind()
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            *self = None;
            return Ok(());
        }
        let mut value = T::default();
        value.set(text)?;
        *self = Some(value);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Value::show)
    }
}

/// An enumeration as a setting: its spellings, once.
macro_rules! choice {
    ($type:ty, $is:literal, $($text:literal => $value:path),+) => {
        impl Value for $type {
            fn kind(&self) -> Kind {
                Kind { toml: "string", is: $is }
            }

            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = match text.trim() {
                    $($text => $value,)+
                    _ => return Err(unfit(self.kind(), text)),
                };
                Ok(())
            }

            fn show(&self) -> Option<String> {
                Some(match self { $($value => $text,)+ }.to_owned())
            }
        }
    };
}

/// When the WAL calls fsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything is acknowledged.
    Always,
    /// In the background, at an interval: what was acknowledged since the last one dies with the machine.
    Interval,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

choice!(Fsync, "\"always\" or \"interval\"", "always" => Self::Always, "interval" => Self::Interval);
choice!(LogFormat, "\"text\" or \"json\"", "text" => Self::Text, "json" => Self::Json);
choice!(
    Acknowledgement, "\"local\", \"quorum\" or \"archived\"",
    "local" => Self::Local, "quorum" => Self::Quorum, "archived" => Self::Archived
);
