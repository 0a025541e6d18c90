use proptest::prelude::*;

use super::*;

fn time() -> impl Strategy<Value = HybridTime> {
    prop_oneof![8 => any::<u64>(), 2 => 0_u64..3, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
        .prop_map(HybridTime::from_micros)
}

proptest! {
    #[test]
    fn a_stamp_is_the_smallest_time_that_keeps_every_order(clock in time(), last in time(), seen in time()) {
        let stamp = HybridTime::stamp(clock, last, seen);
        prop_assert!(stamp >= clock);
        for earlier in [last, seen] {
            prop_assert!(stamp > earlier || earlier == HybridTime::MAX);
        }
        prop_assert!([clock, last.next(), seen.next()].contains(&stamp), "no later than it must be");
        prop_assert!(stamp > HybridTime::ZERO, "a timed entry never has time zero");
    }

    #[test]
    fn a_stamp_never_runs_backwards_with_its_clock(clocks in proptest::collection::vec(time(), 1..20), seen in 0..u64::MAX / 2) {
        let mut last = HybridTime::ZERO;
        for clock in clocks.into_iter().filter(|clock| clock.as_micros() < u64::MAX / 2) {
            let stamp = HybridTime::stamp(clock, last, HybridTime::from_micros(seen));
            prop_assert!(stamp > last);
            last = stamp;
        }
    }

    #[test]
    fn moving_a_time_saturates(from in time(), by in any::<u64>()) {
        let duration = Duration::from_micros(by);
        prop_assert_eq!(from.after(duration).as_micros(), from.as_micros().saturating_add(by));
        prop_assert_eq!(from.before(duration).as_micros(), from.as_micros().saturating_sub(by));
        prop_assert_eq!(from.after(duration).since(from) <= duration, true);
        prop_assert_eq!(from.since(from.after(duration)), Duration::ZERO);
        prop_assert_eq!(from.after(Duration::MAX), HybridTime::MAX);
        prop_assert_eq!(from.before(Duration::MAX), HybridTime::ZERO);
    }
}

#[test]
fn the_machines_clocks_give_this_century_and_do_not_run_backwards() {
    let clock = SystemClock::new();
    let (one, other) = (clock.monotonic(), clock.monotonic());
    assert!(one <= other);
    assert!(clock.now() > HybridTime::from_micros(1_700_000_000_000_000));
}
