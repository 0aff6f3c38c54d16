//! The endpoint itself: connections, requests, faults and the pace of bodies.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::answer::{ACCESS_DENIED, Answer, INTERNAL_ERROR, NOT_IMPLEMENTED, Refusal, SLOW_DOWN};
use crate::call::Call;
use crate::content::Content;
use crate::shaping::{Fate, Logged, Shaping};
use crate::storage::Storage;
use crate::{listing, multipart, objects};

/// Long enough to send the first half of a body that is to break off.
const FLUSH: Duration = Duration::from_millis(10);

/// Longest that a stalled body is held open.
const STALL: Duration = Duration::from_secs(600);

/// Everything that answers requests.
#[derive(Debug)]
pub struct Endpoint {
    /// What it holds.
    pub storage: Storage,
    /// How it misbehaves.
    pub shaping: Shaping,
    /// Region that it says it is in.
    pub region: String,
    /// Tags are made of a CRC instead of MD5.
    pub fast_etags: bool,
    /// Bodies are not kept.
    pub discard: bool,
    /// When it began.
    pub began: Instant,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

impl Endpoint {
    /// A body as it is kept.
    pub fn content(&self, chunks: Vec<Bytes>) -> Content {
        if self.discard {
            return Content::Discarded(chunks.iter().map(|chunk| chunk.len() as u64).sum());
        }
        Content::keep(chunks)
    }

    fn perform(&self, call: Call) -> Result<Answer, Refusal> {
        match call.operation {
            "GetObject" => objects::get(self, &call, true),
            "HeadObject" => objects::get(self, &call, false),
            "PutObject" => objects::put(self, call),
            "DeleteObject" => objects::delete(self, &call),
            "DeleteObjects" => objects::delete_many(self, &call),
            "CopyObject" => objects::copy(self, &call),
            "ListObjectsV2" => listing::list(self, &call),
            "CreateMultipartUpload" => multipart::create(self, &call),
            "UploadPart" => multipart::put_part(self, &call),
            "UploadPartCopy" => multipart::copy_part(self, &call),
            "CompleteMultipartUpload" => multipart::complete(self, &call),
            "AbortMultipartUpload" => multipart::abort(self, &call),
            "ListMultipartUploads" => multipart::list(self, &call),
            "ListParts" => multipart::list_parts(self, &call),
            "HeadBucket" => listing::head_bucket(self, &call),
            "ListBuckets" => Ok(listing::list_buckets(self)),
            "CreateBucket" => {
                self.storage.create_bucket(&call.bucket);
                Ok(Answer::of(200))
            }
            _ => Err(NOT_IMPLEMENTED),
        }
    }

    /// Answers one request; an error resets the connection.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (head, incoming) = request.into_parts();
        let call = Call::of(head);
        let operation = call.operation;
        let prefix = call.query.get("prefix").filter(|_| call.key.is_empty());
        let logged = Logged {
            at_ms: self.began.elapsed().as_secs_f64() * 1000.0,
            method: call.head.method.to_string(),
            operation: operation.to_owned(),
            key: prefix.unwrap_or(&call.key).clone(),
            range: call.header("range").map(str::to_owned),
            access_key: call.access_key().map(str::to_owned),
            status: 0,
            bytes: 0,
        };
        let arrived = Arrived { shaping: &self.shaping, logged: Some(logged) };
        let fate = self.shaping.fate(operation);
        // Who signed, and when, is looked at before the body comes, as S3 does it.
        let doubt = self.shaping.doubt(&call);
        let body = self.receive(incoming).await?;
        let received: u64 = body.iter().map(|chunk| chunk.len() as u64).sum();
        pause(self.shaping.first_byte(operation)).await;
        let early = !fate.after_effect;
        let refused = early.then(|| refusal(fate)).flatten().or(doubt);
        if early && fate.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let outcome = match refused {
            Some(refusal) => Err(refusal),
            None => call.with_body(body).and_then(|call| self.perform(call)),
        };
        let outcome = match (fate.after_effect.then(|| refusal(fate)).flatten(), outcome) {
            (Some(refusal), Ok(_)) => Err(refusal),
            (_, outcome) => outcome,
        };
        let head = operation.starts_with("Head");
        let mut answer = outcome.unwrap_or_else(Answer::from);
        if head && answer.status.as_u16() >= 400 {
            answer.body.clear();
        }
        self.shaping.count_bytes(received, answer.body_len());
        arrived.answered(answer.status.as_u16(), received.max(answer.body_len()));
        if fate.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(self.send(answer, fate, head))
    }

    /// The body of a request, at the pace of its connection.
    async fn receive(&self, mut incoming: Incoming) -> Result<Vec<Bytes>, io::Error> {
        let mut pace = Pace::new(self.shaping.bandwidth());
        let mut chunks = Vec::new();
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                pace.passed(data.len()).await;
                chunks.push(data);
            }
        }
        Ok(chunks)
    }

    /// An answer on its way, as its fate has it.
    fn send(&self, mut answer: Answer, fate: Fate, head: bool) -> Response<Body> {
        answer = answer.with("date", httpdate::fmt_http_date(self.shaping.now()));
        let chunks = std::mem::take(&mut answer.body);
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if !head && !answer.headers.iter().any(|(name, _)| name == "content-length") && answer.status != 304 {
            answer = answer.with("content-length", len.to_string());
        }
        let cut = if fate.truncate || fate.stall { len / 2 } else { u64::MAX };
        let damaged = if fate.damage { Some(len / 2) } else { None };
        let pace = Pace::new(self.shaping.bandwidth());
        let chunks = if pace.bytes_per_second == 0 { chunks } else { pieces(chunks) };
        let state = (chunks.into_iter(), pace, 0_u64);
        let body = stream::unfold(state, move |(mut chunks, mut pace, at)| async move {
            if at >= cut && cut != u64::MAX {
                // Hyper sends what it holds only while the body waits: else the head would be lost with the rest.
                tokio::time::sleep(if fate.stall { STALL } else { FLUSH }).await;
                return Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), (chunks, pace, at)));
            }
            let mut chunk = chunks.next()?;
            if cut != u64::MAX && at + chunk.len() as u64 > cut {
                chunk.truncate((cut - at) as usize);
            }
            if let Some(wrong) = damaged.filter(|wrong| (at..at + chunk.len() as u64).contains(wrong)) {
                let mut bytes = chunk.to_vec();
                bytes[(wrong - at) as usize] ^= 0x55;
                chunk = bytes.into();
            }
            let at = at + chunk.len() as u64;
            pace.passed(chunk.len()).await;
            Some((Ok(Frame::data(chunk)), (chunks, pace, at)))
        });
        answer.into_response(BodyExt::boxed_unsync(StreamBody::new(body)))
    }
}

/// A request that came: it is counted and logged also where the client hangs up before it is answered, as S3 does it.
struct Arrived<'a> {
    shaping: &'a Shaping,
    logged: Option<Logged>,
}

impl Arrived<'_> {
    /// Counts it with its answer.
    fn answered(mut self, status: u16, bytes: u64) {
        if let Some(logged) = self.logged.take() {
            self.shaping.count(Logged { status, bytes, ..logged });
        }
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        if let Some(logged) = self.logged.take() {
            self.shaping.count(logged);
        }
    }
}

fn refusal(fate: Fate) -> Option<Refusal> {
    if fate.denied {
        return Some(ACCESS_DENIED);
    }
    if fate.slow_down {
        return Some(SLOW_DOWN);
    }
    fate.internal_error.then_some(INTERNAL_ERROR)
}

/// Bytes of an answer that leave together where a connection has a pace, at its beginning and later: a chunk of 1 MiB would
/// hold its first byte back until all of it is due, 12 ms at 90 MB/s, and small pieces all along cost this server a wake-up each.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=256 << 10;

/// The same bytes in pieces that share their memory.
fn pieces(chunks: Vec<Bytes>) -> Vec<Bytes> {
    let (mut pieces, mut len) = (Vec::new(), *PIECE_BYTES.start());
    for mut chunk in chunks {
        while !chunk.is_empty() {
            pieces.push(chunk.split_to(len.min(chunk.len())));
            len = (2 * len).min(*PIECE_BYTES.end());
        }
    }
    pieces
}

/// So late are tokio's timers on average: they count whole milliseconds, and so does epoll_wait(2), both rounded up.
const TIMER_LATE: Duration = Duration::from_millis(1);

/// Waits for so long on average.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time.saturating_sub(TIMER_LATE)).await;
    }
}

/// Bytes a second on one connection.
struct Pace {
    bytes_per_second: u64,
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, began: Instant::now(), bytes: 0 }
    }

    async fn passed(&mut self, bytes: usize) {
        if self.bytes_per_second == 0 {
            return;
        }
        self.bytes += bytes as u64;
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        let ahead = due.saturating_sub(self.began.elapsed());
        if ahead > TIMER_LATE {
            pause(ahead).await;
        }
    }
}

/// Serves connections until it is dropped.
pub async fn serve(listener: TcpListener, endpoint: Arc<Endpoint>) -> Infallible {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            let service = service_fn(move |request| Arc::clone(&endpoint).answer(request));
            // A connection that breaks, ours or theirs, is what many tests are about.
            let _ = hyper::server::conn::http1::Builder::new()
                .max_buf_size(2 << 20)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_answer_leaves_in_small_pieces() {
        let chunk = crate::content::block(3);
        let found = pieces(vec![chunk.clone(), Bytes::from_static(b"end")]);
        assert!(found[0].len() <= *PIECE_BYTES.start() && found.iter().all(|piece| piece.len() <= *PIECE_BYTES.end()));
        assert_eq!(found.concat(), [&chunk[..], b"end"].concat());
    }
}
