//! The envelope of every JSON object of an archive.
//!
//! ```text
//! {"format":"duramen-branch","version":1,"crc32":"0a1b2c3d","body":{…}}
//! ```
//!
//! The checksum is the CRC-32 of the body's text as it stands in the object, in hexadecimal: any JSON tool can read
//! these objects, and damage is noticed all the same.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use bytes::Bytes;
use duramen_types::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The largest JSON object that is read.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// A kind of JSON object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document {
    /// The envelope's `format`, which also names the kind in errors.
    pub format: &'static str,
    /// The oldest version that is read.
    pub oldest: u32,
    /// The newest version that is read, and the one that is written.
    pub version: u32,
}

/// What every version of an envelope has.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: String,
    version: u32,
    crc32: String,
    body: Box<RawValue>,
}

impl Envelope {
    /// The object's bytes; there is one way to write it.
    fn written(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("an envelope holds texts, a number and valid JSON");
        bytes.push(b'\n');
        bytes
    }
}

impl Document {
    pub(crate) fn encode(self, body: &impl Serialize) -> Bytes {
        let body = serde_json::value::to_raw_value(body).expect("archive documents have only text keys");
        let crc32 = format!("{:08x}", crc32fast::hash(body.get().as_bytes()));
        Envelope { format: self.format.to_owned(), version: self.version, crc32, body }.written().into()
    }

    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        let what = self.format;
        let invalid = |error: serde_json::Error| DecodeError::invalid(what, error.to_string());
        // The version first: a newer envelope may have members that this one doesn't know.
        let kind: Kind = serde_json::from_slice(bytes).map_err(invalid)?;
        if kind.format != self.format {
            return Err(DecodeError::invalid(what, format!("its format is {:?}", kind.format)));
        }
        if !(self.oldest..=self.version).contains(&kind.version) {
            return Err(DecodeError::Version { what, found: kind.version, supported: self.version });
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(invalid)?;
        let computed = crc32fast::hash(envelope.body.get().as_bytes());
        let stored = u32::from_str_radix(&envelope.crc32, 16)
            .map_err(|_| DecodeError::invalid(what, "its crc32 is not hexadecimal"))?;
        if stored != computed {
            return Err(DecodeError::Checksum { what, stored, computed });
        }
        if envelope.crc32 != format!("{computed:08x}") || envelope.written() != bytes {
            return Err(DecodeError::invalid(
                what,
                "it is not as it was written: compact, with one line feed at its end",
            ));
        }
        serde_json::from_str(envelope.body.get()).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_as_it_was_written_is_an_error() {
        let document = Document { format: "duramen-test", oldest: 1, version: 1 };
        // Its checksum has letters, whose case is one bit, and begins with a zero.
        let body = (0_u32..).find(|number| {
            let crc = format!("{:08x}", crc32fast::hash(number.to_string().as_bytes()));
            crc.starts_with('0') && crc.contains(|c: char| c.is_ascii_lowercase())
        });
        let good = document.encode(&body.unwrap());
        assert_eq!(document.decode::<u32>(&good).unwrap(), body.unwrap());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                assert!(document.decode::<u32>(&bad).is_err(), "bit {bit} of byte {at}");
            }
            assert!(document.decode::<u32>(&good[..at]).is_err(), "cut to {at}");
        }
        let text = String::from_utf8(good.to_vec()).unwrap();
        for bad in [text.replace(":\"0", ":\"+"), text.replace(',', ", "), format!("{text}\n")] {
            assert!(document.decode::<u32>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
