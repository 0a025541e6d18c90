use proptest::prelude::*;

use super::*;

#[test]
fn names_outside_their_rule_are_refused_with_the_rule() {
    for (name, part) in [
        ("", "is empty"),
        ("a/b", "contains '/'"),
        ("a~b", "belongs to the system"),
        ("a\0b", "contains '\\0'"),
        ("a b", "contains ' '"),
        ("..", "is reserved"),
        ("ä", "contains 'ä'"),
    ] {
        let message = StreamName::parse(name).unwrap_err().to_string();
        assert!(message.contains(part), "{name:?} gave {message}");
    }
    assert!(StreamName::parse(&"x".repeat(250)).unwrap_err().to_string().contains("limit is 249"));
    assert!(StreamName::parse(&"x".repeat(249)).is_ok());
    assert!(StreamName::parse("...").is_ok());
    assert!(TenantName::parse("Default").is_err());
    assert!(TenantName::parse(&"x".repeat(64)).is_err());
    assert!(CursorName::parse("späße und mehr").is_ok());
    assert!(CursorName::parse("a\nb").is_err());
    assert!(CursorName::parse(&"ä".repeat(128)).unwrap_err().to_string().contains("256 bytes long"));
    assert!(FencingToken::parse(&"x".repeat(65)).is_err());
    assert!(BranchName::parse("holds").is_err());
    assert!(BranchName::parse("hold").is_ok());
}

#[test]
fn a_system_name_is_a_users_name_and_a_known_suffix() {
    for name in ["a~rescued", "a~0", "a~4294967295", "a~17~rescued", "...~3"] {
        let parsed = StreamName::parse(name).unwrap();
        assert!(parsed.is_system(), "{name}");
        assert_eq!(parsed.as_str(), name);
    }
    for name in [
        "~rescued",
        "~0",
        "a~",
        "~",
        "a~~1",
        "a~b",
        "a~Rescued",
        "a~rescued~rescued",
        "a~rescued~1",
        "a~01",
        "a~+1",
        "a~4294967296",
        "a~1~2",
        "a~1~",
        "..~rescued",
        "a/b~rescued",
        "a~rescued ",
    ] {
        assert!(StreamName::parse(name).is_err(), "{name}");
    }
    let longest = format!("{}~4294967295~rescued", "x".repeat(249));
    assert!(StreamName::parse(&longest).is_ok());
    assert!(StreamName::parse(&format!("x{longest}")).is_err());
    assert!(!StreamName::parse("rescued").unwrap().is_system());
    assert!(RestorePointName::parse("a~rescued").is_err());
}

#[test]
fn what_is_rescued_of_a_stream_goes_to_one_other_stream_in_its_shard() {
    let tenant = TenantName::parse("default").unwrap();
    for name in ["a", "orders", "orders~7"] {
        let stream = StreamName::parse(name).unwrap();
        let rescued = stream.rescued().unwrap();
        assert_eq!(rescued.as_str(), format!("{name}~rescued"));
        assert_eq!(StreamName::parse(rescued.as_str()).as_ref(), Ok(&rescued));
        assert_eq!(rescued.rescued(), None, "it is not rescued into yet another one");
        for shards in [1, 8, 256] {
            assert_eq!(shard_of(&tenant, &rescued, shards), shard_of(&tenant, &stream, shards));
        }
    }
    let partition = |name| shard_of(&tenant, &StreamName::parse(name).unwrap(), 256).get();
    assert_eq!(
        [partition("orders~0"), partition("orders~1")],
        [225, 187],
        "partitions have shards of their own"
    );
}

#[test]
fn an_error_shows_the_beginning_of_a_long_name() {
    let message = StreamName::parse(&"ä".repeat(1 << 20)).unwrap_err().to_string();
    assert!(message.len() < 300, "{} bytes", message.len());
    assert!(message.contains("2097152 bytes long"), "{message}");
}

#[test]
fn a_stream_keeps_its_shard() {
    let shard = |tenant: &str, name: &str, shards| {
        shard_of(&TenantName::parse(tenant).unwrap(), &StreamName::parse(name).unwrap(), shards).get()
    };
    // Fixed for ever: with other values, the streams of every existing cluster could no longer be found.
    for (tenant, name, of_8, of_256) in [
        ("default", "ci", 1, 9),
        ("default", "us", 2, 202),
        ("default", "orders", 3, 11),
        ("default", "a", 5, 61),
        ("other", "a", 4, 172),
        ("other", "aa", 6, 54),
        ("othera", "a", 4, 252),
    ] {
        assert_eq!((shard(tenant, name, 8), shard(tenant, name, 256)), (of_8, of_256), "{tenant}/{name}");
        assert_eq!(shard(tenant, name, 1), 1);
    }
}

#[test]
fn streams_spread_evenly_over_the_shards() {
    let tenant = TenantName::parse("default").unwrap();
    let mut streams = [0_u32; 8];
    for number in 0..8000 {
        let name = StreamName::parse(&format!("stream-{number}")).unwrap();
        streams[usize::from(shard_of(&tenant, &name, 8).get()) - 1] += 1;
    }
    assert!(streams.iter().all(|count| (850..1150).contains(count)), "{streams:?}");
}

fn assert_round_trips<T>(text: &str, parse: fn(&str) -> Result<T, NameError>)
where
    T: Clone
        + PartialEq
        + fmt::Debug
        + fmt::Display
        + FromStr<Err = NameError>
        + TryFrom<String>
        + Into<String>,
{
    let Ok(name) = parse(text) else {
        assert!(T::try_from(text.to_owned()).is_err() && text.parse::<T>().is_err());
        return;
    };
    assert_eq!(name.to_string(), text);
    assert_eq!(text.parse().as_ref(), Ok(&name));
    assert_eq!(T::try_from(text.to_owned()).ok().as_ref(), Some(&name));
    assert_eq!(name.into(), text);
}

proptest! {
    #[test]
    fn any_text_is_a_name_as_it_stands_or_an_error(text in "\\PC{0,300}|[a-z0-9-]{0,70}|[A-Za-z._~/-]{0,6}|.{0,8}") {
        assert_round_trips(&text, TenantName::parse);
        assert_round_trips(&text, BranchName::parse);
        assert_round_trips(&text, StreamName::parse);
        assert_round_trips(&text, RestorePointName::parse);
        assert_round_trips(&text, CursorName::parse);
        assert_round_trips(&text, FencingToken::parse);
    }

    #[test]
    fn names_of_one_kind_keep_the_rule_of_design(text in "[a-z0-9-]{1,63}|[A-Z~ ./_a-z]{1,4}|[a.]{0,2}~[0-9+]{0,3}|\\PC{1,3}") {
        let tenant = text.len() <= 63 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        prop_assert_eq!(TenantName::parse(&text).is_ok(), tenant);
        let user = |name: &str| {
            let bytes = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            bytes && !name.is_empty() && name != "." && name != ".."
        };
        let stream = match text.split_once('~') {
            None => user(&text),
            // A partition of a topic, which is the system's.
            Some((topic, number)) => {
                user(topic) && number.parse::<u32>().is_ok_and(|n| n.to_string() == number)
            }
        };
        prop_assert_eq!(StreamName::parse(&text).is_ok(), stream);
        prop_assert!(CursorName::parse(&text).is_ok());
    }

    #[test]
    fn names_are_ordered_and_looked_up_like_their_text(one in "[a-z.-]{1,4}x", other in "[a-z.-]{1,4}x") {
        let (a, b) = (StreamName::parse(&one).unwrap(), StreamName::parse(&other).unwrap());
        prop_assert_eq!(a.cmp(&b), one.cmp(&other));
        let set = std::collections::BTreeSet::from([a]);
        prop_assert_eq!(set.contains(other.as_str()), one == other);
    }

    #[test]
    fn a_shard_is_one_of_the_data_shards(name in "[a-z]{1,20}", shards in 1_u16..=256) {
        let shard = shard_of(&TenantName::parse("default").unwrap(), &StreamName::parse(&name).unwrap(), shards);
        prop_assert!((1..=shards).contains(&shard.get()));
    }
}
