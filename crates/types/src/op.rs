//! Control operations: what changes a shard's catalogue, and the configuration of a stream.
//!
//! ```text
//! op  = kind u8 | fields
//! text = length u16 | UTF-8        option = flag u8 | value if 1
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    CursorName, DecodeError, FencingToken, HybridTime, NameError, Offset, Reader, RestorePointName, StreamId,
    StreamName, TenantName, Writer,
};

/// What an append waits for before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledgement {
    /// Fsynced on the leader.
    Local,
    /// Committed: fsynced on a majority of the shard's voters.
    Quorum,
    /// Committed, and in the object store.
    Archived,
}

/// Whose time a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampPolicy {
    /// The producer's, or the arrival time where it gave none.
    ClientPreferred,
    /// The time at which the batch arrived, always.
    Arrival,
}

/// How archived blocks of a stream are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Zstd,
    None,
}

/// Where those records of a stream go that one leader acknowledged `local` and the next one's log displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RescuePolicy {
    /// To the stream `{stream}~rescued` ([`StreamName::rescued`]), where nothing follows that was written later.
    Separate,
    /// To the stream's own tail, behind what was written meanwhile.
    Append,
}

/// How long a stream keeps its records; `None` keeps them for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// Seconds after a record's hybrid time.
    pub age_seconds: Option<u64>,
    /// Bytes of batches, newest first.
    pub bytes: Option<u64>,
}

/// What can be set of a stream; `None` takes the cluster's default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct StreamConfig {
    pub acknowledgement: Option<Acknowledgement>,
    pub retention: RetentionPolicy,
    pub compression: Option<Compression>,
    pub timestamps: Option<TimestampPolicy>,
    /// The state machine judges by it, so its default is no node's to choose: [`RescuePolicy::Separate`].
    pub rescue: Option<RescuePolicy>,
}

/// One change of a shard's catalogue, carried by one `Control` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlOp {
    /// A new stream whose id is the index of this entry.
    CreateStream {
        tenant: TenantName,
        name: StreamName,
        config: StreamConfig,
    },
    /// Replaces a stream's configuration if it still is what the proposer saw.
    ConfigureStream {
        stream: StreamId,
        expected: StreamConfig,
        config: StreamConfig,
    },
    /// Makes `to` the first readable offset, if that is further on and not beyond the tail.
    TrimStream {
        stream: StreamId,
        to: Offset,
    },
    DeleteStream {
        stream: StreamId,
    },
    /// Sets a cursor to any offset from 0 through the tail.
    CommitCursor {
        stream: StreamId,
        cursor: CursorName,
        offset: Offset,
    },
    DeleteCursor {
        stream: StreamId,
        cursor: CursorName,
    },
    /// Compare-and-set of the fencing token.
    SetFencingToken {
        stream: StreamId,
        expected: Option<FencingToken>,
        token: Option<FencingToken>,
    },
    /// A new producer whose id is the index of this entry; meta shard only.
    AllocateProducer,
    /// Meta shard only.
    CreateTenant {
        tenant: TenantName,
    },
    /// Names an instant that every shard is closed through; meta shard only.
    CreateRestorePoint {
        name: RestorePointName,
        time: HybridTime,
    },
    /// Meta shard only.
    DeleteRestorePoint {
        name: RestorePointName,
    },
}

impl ControlOp {
    /// A stable name for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateStream { .. } => "create_stream",
            Self::ConfigureStream { .. } => "configure_stream",
            Self::TrimStream { .. } => "trim_stream",
            Self::DeleteStream { .. } => "delete_stream",
            Self::CommitCursor { .. } => "commit_cursor",
            Self::DeleteCursor { .. } => "delete_cursor",
            Self::SetFencingToken { .. } => "set_fencing_token",
            Self::AllocateProducer => "allocate_producer",
            Self::CreateTenant { .. } => "create_tenant",
            Self::CreateRestorePoint { .. } => "create_restore_point",
            Self::DeleteRestorePoint { .. } => "delete_restore_point",
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Self::CreateStream { tenant, name, config } => {
                out.u8(1).short_bytes(tenant.as_str().as_bytes()).short_bytes(name.as_str().as_bytes());
                config.encode(out);
            }
            Self::ConfigureStream { stream, expected, config } => {
                out.u8(2).u64(stream.get());
                expected.encode(out);
                config.encode(out);
            }
            Self::TrimStream { stream, to } => {
                out.u8(3).u64(stream.get()).u64(to.get());
            }
            Self::DeleteStream { stream } => {
                out.u8(4).u64(stream.get());
            }
            Self::CommitCursor { stream, cursor, offset } => {
                out.u8(5).u64(stream.get()).short_bytes(cursor.as_str().as_bytes()).u64(offset.get());
            }
            Self::DeleteCursor { stream, cursor } => {
                out.u8(6).u64(stream.get()).short_bytes(cursor.as_str().as_bytes());
            }
            Self::SetFencingToken { stream, expected, token } => {
                out.u8(7).u64(stream.get());
                for token in [expected, token] {
                    out.option(token.as_ref(), |out, token| {
                        out.short_bytes(token.as_str().as_bytes());
                    });
                }
            }
            Self::AllocateProducer => {
                out.u8(8);
            }
            Self::CreateTenant { tenant } => {
                out.u8(9).short_bytes(tenant.as_str().as_bytes());
            }
            Self::CreateRestorePoint { name, time } => {
                out.u8(10).short_bytes(name.as_str().as_bytes()).u64(time.as_micros());
            }
            Self::DeleteRestorePoint { name } => {
                out.u8(11).short_bytes(name.as_str().as_bytes());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        Ok(match kind {
            1 => Self::CreateStream {
                tenant: name(reader, TenantName::parse)?,
                name: name(reader, StreamName::parse)?,
                config: StreamConfig::decode(reader)?,
            },
            2 => Self::ConfigureStream {
                stream: StreamId::new(reader.u64()?),
                expected: StreamConfig::decode(reader)?,
                config: StreamConfig::decode(reader)?,
            },
            3 => Self::TrimStream { stream: StreamId::new(reader.u64()?), to: Offset::new(reader.u64()?) },
            4 => Self::DeleteStream { stream: StreamId::new(reader.u64()?) },
            5 => Self::CommitCursor {
                stream: StreamId::new(reader.u64()?),
                cursor: name(reader, CursorName::parse)?,
                offset: Offset::new(reader.u64()?),
            },
            6 => Self::DeleteCursor {
                stream: StreamId::new(reader.u64()?),
                cursor: name(reader, CursorName::parse)?,
            },
            7 => Self::SetFencingToken {
                stream: StreamId::new(reader.u64()?),
                expected: reader.option(|reader| name(reader, FencingToken::parse))?,
                token: reader.option(|reader| name(reader, FencingToken::parse))?,
            },
            8 => Self::AllocateProducer,
            9 => Self::CreateTenant { tenant: name(reader, TenantName::parse)? },
            10 => Self::CreateRestorePoint {
                name: name(reader, RestorePointName::parse)?,
                time: HybridTime::from_micros(reader.u64()?),
            },
            11 => Self::DeleteRestorePoint { name: name(reader, RestorePointName::parse)? },
            other => return reader.invalid(format!("control operation {other} is unknown")),
        })
    }
}

fn name<T>(reader: &mut Reader<'_>, parse: fn(&str) -> Result<T, NameError>) -> Result<T, DecodeError> {
    let text = reader.short_text()?;
    parse(text).map_err(|error| DecodeError::invalid("control operation", error.to_string()))
}

impl StreamConfig {
    /// The policy in force.
    pub fn rescue_policy(&self) -> RescuePolicy {
        self.rescue.unwrap_or(RescuePolicy::Separate)
    }

    /// `ack u8 | age option u64 | bytes option u64 | compression u8 | timestamps u8 | rescue u8`; 0 stands for "the
    /// default".
    pub fn encode(&self, out: &mut Writer) {
        out.u8(match self.acknowledgement {
            None => 0,
            Some(Acknowledgement::Local) => 1,
            Some(Acknowledgement::Quorum) => 2,
            Some(Acknowledgement::Archived) => 3,
        });
        for limit in [self.retention.age_seconds, self.retention.bytes] {
            out.option(limit.as_ref(), |out, limit| {
                out.u64(*limit);
            });
        }
        out.u8(match self.compression {
            None => 0,
            Some(Compression::Zstd) => 1,
            Some(Compression::None) => 2,
        });
        out.u8(match self.timestamps {
            None => 0,
            Some(TimestampPolicy::ClientPreferred) => 1,
            Some(TimestampPolicy::Arrival) => 2,
        });
        out.u8(match self.rescue {
            None => 0,
            Some(RescuePolicy::Separate) => 1,
            Some(RescuePolicy::Append) => 2,
        });
    }

    /// Reads what [`StreamConfig::encode`] wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let acknowledgement = match reader.u8()? {
            0 => None,
            1 => Some(Acknowledgement::Local),
            2 => Some(Acknowledgement::Quorum),
            3 => Some(Acknowledgement::Archived),
            other => return reader.invalid(format!("acknowledgement level {other} is unknown")),
        };
        let age_seconds = reader.option(Reader::u64)?;
        let bytes = reader.option(Reader::u64)?;
        let compression = match reader.u8()? {
            0 => None,
            1 => Some(Compression::Zstd),
            2 => Some(Compression::None),
            other => return reader.invalid(format!("archive compression {other} is unknown")),
        };
        let timestamps = match reader.u8()? {
            0 => None,
            1 => Some(TimestampPolicy::ClientPreferred),
            2 => Some(TimestampPolicy::Arrival),
            other => return reader.invalid(format!("timestamp policy {other} is unknown")),
        };
        let rescue = match reader.u8()? {
            0 => None,
            1 => Some(RescuePolicy::Separate),
            2 => Some(RescuePolicy::Append),
            other => return reader.invalid(format!("rescue policy {other} is unknown")),
        };
        Ok(Self {
            acknowledgement,
            retention: RetentionPolicy { age_seconds, bytes },
            compression,
            timestamps,
            rescue,
        })
    }
}
