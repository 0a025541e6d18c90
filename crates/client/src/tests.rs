//! The client against a node that misbehaves on command.

pub(crate) mod fake;

use std::time::Duration;

use duramen_proto::ErrorCode;
use duramen_types::batch::Record;
use duramen_types::{HybridTime, Offset, Producer, StreamName};

use self::fake::{Fault, Node};
use crate::{AppendOptions, AppenderOptions, Client, ConnectOptions, Error, ReadFrom, ReadOptions};

fn stream() -> StreamName {
    StreamName::parse("orders").unwrap()
}

fn record(n: u64) -> Record {
    Record {
        value: Some(n.to_string().into()),
        timestamp: 1000 + i64::try_from(n).unwrap(),
        ..Record::default()
    }
}

async fn client(node: &Node) -> Client {
    let options = ConnectOptions { retry_for: Duration::from_secs(20), ..ConnectOptions::default() };
    Client::connect_with(&node.url(), options).await.unwrap()
}

/// One record a batch, so that faults hit where the test wants them.
fn single(idempotent: bool) -> AppenderOptions {
    AppenderOptions { idempotent, batch_records: 1, ..AppenderOptions::default() }
}

async fn append_all(client: &Client, options: AppenderOptions, count: u64) -> Vec<Result<Offset, Error>> {
    let appender = client.appender(&stream(), options);
    let mut acks = Vec::new();
    for n in 0..count {
        acks.push(appender.append(&record(n)).await.unwrap());
    }
    let mut offsets = Vec::new();
    for ack in acks {
        offsets.push(ack.await.map(|appended| appended.offsets.start));
    }
    appender.close().await;
    offsets
}

fn in_order(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[tokio::test]
async fn records_get_their_offsets_in_the_order_of_the_calls() {
    for idempotent in [true, false] {
        let node = Node::start().await;
        let options = AppenderOptions { idempotent, ..AppenderOptions::default() };
        let offsets = append_all(&client(&node).await, options, 1000).await;
        let offsets: Vec<u64> = offsets.into_iter().map(|offset| offset.unwrap().get()).collect();
        assert_eq!(offsets, in_order(1000));
        assert_eq!(node.values(), in_order(1000));
        assert!(node.batches() < 1000, "records that wait together go together");
    }
}

#[tokio::test]
async fn a_batch_stays_together_and_a_linger_gathers() {
    let node = Node::start().await;
    let client = client(&node).await;
    let options = AppenderOptions { linger: Duration::from_secs(3600), ..AppenderOptions::default() };
    let appender = client.appender(&stream(), options);
    let first = appender.append(&record(0)).await.unwrap();
    let second = appender.append(&record(1)).await.unwrap();
    let batch = appender.append_batch(&[record(2), record(3)]).await.unwrap();
    let last = appender.append(&record(4)).await.unwrap();
    appender.flush().await;
    assert_eq!(first.await.unwrap().offsets, Offset::new(0)..Offset::new(1));
    assert_eq!(second.await.unwrap().offsets, Offset::new(1)..Offset::new(2));
    assert_eq!(batch.await.unwrap().offsets, Offset::new(2)..Offset::new(4));
    assert_eq!(last.await.unwrap().offsets, Offset::new(4)..Offset::new(5));
    assert_eq!((node.values(), node.batches()), (in_order(5), 3));
}

#[tokio::test]
async fn an_idempotent_appender_survives_lost_answers_without_loss_double_or_disorder() {
    use Fault::{ApplyThenBreak, Break, Refuse};
    let node = Node::start().await;
    let unavailable = Refuse(ErrorCode::Unavailable);
    node.fail(&[
        (2, ApplyThenBreak),
        (4, Break),
        (7, unavailable),
        (9, ApplyThenBreak),
        (13, ApplyThenBreak),
    ]);
    let offsets = append_all(&client(&node).await, single(true), 30).await;
    let offsets: Vec<u64> = offsets.into_iter().map(|offset| offset.unwrap().get()).collect();
    assert_eq!(offsets, in_order(30));
    assert_eq!(node.values(), in_order(30));
    assert!(node.sessions() >= 4, "sessions broke");
}

#[tokio::test]
async fn a_record_that_is_refused_for_good_fails_alone() {
    for idempotent in [true, false] {
        let node = Node::start().await;
        node.fail(&[(3, Fault::Refuse(ErrorCode::BatchTooLarge))]);
        let offsets = append_all(&client(&node).await, single(idempotent), 10).await;
        let failed: Vec<_> = offsets.iter().enumerate().filter(|(_, offset)| offset.is_err()).collect();
        assert_eq!(failed.len(), 1);
        let error = failed[0].1.as_ref().unwrap_err();
        assert_eq!(
            (failed[0].0, error.code(), error.may_have_had_effect()),
            (3, ErrorCode::BatchTooLarge, false)
        );
        let expected: Vec<u64> = (0..10).filter(|n| *n != 3).collect();
        assert_eq!(node.values(), expected);
    }
}

#[tokio::test]
async fn without_idempotence_a_lost_answer_is_an_unknown_outcome_and_is_not_repeated() {
    let node = Node::start().await;
    node.fail(&[(0, Fault::ApplyThenBreak)]);
    let client = client(&node).await;
    let appender = client.appender(&stream(), single(false));
    let error = appender.append(&record(0)).await.unwrap().await.unwrap_err();
    assert_eq!((error.code(), error.may_have_had_effect()), (ErrorCode::UnknownOutcome, true));
    let next = appender.append(&record(1)).await.unwrap().await.unwrap();
    assert_eq!(next.offsets.start, Offset::new(1), "the appender goes on");
    assert_eq!(node.values(), in_order(2));
}

#[tokio::test]
async fn a_unary_append_is_repeated_only_where_it_is_safe() {
    let node = Node::start().await;
    let client = client(&node).await;
    let plain = AppendOptions::default();
    node.fail(&[(0, Fault::Refuse(ErrorCode::Unavailable)), (2, Fault::ApplyThenBreak)]);
    let appended = client.append(&stream(), &[record(0)], &plain).await.unwrap();
    assert_eq!(appended.offsets, Offset::ZERO..Offset::new(1), "refused without effect, so repeated");
    let error = client.append(&stream(), &[record(1)], &plain).await.unwrap_err();
    assert!(error.may_have_had_effect(), "{error}");
    assert_eq!(node.values(), in_order(2), "appended once, not repeated");

    let id = client.allocate_producer().await.unwrap();
    let stamped =
        AppendOptions { producer: Some(Producer { id, epoch: 0, sequence: 0 }), ..AppendOptions::default() };
    node.fail(&[(0, Fault::ApplyThenBreak)]);
    let appended = client.append(&stream(), &[record(2)], &stamped).await.unwrap();
    assert_eq!((appended.offsets.start, appended.duplicate), (Offset::new(2), true));
    assert_eq!(node.values(), in_order(3));
}

#[tokio::test]
async fn no_node_is_an_error_that_had_no_effect() {
    let node = Node::start().await;
    let options = ConnectOptions { retry_for: Duration::ZERO, ..ConnectOptions::default() };
    let url = node.url();
    let client = Client::connect_with(&url, options.clone()).await.unwrap();
    client.append(&stream(), &[record(0)], &AppendOptions::default()).await.unwrap();
    node.stop().await;
    let error = Client::connect_with(&url, options).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    // The first call may meet the old connection as it closes; from then on there is none.
    let _ = client.describe_stream(&stream()).await;
    let appender = client.appender(&stream(), single(false));
    let error = appender.append(&record(1)).await.unwrap().await.unwrap_err();
    assert!(!error.may_have_had_effect(), "{error:?}");
    assert!(
        Client::connect("https://127.0.0.1:1").await.unwrap_err().to_string().contains("http://HOST:PORT")
    );
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_before_it_is_sent() {
    let node = Node::start().await;
    let client = client(&node).await;
    let appender = client.appender(&stream(), AppenderOptions::default());
    let small = appender.append(&record(0)).await.unwrap();
    let large = Record { value: Some(vec![0; 2 << 20].into()), ..Record::default() };
    assert_eq!(appender.append(&large).await.unwrap_err().code(), ErrorCode::RecordTooLarge);
    assert_eq!(appender.append_batch(&[]).await.unwrap_err().code(), ErrorCode::EmptyBatch);
    assert_eq!(small.await.unwrap().offsets.start, Offset::ZERO);
}

#[tokio::test]
async fn a_full_buffer_holds_its_callers_back_until_there_are_answers() {
    let node = Node::start().await;
    let client = client(&node).await;
    let options = AppenderOptions { buffer_bytes: 1000, ..single(true) };
    let appender = client.appender(&stream(), options);
    node.hold();
    let mut acks = Vec::new();
    for n in 0..7 {
        // 128 bytes of overhead and one of value each: seven fit 1,000 bytes.
        acks.push(appender.append(&record(n)).await.unwrap());
    }
    let eighth = record(7);
    let mut held = Box::pin(appender.append(&eighth));
    assert!(futures::poll!(&mut held).is_pending(), "the buffer is full");
    node.release();
    acks.push(held.await.unwrap());
    for ack in acks {
        ack.await.unwrap();
    }
    assert_eq!(node.values(), in_order(8));
}

async fn read(client: &Client, options: ReadOptions) -> Vec<u64> {
    let mut reader = client.reader(&stream(), options);
    let mut values = Vec::new();
    while let Some(read) = reader.next().await.unwrap() {
        assert_eq!(reader.position(), Some(read.offset.next()));
        values.push(fake::value(&read.record));
    }
    values
}

/// A node with 20 records in batches of 3.
async fn filled() -> (Node, Client) {
    let node = Node::start().await;
    let client = client(&node).await;
    let records: Vec<Record> = (0..20).map(record).collect();
    for batch in records.chunks(3) {
        client.append(&stream(), batch, &AppendOptions::default()).await.unwrap();
    }
    (node, client)
}

#[tokio::test]
async fn a_read_gives_exactly_what_was_asked_for() {
    let (_node, client) = filled().await;
    let from = |offset| ReadOptions { from: ReadFrom::Offset(Offset::new(offset)), ..ReadOptions::default() };
    assert_eq!(read(&client, ReadOptions::default()).await, in_order(20));
    assert_eq!(read(&client, from(4)).await, (4..20).collect::<Vec<_>>());
    let limited = ReadOptions { limit_records: Some(5), ..from(4) };
    assert_eq!(read(&client, limited).await, (4..9).collect::<Vec<_>>());
    let bytes = ReadOptions { limit_bytes: Some(1), ..from(4) };
    assert_eq!(read(&client, bytes).await, vec![4, 5], "one batch at least");
    let by_time = ReadOptions { from: ReadFrom::Timestamp(1010), ..ReadOptions::default() };
    assert_eq!(read(&client, by_time).await, (10..20).collect::<Vec<_>>());
    let tail = ReadOptions { from: ReadFrom::Tail, ..ReadOptions::default() };
    assert_eq!(read(&client, tail).await, Vec::<u64>::new());
    let beyond = client.reader(&stream(), from(21)).next().await.unwrap_err();
    assert_eq!((beyond.code(), beyond.tail()), (ErrorCode::OutOfRange, Some(Offset::new(20))));
}

#[tokio::test]
async fn a_read_goes_on_where_the_connection_broke() {
    for limit in [None, Some(11)] {
        let (node, client) = filled().await;
        node.break_reads(&[0, 1, 2, 2, 1]);
        let from = ReadFrom::Offset(Offset::new(1));
        let options = ReadOptions { from, limit_records: limit, ..ReadOptions::default() };
        let expected: Vec<u64> = (1..limit.map_or(20, |limit| limit + 1)).collect();
        assert_eq!(read(&client, options).await, expected);
        assert!(node.reads() >= 4, "the reads broke");
    }
}

#[tokio::test]
async fn a_follower_sees_what_is_appended_later_across_broken_connections() {
    let (node, client) = filled().await;
    let options = ReadOptions { from: ReadFrom::Tail, follow: true, ..ReadOptions::default() };
    let mut follower = client.reader(&stream(), options);
    assert_eq!(follower.start().await.unwrap(), Offset::new(20));
    node.break_reads(&[0, 1, 0, 1]);
    for n in 20..30 {
        client.append(&stream(), &[record(n)], &AppendOptions::default()).await.unwrap();
        if n % 3 == 0 {
            node.cut_reads();
        }
        let read = follower.next().await.unwrap().unwrap();
        assert_eq!((read.offset.get(), fake::value(&read.record)), (n, n));
    }
}

#[tokio::test]
async fn a_batch_that_was_altered_on_the_way_is_refused() {
    let (node, client) = filled().await;
    node.corrupt();
    let error = client.reader(&stream(), ReadOptions::default()).next().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corruption);
}

#[tokio::test]
async fn the_highest_time_seen_is_passed_on() {
    let (node, client) = filled().await;
    let appended = client.append(&stream(), &[record(20)], &AppendOptions::default()).await.unwrap();
    assert_eq!(client.seen(), appended.time);
    let other = client.with_tenant("other".parse().unwrap());
    other.note_seen(HybridTime::from_micros(9_000_000));
    let _ = client.describe_stream(&stream()).await;
    assert_eq!(node.highest_seen(), 9_000_000, "clones share what they have seen");
    read(&client, ReadOptions::default()).await;
    assert!(client.seen() >= HybridTime::from_micros(9_000_000));
}
