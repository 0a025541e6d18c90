//! The pipeline's rules against a stream that forgets answers, refuses, and appends copies late.

use std::collections::VecDeque;
use std::time::Duration;

use duramen_proto::v1;
use duramen_types::ProducerId;
use duramen_types::batch::{self, BatchBuilder, Codec, Limits, Record};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::buffer::{Collected, Waiter};
use super::pipeline::{Done, Pipeline};
use crate::tests::fake::FakeLog;
use crate::{Appended, Error, ErrorCode};

/// What happens next on the wire.
#[derive(Debug, Clone, Copy)]
enum Event {
    Answer,
    /// Refused without effect, worth repeating.
    Busy,
    /// Refused without effect, for good.
    Refused,
    /// A time-out: appended, or not, or later.
    TimedOut {
        appended: bool,
    },
    /// The session breaks; this many of what was sent are appended at once, the rest later or never.
    Broken {
        appended: usize,
    },
    /// The oldest copy that is still on its way arrives.
    Late,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Answer),
        1 => Just(Event::Busy),
        1 => Just(Event::Refused),
        1 => any::<bool>().prop_map(|appended| Event::TimedOut { appended }),
        2 => (0_usize..5).prop_map(|appended| Event::Broken { appended }),
        2 => Just(Event::Late),
    ]
}

struct World {
    pipeline: Pipeline,
    log: FakeLog,
    wire: VecDeque<(u64, bytes::Bytes)>,
    late: VecDeque<bytes::Bytes>,
    allocated: u64,
}

type Fate = oneshot::Receiver<Result<Appended, Error>>;

impl World {
    fn new(idempotent: bool, max_in_flight: usize, count: u64) -> (Self, Vec<Fate>) {
        let mut pipeline = Pipeline::new(idempotent, Codec::None, max_in_flight, Duration::from_secs(3600));
        let mut fates = Vec::new();
        for n in 0..count {
            let mut records = BatchBuilder::new(Limits::default());
            let record = Record { value: Some(n.to_string().into()), ..Record::default() };
            records.push_record(&record).unwrap();
            let (sender, fate) = oneshot::channel();
            fates.push(fate);
            let waiters = vec![Waiter::new(0, 1, sender)];
            pipeline.push(Collected { number: n + 1, records, waiters, room: None });
        }
        let (log, wire, late) = (FakeLog::default(), VecDeque::new(), VecDeque::new());
        (Self { pipeline, log, wire, late, allocated: 0 }, fates)
    }

    fn tell(done: impl IntoIterator<Item = Done>) {
        done.into_iter().for_each(Done::tell);
    }

    fn apply(&mut self, batch: bytes::Bytes) -> Result<Appended, Error> {
        let batch = batch::validate(batch, &Limits::default()).unwrap();
        let appended = self.log.append(batch);
        let ack = |(first_offset, next_offset, duplicate)| v1::AppendAck {
            first_offset,
            next_offset,
            duplicate,
            ..v1::AppendAck::default()
        };
        appended.map(|appended| ack(appended).into()).map_err(Error::from_node)
    }

    fn answer(&mut self, number: u64, result: Result<Appended, Error>) {
        Self::tell(self.pipeline.answered(number, result, Duration::ZERO).expect("answers come in order"));
    }

    fn step(&mut self, event: Event) {
        if self.pipeline.needs_producer() {
            self.allocated += 1;
            self.pipeline.set_producer(ProducerId::new(self.allocated));
        }
        if let Some((_, failed)) = self.pipeline.resume() {
            Self::tell(failed);
        }
        while let Some(sent) = self.pipeline.send(Duration::ZERO) {
            match sent {
                Ok(sent) => self.wire.push_back(sent),
                Err(failed) => Self::tell([failed]),
            }
        }
        let code = |code| Err(Error::from_node(v1::Error::from_code(code, "by the test")));
        if let Event::Late = event {
            if let Some(copy) = self.late.pop_front() {
                let _ = self.apply(copy);
            }
            return;
        }
        if let Event::Broken { appended } = event {
            let wire = std::mem::take(&mut self.wire);
            for (at, (_, batch)) in wire.into_iter().enumerate() {
                if at < appended {
                    let _ = self.apply(batch);
                } else {
                    self.late.push_back(batch);
                }
            }
            Self::tell(self.pipeline.disconnected(true, "broken by the test"));
            return;
        }
        let Some((number, batch)) = self.wire.pop_front() else { return };
        let result = match event {
            Event::Busy => code(ErrorCode::ResourceExhausted),
            Event::Refused => code(ErrorCode::BatchTooLarge),
            Event::TimedOut { appended } => {
                if appended {
                    let _ = self.apply(batch);
                } else {
                    self.late.push_back(batch);
                }
                code(ErrorCode::UnknownOutcome)
            }
            Event::Answer | Event::Broken { .. } | Event::Late => self.apply(batch),
        };
        self.answer(number, result);
    }
}

/// Runs the events, then lets everything succeed; gives what is in the log and what each batch was told.
fn run(idempotent: bool, max: usize, events: &[Event]) -> (Vec<u64>, Vec<Result<Appended, Error>>) {
    const COUNT: u64 = 20;
    let (mut world, fates) = World::new(idempotent, max, COUNT);
    for event in events {
        world.step(*event);
    }
    let mut steps = 0;
    while !world.pipeline.is_empty() {
        world.step(Event::Answer);
        steps += 1;
        assert!(steps < 1000, "it must come to an end; the oldest is {:?}", world.pipeline.oldest());
    }
    while !world.late.is_empty() {
        world.step(Event::Late);
    }
    let fates = fates.into_iter().map(|mut fate| fate.try_recv().expect("every batch is told its fate"));
    (world.log.values(), fates.collect())
}

fn check(values: &[u64], fates: &[Result<Appended, Error>]) -> Result<(), TestCaseError> {
    for (n, fate) in (0_u64..).zip(fates) {
        let at: Vec<usize> = (0..values.len()).filter(|at| values[*at] == n).collect();
        prop_assert!(at.len() <= 1, "{} is there {} times in {:?}", n, at.len(), values);
        match fate {
            Ok(appended) => {
                let offset = usize::try_from(appended.offsets.start.get()).unwrap();
                prop_assert_eq!(at, vec![offset], "{} was acknowledged", n);
            }
            Err(error) if !error.may_have_had_effect() => {
                prop_assert!(at.is_empty(), "{} had no effect, it was said: {}", n, error);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn idempotent_batches_are_appended_at_most_once_and_in_order(
        max in 1_usize..8,
        events in proptest::collection::vec(event(), 0..80),
    ) {
        let (values, fates) = run(true, max, &events);
        check(&values, &fates)?;
        prop_assert!(values.is_sorted(), "out of order: {:?}", values);
    }

    #[test]
    fn batches_without_a_stamp_are_never_sent_where_they_might_be_there_already(
        max in 1_usize..8,
        events in proptest::collection::vec(event(), 0..80),
    ) {
        let (values, fates) = run(false, max, &events);
        check(&values, &fates)?;
    }
}

#[test]
fn without_final_refusals_every_idempotent_batch_is_appended() {
    use Event::{Answer, Broken, Busy, Late, TimedOut};
    let events = [
        Answer,
        Broken { appended: 2 },
        Answer,
        Busy,
        Broken { appended: 0 },
        TimedOut { appended: true },
        Late,
    ];
    let (values, fates) = run(true, 5, &events.repeat(5));
    assert!(fates.iter().all(Result::is_ok), "{fates:?}");
    assert_eq!(values, (0..20).collect::<Vec<u64>>());
}

#[test]
fn giving_up_tells_what_was_sent_from_what_was_not() {
    let (mut world, mut fates) = World::new(true, 2, 4);
    world.step(Event::Broken { appended: 1 });
    let error = Error::Unreachable { endpoint: "http://x".into(), reason: "refused".into() };
    World::tell(world.pipeline.give_up(&error));
    let told: Vec<bool> =
        fates.iter_mut().map(|fate| fate.try_recv().unwrap().unwrap_err().may_have_had_effect()).collect();
    assert_eq!(told, [true, true, false, false]);
    assert!(world.pipeline.is_empty());
    assert_eq!(world.log.tail, 1);
}
