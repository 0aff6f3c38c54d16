//! Bodies in both directions, uncopied: the chunks of a payload as one HTTP body, and the frames of an answer as they
//! come off the socket.
//!
//! A received body ends well only if exactly the promised bytes came. Nothing is drained here: whoever holds the stream
//! polls it, and while it is not polled no time runs out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::errors::chain_of;
use crate::store::checksum::{Crc64, RunningCrc64};
use crate::store::{BodyStream, Payload, StoreError, StoreResult};

/// How long a connection may say nothing in the middle of a body. S3 seldom pauses for a second; a network that lost
/// the connection silently never speaks again.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// While a poll waits, a body must bring [`PACE_BYTES`] within this time: one byte now and then is no answer, and a new
/// connection most likely is faster.
const PACE: Duration = Duration::from_secs(30);
/// 9 KB/s, a ten-thousandth of what a connection to S3 brings.
const PACE_BYTES: usize = 256 << 10;

/// Bytes that a connection takes at once: it takes more when it has sent most of them, and so shows that it moves, also where
/// sixteen uploads share a slow line.
const FRAME_BYTES: usize = 64 << 10;

/// Makes one body of the chunks; its exact length is known, so that it is sent with Content-Length.
pub(super) fn send(payload: Payload) -> ByteStream {
    let left_bytes = payload.len_bytes();
    ByteStream::new(SdkBody::from_body_1_x(Outgoing { payload, next: 0, at: 0, left_bytes }))
}

struct Outgoing {
    payload: Payload,
    /// The chunk that is being sent, and how far.
    next: usize,
    at: usize,
    left_bytes: u64,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(chunk) = self.payload.chunks().get(self.next) {
            let frame = chunk.slice(self.at..chunk.len().min(self.at + FRAME_BYTES));
            if frame.is_empty() {
                (self.next, self.at) = (self.next + 1, 0);
                continue;
            }
            self.at += frame.len();
            self.left_bytes -= frame.len() as u64;
            self.payload.take(frame.len() as u64);
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

/// The answer's body as a stream that insists on `promised_bytes` and, if there is one, on their checksum.
pub(super) fn receive(body: ByteStream, promised_bytes: u64, checksum: Option<Crc64>) -> BodyStream {
    let checksum = checksum.map(|promised| (RunningCrc64::default(), promised));
    Box::pin(Incoming {
        body,
        left_bytes: promised_bytes,
        promised_bytes,
        checksum,
        silence: None,
        pace: None,
        is_over: false,
    })
}

struct Incoming {
    body: ByteStream,
    left_bytes: u64,
    promised_bytes: u64,
    /// Of the bytes so far, and what it shall be at the end.
    checksum: Option<(RunningCrc64, Crc64)>,
    /// Runs while a poll waits for bytes.
    silence: Option<Pin<Box<Sleep>>>,
    /// Runs until [`PACE_BYTES`] have come, and how many have.
    pace: Option<(Pin<Box<Sleep>>, usize)>,
    is_over: bool,
}

impl Incoming {
    fn fail(&mut self, error: StoreError) -> Poll<Option<StoreResult<Bytes>>> {
        self.is_over = true;
        Poll::Ready(Some(Err(error)))
    }

    fn end(&mut self) -> Poll<Option<StoreResult<Bytes>>> {
        if self.left_bytes > 0 {
            let (got, of) = (self.promised_bytes - self.left_bytes, self.promised_bytes);
            return self.fail(StoreError::Corrupt(format!("the body ended after {got} of {of} bytes")));
        }
        if self.checksum.as_ref().is_some_and(|(seen, promised)| seen.finish() != *promised) {
            return self.fail(StoreError::Corrupt("the body does not match its CRC-64/NVME".into()));
        }
        self.is_over = true;
        Poll::Ready(None)
    }
}

impl Stream for Incoming {
    type Item = StoreResult<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StoreResult<Bytes>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        loop {
            match Pin::new(&mut this.body).poll_next(context) {
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Ok(bytes))) => {
                    this.silence = None;
                    this.pace = this
                        .pace
                        .take()
                        .map(|(timer, came)| (timer, came + bytes.len()))
                        .filter(|it| it.1 < PACE_BYTES);
                    let Some(left) = this.left_bytes.checked_sub(bytes.len() as u64) else {
                        let promised = this.promised_bytes;
                        return this.fail(StoreError::Corrupt(format!("the body is longer than {promised} bytes")));
                    };
                    this.left_bytes = left;
                    if let Some((seen, _)) = &mut this.checksum {
                        seen.update(&bytes);
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Poll::Ready(Some(Err(error))) => {
                    return this.fail(StoreError::Transient(format!("the body broke off: {}", chain_of(&error))));
                }
                Poll::Ready(None) => return this.end(),
                Poll::Pending => {
                    let (pace, came) = this.pace.get_or_insert_with(|| (Box::pin(sleep(PACE)), 0));
                    let came = *came;
                    if pace.as_mut().poll(context).is_ready() {
                        let seconds = PACE.as_secs();
                        return this
                            .fail(StoreError::Transient(format!("the body brought {came} bytes in {seconds} s")));
                    }
                    let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE_MAX)));
                    if silence.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    let seconds = SILENCE_MAX.as_secs();
                    return this.fail(StoreError::Transient(format!("the body stalled for {seconds} s")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn chunks() -> Payload {
        Payload::new(vec![Bytes::from_static(b"hel"), Bytes::new(), Bytes::from_static(b"lo")])
    }

    async fn drain(mut body: BodyStream) -> (Vec<u8>, Option<StoreError>) {
        let mut bytes = Vec::new();
        while let Some(item) = body.next().await {
            match item {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => return (bytes, Some(error)),
            }
        }
        (bytes, None)
    }

    #[tokio::test]
    async fn chunks_are_sent_uncopied_with_their_exact_length() {
        let payload = chunks();
        let first = payload.chunks()[0].as_ptr();
        let mut body = send(payload);
        assert_eq!(body.size_hint(), (5, Some(5)));
        assert_eq!(body.next().await.unwrap().unwrap().as_ptr(), first);
        assert_eq!(body.next().await.unwrap().unwrap(), "lo");
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn what_a_connection_takes_shows_in_the_payload() {
        let payload = Payload::new(vec![Bytes::from(vec![7; FRAME_BYTES + 1]), Bytes::from_static(b"end")]);
        for sent in [0, payload.len_bytes()] {
            let mut body = send(payload.clone());
            assert_eq!(payload.taken_bytes(), sent, "those of an earlier try count on");
            for bytes in [FRAME_BYTES, 1, 3] {
                let before = payload.taken_bytes();
                assert_eq!(body.next().await.unwrap().unwrap().len(), bytes);
                assert_eq!(payload.taken_bytes(), before + bytes as u64);
            }
            assert!(body.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_early_or_late_is_corrupt() {
        assert!(matches!(drain(receive(send(chunks()), 5, None)).await, (bytes, None) if bytes == b"hello"));
        assert!(
            matches!(drain(receive(send(chunks()), 6, None)).await, (bytes, Some(StoreError::Corrupt(_))) if bytes == b"hello")
        );
        assert!(matches!(drain(receive(send(chunks()), 4, None)).await, (_, Some(StoreError::Corrupt(_)))));
    }

    #[tokio::test]
    async fn a_body_that_does_not_match_its_checksum_is_corrupt() {
        let (right, wrong) = (chunks().crc64nvme(), Crc64::EMPTY);
        assert!(matches!(drain(receive(send(chunks()), 5, Some(right))).await, (_, None)));
        assert!(matches!(drain(receive(send(chunks()), 5, Some(wrong))).await, (_, Some(StoreError::Corrupt(_)))));
    }

    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_while_it_is_polled_breaks_off() {
        let body = receive(ByteStream::new(SdkBody::from_body_1_x(Silent)), 5, None);
        tokio::time::advance(SILENCE_MAX * 2).await;
        let began = tokio::time::Instant::now();
        assert!(matches!(drain(body).await, (_, Some(StoreError::Transient(_)))));
        assert!(began.elapsed() >= SILENCE_MAX, "the time before the first poll does not count");
    }

    /// A byte every nine seconds.
    struct Trickle(Pin<Box<Sleep>>);

    impl Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.0 = Box::pin(sleep(Duration::from_secs(9)));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_breaks_off() {
        let trickle = Trickle(Box::pin(sleep(Duration::from_secs(9))));
        let body = receive(ByteStream::new(SdkBody::from_body_1_x(trickle)), 1 << 20, None);
        assert!(matches!(drain(body).await, (bytes, Some(StoreError::Transient(_))) if bytes.len() == 3));
    }
}
