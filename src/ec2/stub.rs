//! A metadata service for the tests of this room: in this process, on the loopback interface.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Answers,
    /// Takes connections and says nothing.
    Hangs,
    /// Answers GETs; what it says to a PUT never arrives, as behind a hop limit of one.
    LosesTokens,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    answers: Mutex<HashMap<String, String>>,
    /// How many more questions for a path are answered 500.
    failures: Mutex<HashMap<String, u32>>,
    tokens: AtomicU32,
    /// Tokens up to this one are no longer taken.
    forgotten: AtomicU32,
}

/// A service that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Stub {
    state: Arc<State>,
    port: u16,
    task: JoinHandle<()>,
}

impl Stub {
    /// Begins.
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (tokens, forgotten) = (AtomicU32::new(0), AtomicU32::new(0));
        let (answers, failures) = (Mutex::default(), Mutex::default());
        let state = Arc::new(State { manner, answers, failures, tokens, forgotten });
        let served = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // The real one (`Server: EC2ws`) closes after each answer, and says so.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { state, port, task }
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What stands at a path from now on.
    pub(crate) fn put(&self, path: &str, text: &str) {
        self.state.answers.lock().insert(path.to_owned(), text.to_owned());
    }

    /// Answers 500 to the next questions for a path.
    pub(crate) fn fail(&self, path: &str, times: u32) {
        self.state.failures.lock().insert(path.to_owned(), times);
    }

    /// Takes no token any more that it has given.
    pub(crate) fn forget_tokens(&self) {
        self.state.forgotten.store(self.state.tokens.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// How many tokens it gave.
    pub(crate) fn tokens_given(&self) -> u32 {
        self.state.tokens.load(Ordering::SeqCst)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_put = request.method() == Method::PUT;
    if state.manner == Manner::Hangs || (is_put && state.manner == Manner::LosesTokens) {
        std::future::pending::<()>().await;
    }
    let said = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        Ok(response)
    };
    if is_put {
        return said(StatusCode::OK, format!("token-{}", state.tokens.fetch_add(1, Ordering::SeqCst) + 1));
    }
    let token = request.headers().get("x-aws-ec2-metadata-token").and_then(|token| token.to_str().ok());
    let number = token.and_then(|token| token.strip_prefix("token-")?.parse::<u32>().ok());
    if number.is_none_or(|number| number <= state.forgotten.load(Ordering::SeqCst)) {
        return said(StatusCode::UNAUTHORIZED, String::new());
    }
    if let Some(left) = state.failures.lock().get_mut(request.uri().path()).filter(|left| **left > 0) {
        *left -= 1;
        return said(StatusCode::INTERNAL_SERVER_ERROR, String::new());
    }
    match state.answers.lock().get(request.uri().path()) {
        Some(text) => said(StatusCode::OK, text.clone()),
        None => said(StatusCode::NOT_FOUND, String::new()),
    }
}
