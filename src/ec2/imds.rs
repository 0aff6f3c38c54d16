//! A client of the instance metadata service, version 2: a session token by PUT, then GETs that carry it.
//!
//! Owns where the service is, and the token. Asks nothing on a machine that is known not to be an instance. Never waits
//! longer than it was told to; a service that connects and then is silent is told apart from one whose answers die on the
//! way into a container (hop limit 1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::machine::{Machine, recognise};
use crate::clock::Clock;

/// The service is on the host itself: a connection that takes longer is none.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// After so long without an answer to the PUT a plain GET is sent beside it, to tell silence from a hop limit.
const SUSPICION: Duration = Duration::from_millis(300);
/// How long a token is asked for, in seconds, and how long before its end a new one is.
const TOKEN_SECONDS: u64 = 21_600;
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// The longest answers are documents of a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why the service told nothing; each is one line of cause and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImdsError {
    /// There is nothing at this path: 404.
    #[error("the instance has no such metadata")]
    NotFound,
    /// AWS_EC2_METADATA_DISABLED.
    #[error("the instance metadata service is not asked: AWS_EC2_METADATA_DISABLED is set")]
    Disabled,
    /// Firmware and hypervisor say so.
    #[error("this machine is no EC2 instance")]
    NotEc2,
    /// An endpoint that is no address.
    #[error("AWS_EC2_METADATA_SERVICE_ENDPOINT {0:?} is no address such as http://169.254.169.254")]
    Endpoint(String),
    /// No connection.
    #[error("the instance metadata service at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// It took the question, and its answer cannot be read.
    #[error("the instance metadata service at {0} broke off its answer: {1}")]
    Broken(String, String),
    /// The answer to a PUT does not arrive, that to a GET does.
    #[error(
        "the instance metadata service gives no token into this container, for its answers may take one hop only: \
         aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2"
    )]
    HopLimit,
    /// It connects and says nothing.
    #[error("the instance metadata service at {0} hangs: it took the question and gave no answer")]
    Silent(String),
    /// Any other answer, such as 403 where it is turned off.
    #[error("the instance metadata service at {0} refuses {1}: {2}; is it enabled (--http-endpoint enabled)?")]
    Refused(String, String, String),
}

struct Token {
    value: String,
    ends: Instant,
}

/// The service.
pub struct Imds {
    authority: String,
    address: Address,
    is_expected: bool,
    clock: Clock,
    token: Mutex<Option<Token>>,
}

#[derive(Clone, Debug)]
enum Address {
    Socket(SocketAddr),
    Name(String, u16),
}

impl std::fmt::Debug for Imds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Imds({})", self.authority)
    }
}

impl Imds {
    /// The service of this machine, as the environment and the kernel tell where and whether it is. Sends nothing.
    ///
    /// # Errors
    /// It is turned off, the machine is no instance, or the endpoint is no address.
    pub fn of_this_machine() -> Result<Self, ImdsError> {
        Self::found(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), Path::new("/sys"))
    }

    fn found(variable: impl Fn(&str) -> Option<String>, sys: &Path) -> Result<Self, ImdsError> {
        if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(ImdsError::Disabled);
        }
        if let Some(endpoint) = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
            return Self::at(&endpoint);
        }
        let machine = recognise(sys);
        if machine == Machine::Other {
            return Err(ImdsError::NotEc2);
        }
        // User guide, "Access instance metadata": the link-local addresses.
        let is_v6 =
            variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let ip = if is_v6 {
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))
        } else {
            IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))
        };
        let address = SocketAddr::new(ip, 80);
        let is_expected = machine == Machine::Ec2;
        Ok(Self { is_expected, ..Self::new(address.to_string(), Address::Socket(address)) })
    }

    /// The service at `http://HOST[:PORT]`.
    ///
    /// # Errors
    /// [`ImdsError::Endpoint`].
    pub fn at(endpoint: &str) -> Result<Self, ImdsError> {
        let bad = || ImdsError::Endpoint(endpoint.to_owned());
        let uri: hyper::Uri = endpoint.parse().map_err(|_| bad())?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad()) };
        let (host, port) = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
        let address = match host.parse() {
            Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
            Err(_) => Address::Name(host.to_owned(), port),
        };
        Ok(Self::new(authority.to_string(), address))
    }

    fn new(authority: String, address: Address) -> Self {
        Self { authority, address, is_expected: true, clock: Clock::timers(), token: Mutex::new(None) }
    }

    /// Whether it ought to be there: somebody named it, or the machine says that it is an instance. One that shows nothing
    /// of itself may be either.
    pub fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// Where it is, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// What stands at `path` (`/latest/…`), within `patience`, a new token included.
    ///
    /// # Errors
    /// See [`ImdsError`].
    pub async fn get(&self, path: &str, patience: Duration) -> Result<String, ImdsError> {
        let began = self.clock.now();
        let left = || patience.saturating_sub(self.clock.now().saturating_duration_since(began));
        for is_last in [false, true] {
            let token = self.token(left()).await?;
            let asked = self.send(Method::GET, path, ("x-aws-ec2-metadata-token", &token));
            let (status, body) = timeout(left(), asked).await.unwrap_or_else(|_| Err(self.silent()))?;
            match status {
                StatusCode::OK => return Ok(body),
                StatusCode::NOT_FOUND => return Err(ImdsError::NotFound),
                // A token does not outlive a stop and start of the instance.
                StatusCode::UNAUTHORIZED if !is_last => *self.token.lock() = None,
                _ => return Err(self.refused(path, status)),
            }
        }
        Err(self.silent())
    }

    async fn token(&self, patience: Duration) -> Result<String, ImdsError> {
        let now = self.clock.now();
        if let Some(token) = self.token.lock().as_ref().filter(|token| now + TOKEN_MARGIN < token.ends) {
            return Ok(token.value.clone());
        }
        let path = "/latest/api/token";
        let seconds = TOKEN_SECONDS.to_string();
        let asked = self.send(Method::PUT, path, ("x-aws-ec2-metadata-token-ttl-seconds", &seconds));
        let answered = timeout(patience, self.watched(asked)).await.unwrap_or_else(|_| Err(self.silent()));
        match answered? {
            (StatusCode::OK, value) => {
                let ends = now + Duration::from_secs(TOKEN_SECONDS);
                *self.token.lock() = Some(Token { value: value.clone(), ends });
                Ok(value)
            }
            (status, _) => Err(self.refused(path, status)),
        }
    }

    /// The answer to a PUT; [`ImdsError::HopLimit`] if a GET that is sent later is answered first.
    async fn watched(
        &self,
        put: impl Future<Output = Result<(StatusCode, String), ImdsError>>,
    ) -> Result<(StatusCode, String), ImdsError> {
        let witness = async {
            tokio::time::sleep(SUSPICION).await;
            // Any status will do, 401 included: it is an answer.
            if self.send(Method::GET, "/latest/meta-data/", ("accept", "*/*")).await.is_err() {
                std::future::pending::<()>().await;
            }
            // Both were slow: the PUT has as long again.
            tokio::time::sleep(SUSPICION).await;
        };
        tokio::select! {
            biased;
            answer = put => answer,
            () = witness => Err(ImdsError::HopLimit),
        }
    }

    async fn send(&self, method: Method, path: &str, header: (&str, &str)) -> Result<(StatusCode, String), ImdsError> {
        let away = |cause: String| ImdsError::Unreachable(self.authority.clone(), cause);
        let connected = match &self.address {
            Address::Socket(address) => timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await,
            Address::Name(host, port) => timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port))).await,
        };
        let stream = match connected {
            Err(_) => return Err(away(format!("no connection within {CONNECT_TIMEOUT:?}"))),
            Ok(connected) => connected.map_err(|error| away(error.to_string()))?,
        };
        let broken = |error: hyper::Error| away(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header(header.0, header.1)
            .body(Empty::<Bytes>::new())
            .map_err(|error| away(error.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((
                status,
                String::from_utf8_lossy(&body).trim().to_owned(),
            ))
        };
        tokio::pin!(exchange);
        // The service closes each connection behind its answer: the connection has then ended before its answer was looked at.
        let (answer, ended) = tokio::select! {
            biased;
            answer = &mut exchange => (answer, Ok(())),
            ended = connection => (exchange.await, ended),
        };
        answer.map_err(|error| {
            ImdsError::Broken(
                self.authority.clone(),
                ended.err().map_or_else(|| error.to_string(), |it| it.to_string()),
            )
        })
    }

    fn silent(&self) -> ImdsError {
        ImdsError::Silent(self.authority.clone())
    }

    fn refused(&self, path: &str, status: StatusCode) -> ImdsError {
        ImdsError::Refused(self.authority.clone(), path.to_owned(), status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::stub::{Manner, Stub};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);
    const PATH: &str = "/latest/meta-data/instance-id";

    fn found(variables: &[(&str, &str)], vendor: &str) -> Result<Imds, ImdsError> {
        let root = tempfile::tempdir().expect("a folder");
        let dmi = root.path().join("devices/virtual/dmi/id");
        std::fs::create_dir_all(&dmi).expect("a folder");
        std::fs::write(dmi.join("sys_vendor"), vendor).expect("a file");
        let value = |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
        Imds::found(value, root.path())
    }

    #[test]
    fn the_environment_goes_before_the_machine() {
        let at = |variables: &[(&str, &str)], vendor: &str| found(variables, vendor).map(|imds| imds.endpoint());
        assert_eq!(at(&[], "Amazon EC2"), Ok("http://169.254.169.254:80".to_owned()));
        assert_eq!(at(&[], "QEMU"), Err(ImdsError::NotEc2));
        let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338/");
        assert_eq!(at(&[endpoint], "QEMU"), Ok("http://127.0.0.1:1338".to_owned()));
        assert_eq!(at(&[endpoint, ("AWS_EC2_METADATA_DISABLED", "true")], "Amazon EC2"), Err(ImdsError::Disabled));
        let v6 = ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6");
        assert_eq!(at(&[v6], "Amazon EC2"), Ok("http://[fd00:ec2::254]:80".to_owned()));
        assert!(matches!(Imds::at("169.254.169.254"), Err(ImdsError::Endpoint(_))));
    }

    #[test]
    fn a_service_is_expected_where_it_was_named_or_the_machine_is_an_instance() {
        let expected =
            |variables: &[(&str, &str)], vendor: &str| found(variables, vendor).map(|imds| imds.is_expected());
        assert_eq!(expected(&[], "Amazon EC2"), Ok(true));
        assert_eq!(expected(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338")], "QEMU"), Ok(true));
        let nothing_shown = tempfile::tempdir().expect("a folder");
        let unknown = Imds::found(|_| None, nothing_shown.path()).map(|imds| imds.is_expected());
        assert_eq!(unknown, Ok(false));
    }

    #[tokio::test]
    async fn one_token_serves_many_questions() {
        let stub = Stub::start(Manner::Answers).await;
        stub.put(PATH, "i-0123");
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        for _ in 0..3 {
            assert_eq!(imds.get(PATH, PATIENCE).await, Ok("i-0123".to_owned()));
        }
        assert_eq!(imds.get("/latest/meta-data/none", PATIENCE).await, Err(ImdsError::NotFound));
        assert_eq!(stub.tokens_given(), 1);
    }

    #[tokio::test]
    async fn a_token_that_is_no_longer_taken_is_asked_for_anew() {
        let stub = Stub::start(Manner::Answers).await;
        stub.put(PATH, "i-0123");
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        imds.get(PATH, PATIENCE).await.expect("an id");
        stub.forget_tokens();
        assert_eq!(imds.get(PATH, PATIENCE).await, Ok("i-0123".to_owned()));
        assert_eq!(stub.tokens_given(), 2);
    }

    #[tokio::test]
    async fn a_hop_limit_of_one_is_told_with_its_remedy() {
        let stub = Stub::start(Manner::LosesTokens).await;
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        let error = imds.get(PATH, PATIENCE).await.expect_err("no token comes");
        assert_eq!(error, ImdsError::HopLimit);
        assert!(error.to_string().contains("--http-put-response-hop-limit 2"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_costs_the_patience_and_no_more() {
        let stub = Stub::start(Manner::Hangs).await;
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        let began = tokio::time::Instant::now();
        let error = imds.get(PATH, PATIENCE).await.expect_err("nothing is said");
        assert!(matches!(error, ImdsError::Silent(_) | ImdsError::Unreachable(..)), "{error}");
        assert!(began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
        assert!(!error.to_string().contains('\n'));
    }

    /// A service that answers every question with these bytes, sent at once, and closes.
    async fn answering(bytes: &'static [u8]) -> (String, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        (endpoint, task)
    }

    #[tokio::test]
    async fn an_answer_that_comes_together_with_the_end_of_its_connection_is_read() {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nServer: EC2ws\r\nConnection: close\r\n\r\ni-0123",
            b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\ni-0123",
            b"HTTP/1.0 200 OK\r\n\r\ni-0123",
        ];
        for bytes in answers {
            let (endpoint, task) = answering(bytes).await;
            let imds = Imds::at(&endpoint).expect("an address");
            assert_eq!(imds.get(PATH, PATIENCE).await, Ok("i-0123".to_owned()), "{}", bytes.escape_ascii());
            task.abort();
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_told_as_such() {
        let answers: [&[u8]; 3] =
            [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ni-0"];
        for bytes in answers {
            let (endpoint, task) = answering(bytes).await;
            let imds = Imds::at(&endpoint).expect("an address");
            let error = imds.get(PATH, PATIENCE).await.expect_err("it is not whole");
            assert!(matches!(error, ImdsError::Broken(..)), "{error}");
            assert!(!error.to_string().contains('\n'));
            task.abort();
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_unreachable() {
        let imds = Imds::at("http://127.0.0.1:1").expect("an address");
        let error = imds.get(PATH, PATIENCE).await.expect_err("nobody listens");
        assert!(matches!(error, ImdsError::Unreachable(..)), "{error}");
    }
}
