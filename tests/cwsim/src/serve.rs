//! The wire: HTTP, the Smithy RPC v2 protocol, gzip, and manners.

use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::cbor::{Map, Value, decode, encode};
use crate::data::{self, REQUEST_BYTES_MAX};
use crate::fields::{Refusal, invalid};
use crate::{Manner, Received, State, alarms, dashboards};

/// What the path of each operation begins with.
const SERVICE: &str = "/service/GraniteServiceVersion20100801/operation/";

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) -> Infallible {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Answers one request; an error resets the connection.
async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let operation = head.uri.path().strip_prefix(SERVICE).unwrap_or_default().to_owned();
    let plain = plain(&head, &body);
    let is_gzipped = head.headers.contains_key("content-encoding");
    let bytes = plain.as_ref().map_or(0, Vec::len);
    let mut received = Received { operation: operation.clone(), is_gzipped, wire_bytes: body.len(), bytes, status: 0 };
    let manner = state.lock().manner;
    let key = access_key(&head);
    let refused = match manner {
        Manner::Answers => None,
        Manner::Expires => state
            .lock()
            .expired
            .contains(&key)
            .then(|| (403, "ExpiredToken", "The security token included in the request is expired".to_owned())),
        Manner::Hangs => {
            state.lock().received.push(received);
            return std::future::pending().await;
        }
        Manner::Resets => {
            state.lock().received.push(received);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Manner::Throttles => Some((400, "Throttling", "Rate exceeded".to_owned())),
        Manner::IsDown => Some((503, "ServiceUnavailable", "come back later".to_owned())),
        Manner::Denies => {
            let who = "arn:aws:sts::123456789012:assumed-role/r/i-1";
            let line = format!("User: {who} is not authorized to perform: cloudwatch:{operation}");
            Some((403, "AccessDenied", line))
        }
    };
    let mut state = state.lock();
    let outcome = match refused {
        Some(refused) => Err(refused),
        None => plain.and_then(|plain| perform(&mut state, &head, &operation, &plain)).map_err(|refusal| {
            state.refusals.push(format!("{}: {}", refusal.code, refusal.line));
            let status = match refusal.code {
                "ResourceNotFound" => 404,
                "RequestEntityTooLarge" => 413,
                _ => 400,
            };
            (status, refusal.code, refusal.line)
        }),
    };
    if outcome.is_ok() {
        state.keys.insert(key);
    }
    received.status = outcome.as_ref().map_or_else(|(status, ..)| *status, |_| 200);
    state.received.push(received);
    Ok(said(outcome))
}

/// The key of the signature; empty where there is none.
fn access_key(head: &Parts) -> String {
    let signature = head.headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let credential = signature.split("Credential=").nth(1).unwrap_or_default();
    credential.split('/').next().unwrap_or_default().to_owned()
}

/// The body, decompressed.
fn plain(head: &Parts, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut plain = Vec::new();
    match head.headers.get("content-encoding").map(http::HeaderValue::as_bytes) {
        None => plain.extend_from_slice(body),
        Some(b"gzip") => {
            // One byte more than may be there, and no more of a bomb.
            let mut bounded = GzDecoder::new(body).take(REQUEST_BYTES_MAX as u64 + 1);
            if let Err(error) = bounded.read_to_end(&mut plain) {
                return invalid(format!("no gzip: {error}"));
            }
        }
        Some(other) => return invalid(format!("encoding {other:?}")),
    }
    if plain.len() > REQUEST_BYTES_MAX {
        let line = format!("the request has more than {REQUEST_BYTES_MAX} bytes");
        return Err(Refusal { code: "RequestEntityTooLarge", line });
    }
    Ok(plain)
}

fn perform(state: &mut State, head: &Parts, operation: &str, body: &[u8]) -> Result<Value, Refusal> {
    let header = |name: &str| head.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if head.method != Method::POST || header("smithy-protocol") != "rpc-v2-cbor" {
        return invalid("no request of Smithy RPC v2");
    }
    if header("content-type") != "application/cbor" {
        return invalid(format!("content type {:?}", header("content-type")));
    }
    let signature = header("authorization");
    if !signature.starts_with("AWS4-HMAC-SHA256 Credential=") || !signature.contains("/monitoring/aws4_request") {
        return Err(Refusal { code: "MissingAuthenticationToken", line: "the request is not signed".into() });
    }
    let input = decode(body).or_else(|error| invalid(format!("no CBOR: {error}")))?;
    let nothing = Value::Map(Map::new());
    match operation {
        "PutMetricData" => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64());
            state.points.extend(data::read(input, now)?);
            Ok(nothing)
        }
        "PutMetricAlarm" => alarms::put(&mut state.alarms, input).map(|()| nothing),
        "DescribeAlarms" => alarms::describe(&state.alarms, input),
        "PutDashboard" => dashboards::put(&mut state.dashboards, input),
        "GetDashboard" => dashboards::get(&state.dashboards, input),
        other => invalid(format!("operation {other:?}")),
    }
}

fn said(outcome: Result<Value, (u16, &'static str, String)>) -> Response<Full<Bytes>> {
    let builder =
        Response::builder().header("smithy-protocol", "rpc-v2-cbor").header("content-type", "application/cbor");
    let (builder, value) = match outcome {
        Ok(value) => (builder, value),
        Err((status, code, line)) => {
            let kind = Value::Text(format!("com.amazonaws.cloudwatch#{code}"));
            let fields = Map::from([("__type".to_owned(), kind), ("message".to_owned(), Value::Text(line))]);
            let side = if status < 500 { "Sender" } else { "Receiver" };
            let builder = builder.status(status).header("x-amzn-query-error", format!("{code};{side}"));
            (builder, Value::Map(fields))
        }
    };
    builder.body(Full::new(encode(&value).into())).expect("the parts of the answer are good")
}
