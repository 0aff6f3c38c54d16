//! The control port: shaping in, counters out, as JSON.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::endpoint::Endpoint;
use crate::objects::{SyntheticTree, put_synthetic, put_synthetic_tree};

#[derive(Deserialize)]
struct Synthetic {
    bucket: String,
    key: String,
    size: u64,
    #[serde(default)]
    seed: u64,
}

#[derive(Deserialize)]
struct Named {
    bucket: String,
    key: String,
}

async fn answer(endpoint: Arc<Endpoint>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let route = format!("{} {}", request.method(), request.uri().path());
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let outcome = match route.as_str() {
        "GET /counters" => serde_json::to_vec(&endpoint.shaping.counters()),
        "GET /log" => serde_json::to_vec(&endpoint.shaping.log()),
        "POST /reset" => {
            endpoint.shaping.reset();
            Ok(b"{}".to_vec())
        }
        "POST /config" => serde_json::from_slice(&body).map(|config| {
            endpoint.shaping.set(config);
            b"{}".to_vec()
        }),
        "POST /fail" => serde_json::from_slice(&body).map(|script| {
            endpoint.shaping.script(script);
            b"{}".to_vec()
        }),
        "POST /synthetic" => serde_json::from_slice(&body).map(|it: Synthetic| {
            put_synthetic(&endpoint, &it.bucket, &it.key, it.size, it.seed);
            b"{}".to_vec()
        }),
        "POST /object" => serde_json::from_slice(&body).and_then(|it: Named| {
            let held = endpoint.storage.held.lock();
            let object = held.buckets.get(&it.bucket).and_then(|objects| objects.get(&it.key));
            serde_json::to_vec(&serde_json::json!({ "size": object.map(|object| object.content.len()) }))
        }),
        "POST /synthetic_tree" => serde_json::from_slice(&body).map(|tree: SyntheticTree| {
            put_synthetic_tree(&endpoint, &tree);
            b"{}".to_vec()
        }),
        _ => return Ok(said(StatusCode::NOT_FOUND, format!("no such control: {route}\n").into_bytes())),
    };
    Ok(match outcome {
        Ok(text) => said(StatusCode::OK, text),
        Err(error) => said(StatusCode::BAD_REQUEST, format!("{error}\n").into_bytes()),
    })
}

fn said(status: StatusCode, text: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// Serves the control port until it is dropped.
pub(crate) async fn serve(listener: TcpListener, endpoint: Arc<Endpoint>) -> Infallible {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&endpoint), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
