//! Counts as people read them.

use std::fmt::Display;

/// A number and what it counts, given as one of it: "1 record", "2 records", "0 entries".
pub fn counted(count: impl Display, one: &str) -> String {
    let count = count.to_string();
    if count == "1" {
        return format!("1 {one}");
    }
    match one.strip_suffix('y') {
        Some(stem) => format!("{count} {stem}ies"),
        None if one.ends_with("ch") => format!("{count} {one}es"),
        None => format!("{count} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_not_many_and_none_is() {
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0_u64, "record"), "0 records");
        assert_eq!(counted(21_usize, "entry"), "21 entries");
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(2, "batch"), "2 batches");
    }
}
