use std::str::FromStr;

use anyhow::{Result, bail};

/// A setting of a test from the environment; `None` where it isn't set, an error where it is something else.
pub fn setting<T: FromStr>(name: &str) -> Result<Option<T>> {
    let Ok(value) = std::env::var(name) else { return Ok(None) };
    match value.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => bail!("{name}={value} is not what it should be"),
    }
}
