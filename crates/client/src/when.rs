//! Instants as people and programs write them: `2026-11-21T14:29:59Z`, `-15m`, `now`, microseconds since 1970.
//!
//! ```
//! use duramen_client::when;
//! use duramen_types::HybridTime;
//!
//! let now = HybridTime::from_micros(1_763_735_399_000_000);
//! assert_eq!(when::format(now), "2025-11-21T14:29:59Z");
//! let earlier = when::parse("-15m", now)?;
//! assert_eq!(when::format(earlier), "2025-11-21T14:14:59Z");
//! # Ok::<(), when::Error>(())
//! ```

use std::time::Duration;

use duramen_types::HybridTime;
use jiff::Timestamp;

/// Text that is no instant; the sentence says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: {reason}; write 2026-11-21T14:29:59Z, -15m, now or microseconds since 1970")]
pub struct Error {
    text: String,
    reason: String,
}

/// Microseconds since 1970 of an instant in 2001, the earliest that is taken as a number: a smaller number is most likely
/// one of seconds or milliseconds, and no log was here before.
const SMALLEST_MICROS: u64 = 1_000_000_000_000_000;

/// Reads an instant: RFC 3339 with its zone, `now`, a duration before `now` such as `-15m`, `-1h30m`, `-2days`, or
/// microseconds since 1970, as answers of a node have them.
///
/// Fractions of a microsecond are cut off. An instant in the future is an instant; whoever asks for one that must have
/// passed checks that.
pub fn parse(text: &str, now: HybridTime) -> Result<HybridTime, Error> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = humantime::parse_duration(ago).map_err(|error| wrong(text, error.to_string()))?;
        return match u64::try_from(ago.as_micros()) {
            Ok(ago) if ago <= now.as_micros() => Ok(now.before(std::time::Duration::from_micros(ago))),
            _ => Err(wrong(text, "it lies before 1970")),
        };
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u64>() {
            Ok(micros) if micros >= SMALLEST_MICROS => Ok(HybridTime::from_micros(micros)),
            Ok(_) => Err(wrong(
                text,
                "a number is one of microseconds since 1970, and this one is too small (are they seconds or milliseconds?)",
            )),
            Err(error) => Err(wrong(text, error.to_string())),
        };
    }
    let instant: Timestamp = text.parse().map_err(|error: jiff::Error| {
        let is_local = text.parse::<jiff::civil::DateTime>().is_ok();
        wrong(text, if is_local { "it has no zone (add Z for UTC)".to_owned() } else { error.to_string() })
    })?;
    match u64::try_from(instant.as_microsecond()) {
        Ok(micros) => Ok(HybridTime::from_micros(micros)),
        Err(_) => Err(wrong(text, "it lies before 1970")),
    }
}

/// Reads a record's timestamp, milliseconds since 1970: RFC 3339 with its zone, or the number itself.
pub fn parse_millis(text: &str) -> Result<i64, Error> {
    let text = text.trim();
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let instant: Timestamp = text.parse().map_err(|error: jiff::Error| wrong(text, error.to_string()))?;
    Ok(instant.as_millisecond())
}

/// RFC 3339 in UTC, to the microsecond; [`parse`] gives the same instant back. Beyond the year 9999: the plain number.
pub fn format(time: HybridTime) -> String {
    let instant =
        i64::try_from(time.as_micros()).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    instant.map_or_else(|| time.to_string(), |instant| instant.to_string())
}

/// A record's timestamp, milliseconds since 1970, as RFC 3339 in UTC; out of its range the plain number.
pub fn format_millis(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |instant| instant.to_string())
}

/// How long something lasts: "7 days", "1h 30m".
pub fn format_duration(duration: Duration) -> String {
    let text = humantime::format_duration(duration).to_string();
    let parts = text.split(' ').map(|part| {
        let unit = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, unit) = part.split_at(unit);
        // Letters stand beside their number, words do not.
        if ["day", "month", "year"].iter().any(|word| unit.starts_with(word)) {
            format!("{number} {unit}")
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join(" ")
}

fn wrong(text: &str, reason: impl Into<String>) -> Error {
    // A hostile text may be long; the error shows its beginning.
    Error { text: text.chars().take(80).collect(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: HybridTime = HybridTime::from_micros(1_763_735_399_123_456);

    #[test]
    fn a_duration_has_its_words_apart_from_its_numbers() {
        let format = |seconds| format_duration(Duration::from_secs(seconds));
        assert_eq!(format(7 * 86_400), "7 days");
        assert_eq!(format(86_400 + 5400), "1 day 1h 30m");
        assert_eq!(format(32_000_000), "1 year 5 days 2h 53m 20s");
        assert_eq!(format(0), "0s");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1s 500ms");
    }

    fn micros(text: &str) -> u64 {
        parse(text, NOW).unwrap().as_micros()
    }

    #[test]
    fn an_instant_is_read_in_any_zone() {
        assert_eq!(micros("2025-11-21T14:29:59Z"), 1_763_735_399_000_000);
        assert_eq!(micros("2025-11-21T16:29:59.5+02:00"), 1_763_735_399_500_000);
        assert_eq!(micros("2025-11-21 14:29:59.000001Z"), 1_763_735_399_000_001);
        assert_eq!(micros("1970-01-01T00:00:00Z"), 0);
    }

    #[test]
    fn a_number_is_one_of_microseconds() {
        assert_eq!(micros("1763735399000001"), 1_763_735_399_000_001);
        assert_eq!(micros(&NOW.to_string()), NOW.as_micros());
        for (text, part) in [
            ("1763735399", "seconds or milliseconds"),
            ("1763735399123", "seconds or milliseconds"),
            ("0", "too small"),
            ("99999999999999999999", "too large"),
        ] {
            let message = parse(text, NOW).unwrap_err().to_string();
            assert!(message.contains(part), "{text:?} gave {message}");
        }
    }

    #[test]
    fn a_relative_time_counts_back_from_now() {
        assert_eq!(micros("now"), NOW.as_micros());
        assert_eq!(micros("-15m"), NOW.as_micros() - 900_000_000);
        assert_eq!(micros("-1h30m"), NOW.as_micros() - 5_400_000_000);
        assert_eq!(micros("-2days"), NOW.as_micros() - 2 * 86_400_000_000);
        assert_eq!(micros("-0s"), NOW.as_micros());
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be_one() {
        for (text, part) in [
            ("", "not a time"),
            ("-", "not a time"),
            ("-15", "time unit needed"),
            ("15m", "not a time"),
            ("yesterday", "not a time"),
            ("2025-11-21T14:29:59", "it has no zone"),
            ("2025-02-30T00:00:00Z", "not a time"),
            ("1969-12-31T23:59:59Z", "before 1970"),
            ("-600years", "before 1970"),
            ("-99999999999999999999s", "not a time"),
        ] {
            let message = parse(text, NOW).unwrap_err().to_string();
            assert!(message.contains(part), "{text:?} gave {message}");
            assert!(message.contains("write 2026-11-21T14:29:59Z, -15m, now or micro"), "{message}");
        }
    }

    #[test]
    fn timestamps_are_milliseconds_or_rfc_3339() {
        assert_eq!(parse_millis("1517363399650"), Ok(1_517_363_399_650));
        assert_eq!(parse_millis("-1"), Ok(-1));
        assert_eq!(parse_millis("2018-01-31T01:49:59.650Z"), Ok(1_517_363_399_650));
        assert!(parse_millis("soon").is_err());
    }

    proptest! {
        #[test]
        fn a_formatted_instant_is_read_back(micros in 0_u64..253_402_300_799_000_000) {
            let time = HybridTime::from_micros(micros);
            prop_assert_eq!(parse(&format(time), NOW).unwrap(), time);
        }

        #[test]
        fn any_text_gives_a_time_or_an_error(text in "\\PC*") {
            let _ = parse(&text, NOW);
            let _ = parse(&format!("-{text}"), NOW);
            let _ = parse_millis(&text);
        }
    }
}
