//! An instance metadata service for the facts: a stub of our own that hands out credentials and misbehaves, and the real
//! ec2-metadata-mock of AWS, where it is on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use super::mount::Mounting;
use super::outcome::{Failure, Outcome};
use super::process::{cache_dir, find, poll, spawn};
use super::server::free_port;

/// How the stub behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
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
    /// How long credentials hold from the moment in which they are made.
    lifetime: Duration,
    /// When each key expires, in the order in which they were made.
    keys: Mutex<Vec<(String, SystemTime)>>,
    /// How many keys are made at most; the last one is given for ever.
    keys_max: usize,
    requests: Mutex<BTreeMap<String, u32>>,
}

/// A stub on a port of its own, which hands out a new key for each question.
#[derive(Debug)]
pub struct ImdsStub {
    state: Arc<State>,
    /// Its address.
    pub endpoint: String,
}

impl ImdsStub {
    /// Begins. It lives as long as the suite; nobody asks it any more when its fact is over.
    pub fn start(manner: Manner, lifetime: Duration, keys_max: usize) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (keys, requests) = (Mutex::default(), Mutex::default());
        let state = Arc::new(State { manner, lifetime, keys, keys_max, requests });
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                thread::spawn(move || serve(&state, &stream));
            }
        });
        Ok(Self { state, endpoint })
    }

    /// A mount that has nothing but this service.
    pub fn mounting(&self) -> Mounting {
        without_keys(&self.endpoint)
    }

    /// The keys that have expired by now.
    pub fn expired(&self) -> Vec<String> {
        let now = SystemTime::now();
        let keys = self.state.keys.lock().expect("nobody panics with it");
        keys.iter().filter(|(_, expires)| *expires <= now).map(|(key, _)| key.clone()).collect()
    }

    /// All keys that it made.
    pub fn keys(&self) -> Vec<String> {
        self.state.keys.lock().expect("nobody panics with it").iter().map(|(key, _)| key.clone()).collect()
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> u32 {
        self.state.requests.lock().expect("nobody panics with it").get(path).copied().unwrap_or(0)
    }
}

/// A mount that has its credentials from nobody but the service at `endpoint`.
pub fn without_keys(endpoint: &str) -> Mounting {
    Mounting::default()
        .variable("AWS_ACCESS_KEY_ID", None)
        .variable("AWS_SECRET_ACCESS_KEY", None)
        .variable("AWS_EC2_METADATA_DISABLED", None)
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", Some(endpoint))
}

fn serve(state: &State, stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    // As the real one does, which closes each connection after its answer.
    if let Some(first) = lines.next() {
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        *state.requests.lock().expect("nobody panics with it").entry(path.to_owned()).or_default() += 1;
        if state.manner == Manner::Hangs || (state.manner == Manner::LosesTokens && method == "PUT") {
            // Silent until the asker hangs up.
            lines.for_each(drop);
            return;
        }
        let answer = if method == "PUT" { Some("a-token".to_owned()) } else { answer(state, path) };
        let (status, body) = answer.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
        let text = format!(
            "HTTP/1.1 {status}\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\nServer: EC2ws\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // Nobody may be listening any more.
        let _ = (&*stream).write_all(text.as_bytes());
    }
}

fn answer(state: &State, path: &str) -> Option<String> {
    match path {
        "/latest/dynamic/instance-identity/document" => {
            Some(r#"{"instanceId": "i-0stub", "instanceType": "r6in.8xlarge", "region": "us-east-1"}"#.to_owned())
        }
        "/latest/meta-data/instance-life-cycle" => Some("on-demand".to_owned()),
        "/latest/meta-data/iam/security-credentials/" => Some("a-role".to_owned()),
        "/latest/meta-data/iam/security-credentials/a-role" => {
            let mut keys = state.keys.lock().expect("nobody panics with it");
            if keys.len() < state.keys_max {
                let key = format!("ASIASTUB{:08}", keys.len() + 1);
                keys.push((key, SystemTime::now() + state.lifetime));
            }
            let (key, expires) = keys.last()?;
            let expires = humantime::format_rfc3339_seconds(*expires);
            Some(format!(
                r#"{{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": "{key}",
                "SecretAccessKey": "secret", "Token": "session", "Expiration": "{expires}"}}"#
            ))
        }
        _ => None,
    }
}

/// AWS's own mock, where scripts/test has put it.
pub struct MetadataMock {
    /// Its address.
    pub endpoint: String,
    child: Child,
    _scratch: tempfile::TempDir,
}

impl MetadataMock {
    /// Where the program is, or why it is not.
    pub fn program() -> Result<PathBuf, String> {
        find("ec2-metadata-mock", &[cache_dir().join("bin")])
            .ok_or_else(|| "ec2-metadata-mock is not on PATH (scripts/test installs it, with Go)".to_owned())
    }

    /// Starts it with these arguments and this configuration.
    pub fn start(program: &std::path::Path, arguments: &[&str], configuration: &str) -> Outcome<Self> {
        let scratch = tempfile::Builder::new().prefix("s3mount-imds-").tempdir()?;
        let file = scratch.path().join("configuration.json");
        std::fs::write(&file, configuration)?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--imdsv2", "-n", "127.0.0.1", "-p", &port.to_string(), "-c"]).arg(&file);
        command.env_clear().env("HOME", scratch.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn(command, libc::SIGKILL)?;
        if !poll(Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)).is_ok()) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure("ec2-metadata-mock does not listen".into()));
        }
        Ok(Self { endpoint: format!("http://127.0.0.1:{port}"), child, _scratch: scratch })
    }
}

impl Drop for MetadataMock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
