//! What an object-store error means to the caller.

use std::error::Error as StdError;
use std::io::ErrorKind;

use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};

use super::credentials::{NoCredentials, causes};
use crate::{At, Error, Operation};

/// Turns a library error into ours; `attempts` becomes known when the last one has failed.
pub(super) fn classify(at: At, error: &StoreError) -> Error {
    let reason = || causes(error);
    match error {
        StoreError::NotFound { .. } => {
            let text = reason();
            if text.contains("NoSuchBucket")
                || text.contains("ContainerNotFound")
                || at.operation == Operation::List
            {
                Error::NoBucket(at)
            } else {
                Error::Missing(at)
            }
        }
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => Error::Exists(at),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            Error::Denied { at, reason: reason() }
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            Error::Unsupported { at, reason: reason() }
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            Error::Refused { at, reason: reason() }
        }
        StoreError::JoinError { .. } => Error::Unavailable { at, attempts: 1, reason: reason() },
        // The enum grows with the library: what it does not name is judged by its causes.
        _ => classify_by_causes(at, error),
    }
}

fn classify_by_causes(at: At, error: &StoreError) -> Error {
    let reason = causes(error);
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(missing) = found.downcast_ref::<NoCredentials>() {
            let reason = missing.reason.clone();
            return if missing.passes {
                Error::NoCredentialsNow { at, attempts: 1, reason }
            } else {
                Error::NoCredentials { at, reason }
            };
        }
        if let Some(http) = found.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Decode => Error::Refused { at, reason },
                _ => Error::Unavailable { at, attempts: 1, reason },
            };
        }
        if let Some(io) = found.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::Denied { at, reason },
                ErrorKind::NotFound => Error::Missing(at),
                ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
                    Error::Refused { at, reason }
                }
                _ => Error::Unavailable { at, attempts: 1, reason },
            };
        }
        cause = found.source();
    }
    match status(&reason) {
        // Listings come without a variant of their own.
        Some(401 | 403) => Error::Denied { at, reason },
        Some(404) if at.operation == Operation::List => Error::NoBucket(at),
        Some(429 | 503) => Error::Throttled { at, attempts: 1, reason },
        _ if reason.contains("SlowDown") => Error::Throttled { at, attempts: 1, reason },
        Some(501) => Error::Unsupported { at, reason },
        Some(408 | 500..=599) => Error::Unavailable { at, attempts: 1, reason },
        Some(_) => Error::Refused { at, reason },
        None if reason.contains("InternalError") => Error::Unavailable { at, attempts: 1, reason },
        None => Error::Refused { at, reason },
    }
}

/// The HTTP status of an error; the library keeps it in a private type, but writes it into the message.
fn status(reason: &str) -> Option<u16> {
    let (_, rest) = reason.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}
