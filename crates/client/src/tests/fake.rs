//! A node in memory, with one stream, that breaks connections and refuses appends on command.

#![expect(clippy::result_large_err, reason = "the error is the message that a node sends")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use duramen_proto::v1::{self, log_server};
use duramen_proto::{ErrorCode, SEEN_HEADER, TIME_HEADER, status_of};
use duramen_types::batch::{self, Batch, Limits, Record};
use duramen_types::{Offset, Producer};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What happens to an append.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Refused, with this code's usual flags.
    Refuse(ErrorCode),
    /// Appended, and the connection breaks before the answer.
    ApplyThenBreak,
    /// The connection breaks first.
    Break,
}

/// Sequence, count and first offset of a batch.
type Remembered = (u32, u32, u64);

/// The stream, as the state machine keeps it.
#[derive(Debug, Default)]
pub struct FakeLog {
    pub batches: Vec<(u64, Batch)>,
    pub tail: u64,
    producers: HashMap<u64, (u16, VecDeque<Remembered>)>,
}

impl FakeLog {
    /// Appends, or answers a repeated batch as before; the first offset, the next, and whether it was a repetition.
    pub fn append(&mut self, batch: Batch) -> Result<(u64, u64, bool), v1::Error> {
        let count = batch.count();
        if let Some(Producer { id, epoch, sequence }) = batch.producer() {
            let refuse = |code| Err(v1::Error::from_code(code, "refused"));
            let known = self.producers.get(&id.get());
            let expected = match known {
                None if sequence != 0 => return refuse(ErrorCode::UnknownProducer),
                Some((current, _)) if epoch < *current => return refuse(ErrorCode::ProducerFenced),
                Some((current, batches)) if epoch == *current => {
                    if let Some(same) = batches.iter().find(|same| (same.0, same.1) == (sequence, count)) {
                        return Ok((same.2, same.2 + u64::from(count), true));
                    }
                    batches.back().map_or(0, |last| last.0 + last.1)
                }
                _ => 0,
            };
            if sequence != expected {
                return refuse(ErrorCode::OutOfOrderSequence);
            }
            let state = self.producers.entry(id.get()).or_insert((epoch, VecDeque::new()));
            if state.0 != epoch {
                *state = (epoch, VecDeque::new());
            }
            state.1.push_back((sequence, count, self.tail));
            if state.1.len() > 5 {
                state.1.pop_front();
            }
        }
        let first = self.tail;
        self.tail += u64::from(count);
        self.batches.push((first, batch));
        Ok((first, self.tail, false))
    }

    pub fn values(&self) -> Vec<u64> {
        let mut values = Vec::new();
        for (first, batch) in &self.batches {
            for record in &batch.records(Offset::new(*first)).unwrap() {
                values.push(value(&record.unwrap().to_record()));
            }
        }
        values
    }
}

/// The number that the tests put into a record.
pub fn value(record: &Record) -> u64 {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

#[derive(Debug, Default)]
struct State {
    log: FakeLog,
    /// By how many appends are still to come before it.
    faults: BTreeMap<u64, Fault>,
    appends: u64,
    producers: u64,
    sessions: u64,
    reads: u64,
    read_breaks: VecDeque<usize>,
    seen: u64,
    corrupt: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    tail: watch::Sender<u64>,
    held: watch::Sender<bool>,
    cut: watch::Sender<u64>,
}

#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Node {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            tail: watch::Sender::new(0),
            held: watch::Sender::new(false),
            cut: watch::Sender::new(0),
        });
        let service = log_server::LogServer::new(Service(Arc::clone(&shared)));
        let (stop, stopped) = oneshot::channel::<()>();
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tokio::spawn(async move {
            let serve = tonic::transport::Server::builder().add_service(service);
            let stopped = async {
                let _ = stopped.await;
            };
            serve.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Self { address, shared, stop: Some(stop), server: Some(server) }
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.server.take().unwrap().await.unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Faults by the number of the append from now on.
    pub fn fail(&self, faults: &[(u64, Fault)]) {
        let mut state = self.shared.state.lock();
        let now = state.appends;
        state.faults = faults.iter().map(|(at, fault)| (now + at, *fault)).collect();
    }

    /// Breaks the next reads after so many responses each.
    pub fn break_reads(&self, after: &[usize]) {
        self.shared.state.lock().read_breaks = after.iter().copied().collect();
    }

    /// Breaks the reads that are under way.
    pub fn cut_reads(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    pub fn corrupt(&self) {
        self.shared.state.lock().corrupt = true;
    }

    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    pub fn values(&self) -> Vec<u64> {
        self.shared.state.lock().log.values()
    }

    pub fn batches(&self) -> usize {
        self.shared.state.lock().log.batches.len()
    }

    pub fn sessions(&self) -> u64 {
        self.shared.state.lock().sessions
    }

    pub fn reads(&self) -> u64 {
        self.shared.state.lock().reads
    }

    pub fn highest_seen(&self) -> u64 {
        self.shared.state.lock().seen
    }
}

/// The answer to an append; `Err(None)` breaks the connection.
type Outcome = Result<v1::AppendAck, Option<v1::Error>>;

impl Shared {
    async fn append(&self, request: v1::AppendRequest) -> Outcome {
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let mut state = self.state.lock();
        state.seen = state.seen.max(request.seen);
        let number = state.appends;
        state.appends += 1;
        let fault = state.faults.remove(&number);
        match fault {
            Some(Fault::Refuse(code)) => return Err(Some(v1::Error::from_code(code, "refused by the test"))),
            Some(Fault::Break) => return Err(None),
            Some(Fault::ApplyThenBreak) | None => {}
        }
        let Some(v1::append_request::Payload::EncodedBatch(bytes)) = request.payload else {
            panic!("the client sends encoded batches");
        };
        let batch = batch::validate(bytes, &Limits::default()).unwrap();
        let appended = state.log.append(batch);
        self.tail.send_replace(state.log.tail);
        if fault.is_some() {
            return Err(None);
        }
        let (first_offset, next_offset, duplicate) = appended.map_err(Some)?;
        let time = state.time();
        Ok(v1::AppendAck { first_offset, next_offset, time, provisional: false, term: 1, duplicate })
    }

    fn note(&self, metadata: &tonic::metadata::MetadataMap) {
        if let Some(seen) = metadata.get(SEEN_HEADER) {
            let seen = seen.to_str().unwrap().parse().unwrap();
            let mut state = self.state.lock();
            state.seen = state.seen.max(seen);
        }
    }
}

impl State {
    fn time(&self) -> u64 {
        self.seen.max(self.log.tail)
    }

    fn response(&self, next: u64) -> v1::ReadResponse {
        v1::ReadResponse {
            next_offset: next,
            tail: self.log.tail,
            time: self.time(),
            ..v1::ReadResponse::default()
        }
    }

    fn start(&self, from: Option<v1::read_request::From>) -> Result<u64, v1::Error> {
        use v1::read_request::From;
        let out_of_range = || v1::Error {
            tail: Some(self.log.tail),
            first_readable: Some(0),
            ..v1::Error::from_code(ErrorCode::OutOfRange, "beyond the tail")
        };
        match from {
            Some(From::Offset(offset)) if offset > self.log.tail => Err(out_of_range()),
            Some(From::Offset(offset)) => Ok(offset),
            Some(From::Timestamp(millis)) => Ok(u64::try_from(millis - 1000).unwrap().min(self.log.tail)),
            Some(From::Tail(_)) => Ok(self.log.tail),
            _ => Ok(0),
        }
    }
}

fn broken() -> Status {
    Status::unavailable("the connection broke")
}

struct Service(Arc<Shared>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

// Written as `async_trait` would: it does not see into a macro.
macro_rules! not_asked {
    ($($name:ident: $request:ident -> $response:ident;)*) => {
        $(fn $name<'a, 'b>(&'a self, _: Request<v1::$request>) -> Answer<'b, v1::$response>
        where
            'a: 'b,
            Self: 'b,
        {
            let error = v1::Error::from_code(ErrorCode::Unimplemented, "not part of this test");
            Box::pin(std::future::ready(Err(status_of(&error))))
        })*
    };
}

#[tonic::async_trait]
impl log_server::Log for Service {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Result<Response<v1::AppendAck>, Status> {
        self.0.note(request.metadata());
        match self.0.append(request.into_inner()).await {
            Ok(ack) => {
                let time = ack.time;
                let mut response = Response::new(ack);
                response.metadata_mut().insert(TIME_HEADER, time.into());
                Ok(response)
            }
            Err(Some(error)) => Err(status_of(&error)),
            Err(None) => Err(broken()),
        }
    }

    type AppendSessionStream = Answers<v1::AppendSessionResponse>;

    async fn append_session(
        &self,
        request: Request<Streaming<v1::AppendSessionRequest>>,
    ) -> Result<Response<Self::AppendSessionStream>, Status> {
        use v1::append_session_response::Outcome;
        self.0.note(request.metadata());
        self.0.state.lock().sessions += 1;
        let (shared, mut requests) = (Arc::clone(&self.0), request.into_inner());
        let (sender, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let outcome = match shared.append(request.append.unwrap()).await {
                    Ok(ack) => Outcome::Ack(ack),
                    Err(Some(error)) => Outcome::Error(error),
                    Err(None) => {
                        let _ = sender.send(Err(broken())).await;
                        return;
                    }
                };
                let time = shared.state.lock().time();
                let answer =
                    v1::AppendSessionResponse { request: request.request, outcome: Some(outcome), time };
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    type ReadStream = Answers<v1::ReadResponse>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.0.note(request.metadata());
        let request = request.into_inner();
        let (shared, mut tail, mut cut) =
            (Arc::clone(&self.0), self.0.tail.subscribe(), self.0.cut.subscribe());
        let (mut next, breaks) = {
            let mut state = shared.state.lock();
            state.reads += 1;
            (state.start(request.from).map_err(|error| status_of(&error))?, state.read_breaks.pop_front())
        };
        cut.mark_unchanged();
        let (sender, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            let first = shared.state.lock().response(next);
            let end = first.tail;
            let mut response = Some(first);
            let (mut sent, mut records) = (0, 0);
            loop {
                if breaks == Some(sent) {
                    let _ = sender.send(Err(broken())).await;
                    return;
                }
                if let Some(response) = response.take() {
                    if sender.send(Ok(response)).await.is_err() {
                        return;
                    }
                    sent += 1;
                }
                let is_limited = request.limit_records.is_some_and(|limit| records >= limit)
                    || (request.limit_bytes.is_some() && sent > 1);
                if is_limited || (!request.follow && next >= end) {
                    return;
                }
                let found = {
                    let state = shared.state.lock();
                    let holds = |(first, batch): &&(u64, Batch)| first + u64::from(batch.count()) > next;
                    state.log.batches.iter().find(holds).map(|(first, batch)| {
                        let mut data = batch.with_base_offset(Offset::new(*first)).to_vec();
                        if state.corrupt {
                            *data.last_mut().unwrap() ^= 1;
                        }
                        let end = first + u64::from(batch.count());
                        let stored = v1::StoredBatch { data: Bytes::from(data), time: end };
                        (end, v1::ReadResponse { batches: vec![stored], ..state.response(end) })
                    })
                };
                match found {
                    Some((end, answer)) => {
                        records += end - next;
                        next = end;
                        response = Some(answer);
                    }
                    None => {
                        let is_cut = tokio::select! {
                            _ = tail.changed() => false,
                            _ = cut.changed() => true,
                            () = sender.closed() => return,
                        };
                        if is_cut {
                            let _ = sender.send(Err(broken())).await;
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn allocate_producer(
        &self,
        _: Request<v1::AllocateProducerRequest>,
    ) -> Result<Response<v1::AllocateProducerResponse>, Status> {
        let mut state = self.0.state.lock();
        state.producers += 1;
        Ok(Response::new(v1::AllocateProducerResponse { producer_id: state.producers }))
    }

    async fn describe_stream(
        &self,
        request: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::StreamInfo>, Status> {
        self.0.note(request.metadata());
        Err(status_of(&v1::Error::from_code(ErrorCode::UnknownStream, "no such stream")))
    }

    not_asked! {
        create_stream: CreateStreamRequest -> StreamInfo;
        list_streams: ListStreamsRequest -> ListStreamsResponse;
        configure_stream: ConfigureStreamRequest -> StreamInfo;
        trim_stream: TrimStreamRequest -> TrimStreamResponse;
        delete_stream: DeleteStreamRequest -> DeleteStreamResponse;
        commit_cursor: CommitCursorRequest -> CursorInfo;
        get_cursor: GetCursorRequest -> CursorInfo;
        list_cursors: ListCursorsRequest -> ListCursorsResponse;
        delete_cursor: DeleteCursorRequest -> DeleteCursorResponse;
        set_fencing_token: SetFencingTokenRequest -> SetFencingTokenResponse;
        create_tenant: CreateTenantRequest -> TenantInfo;
        list_tenants: ListTenantsRequest -> ListTenantsResponse;
        create_restore_point: CreateRestorePointRequest -> RestorePoint;
        list_restore_points: ListRestorePointsRequest -> ListRestorePointsResponse;
    }
}
