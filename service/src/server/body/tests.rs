use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use super::*;

const GRACE: Duration = Duration::from_secs(10);

type Pieces = mpsc::Sender<Bytes>;

/// A body whose pieces come when the test sends them.
fn body(
    is_grpc: bool,
    receiving: &Receiving,
) -> (Pieces, Pin<Box<Received<impl Body<Data = Bytes, Error = std::io::Error> + Unpin>>>) {
    let (pieces, incoming) = mpsc::channel(100);
    let incoming = stream::unfold(incoming, async |mut incoming| Some((incoming.recv().await?, incoming)));
    let incoming = incoming.map(|piece| Ok(Frame::data(piece))).boxed();
    (pieces, Box::pin(Received::new(StreamBody::new(incoming), is_grpc, receiving.clone())))
}

fn receiving(bytes: usize) -> Receiving {
    Receiving::new(bytes, GRACE, Arc::new(Metrics::new()))
}

fn message(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap().to_be_bytes();
    [&[0], &length[..], &vec![7; bytes]].concat()
}

#[tokio::test(start_paused = true)]
async fn messages_in_any_pieces_pass_as_they_are_and_give_their_room_back() {
    let receiving = receiving(5000);
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let count = random.random_range(1..6);
        let sent: Vec<u8> = (0..count).flat_map(|_| message(random.random_range(0..3000))).collect();
        let (pieces, mut body) = body(true, &receiving);
        let (mut got, mut rest) = (Vec::new(), &sent[..]);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(random.random_range(1..=rest.len().min(700)));
            rest = more;
            pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
            got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(got, sent);
        assert_eq!((body.partial, receiving.budget.available_permits()), (0, 5000), "all are complete");
        drop(pieces);
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_silent_between_messages_and_not_within_one() {
    let receiving = receiving(5000);
    let (pieces, mut body) = body(true, &receiving);
    for _ in 0..2 {
        assert!(tokio::time::timeout(100 * GRACE, body.frame()).await.is_err(), "it waits for a message");
        pieces.send(message(100).into()).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
    }
    pieces.send(message(100)[..50].to_vec().into()).await.unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(receiving.budget.available_permits(), 5000 - 50);
    let began = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    let status = error.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(began.elapsed() >= GRACE && receiving.budget.available_permits() == 5000);
}

/// What a proxy makes of a stream of messages: each piece has the end of one and the beginning of the next.
#[tokio::test(start_paused = true)]
async fn each_message_has_its_own_time_and_room_however_they_are_cut_into_pieces() {
    let receiving = receiving(5000);
    let (pieces, mut body) = body(true, &receiving);
    tokio::spawn(async move {
        let mut rest = message(1000);
        for _ in 0..100 {
            let next = message(1000);
            rest.extend_from_slice(&next[..7]);
            if pieces.send(rest.clone().into()).await.is_err() {
                return;
            }
            rest = next[7..].to_vec();
            tokio::time::sleep(GRACE / 3).await;
        }
    });
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.expect("every message is in time").into_data().unwrap().len();
        if received < 100 * 1005 {
            assert_eq!(receiving.budget.available_permits(), 5000 - 7, "only the last one is not complete");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_cut_off() {
    let receiving = receiving(1 << 20);
    let (pieces, mut body) = body(false, &receiving);
    // Each is in time by itself.
    tokio::spawn(async move {
        while pieces.send(Bytes::from_static(b"a drop")).await.is_ok() {
            tokio::time::sleep(GRACE / 3).await;
        }
    });
    let began = Instant::now();
    let error = loop {
        if let Err(error) = body.frame().await.unwrap() {
            break error;
        }
        assert!(began.elapsed() < 3 * GRACE, "it is still received");
    };
    assert_eq!(Cut::of(&*error), Some(Cut::TooSlow));
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_waits_for_it_and_not_for_ever() {
    let receiving = receiving(1000);
    let (first, mut holder) = body(false, &receiving);
    first.send(vec![1; 900].into()).await.unwrap();
    assert!(holder.frame().await.unwrap().is_ok());
    // Room comes when the other's request ends.
    let (second, mut waiter) = body(false, &receiving);
    second.send(vec![2; 200].into()).await.unwrap();
    assert!(tokio::time::timeout(GRACE / 2, waiter.frame()).await.is_err());
    drop(holder);
    assert!(waiter.frame().await.unwrap().is_ok());
    // And does not come.
    let (third, mut refused) = body(true, &receiving);
    third.send(message(2000)[..900].to_vec().into()).await.unwrap();
    let error = refused.frame().await.unwrap().unwrap_err();
    let status = error.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    // One that is larger than everything takes everything.
    drop(waiter);
    let (fourth, mut large) = body(false, &receiving);
    fourth.send(vec![4; 5000].into()).await.unwrap();
    assert!(large.frame().await.unwrap().is_ok());
    assert_eq!(receiving.budget.available_permits(), 0);
}
