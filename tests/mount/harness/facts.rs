//! What a fact is, and how one is run: on which servers, in which place, under which clock, and what is printed when it
//! does not hold.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use super::mount::{Mount, Mounting};
use super::outcome::{Failure, Outcome};
use super::place::Place;
use super::server::{Kind, Server};
use super::watchdog::{self, Watched};

/// How long a fact may take unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(90);

/// What a fact gets to work with.
#[derive(Clone, Copy)]
enum Body {
    /// A folder in the mount that all share. It must leave the daemon and the server as they were.
    Shared(fn(&Place) -> Outcome),
    /// Whatever it mounts itself.
    Own(fn(&Context) -> Outcome),
}

/// A named promise of the file system, checked on a real mount.
#[derive(Clone)]
pub struct Fact {
    module: &'static str,
    name: &'static str,
    body: Body,
    limit: Duration,
    only: &'static [Kind],
    differs: &'static [(Kind, &'static str)],
}

/// A fact in the shared mount.
macro_rules! shared {
    ($name:ident) => {
        $crate::harness::facts::Fact::shared(module_path!(), stringify!($name), $name)
    };
}

/// A fact that mounts for itself.
macro_rules! own {
    ($name:ident) => {
        $crate::harness::facts::Fact::own(module_path!(), stringify!($name), $name)
    };
}

pub(crate) use {own, shared};

impl Fact {
    /// See [`shared!`].
    pub fn shared(module: &'static str, name: &'static str, body: fn(&Place) -> Outcome) -> Self {
        Self::new(module, name, Body::Shared(body))
    }

    /// See [`own!`].
    pub fn own(module: &'static str, name: &'static str, body: fn(&Context) -> Outcome) -> Self {
        Self::new(module, name, Body::Own(body)).on(S3)
    }

    fn new(module: &'static str, name: &'static str, body: Body) -> Self {
        let module = module.rsplit("::").next().unwrap_or(module);
        Self { module, name, body, limit: LIMIT, only: &Kind::ALL, differs: &[] }
    }

    /// Runs on these servers only.
    pub fn on(self, only: &'static [Kind]) -> Self {
        Self { only, ..self }
    }

    /// What a server does otherwise, so that the fact cannot hold on it: it is reported as skipped, with the reason.
    pub fn differs(self, differs: &'static [(Kind, &'static str)]) -> Self {
        Self { differs, ..self }
    }

    /// May take so many seconds.
    pub fn seconds(self, seconds: u64) -> Self {
        Self { limit: Duration::from_secs(seconds), ..self }
    }

    /// The trial of the fact on a server; `None` if it is not one of that server's.
    pub fn trial(&self, kind: Kind) -> Option<Trial> {
        if !self.only.contains(&kind) {
            return None;
        }
        let fact = self.clone();
        let name = format!("{kind}::{}::{}", self.module, self.name);
        Some(Trial::ignorable_test(name.clone(), move || fact.run(kind, &name)))
    }

    fn run(&self, kind: Kind, name: &str) -> Result<Completion, Failed> {
        if let Err(reason) = kind.program() {
            return Ok(Completion::ignored_with(reason));
        }
        if let Some((_, why)) = self.differs.iter().find(|(server, _)| *server == kind) {
            return Ok(Completion::ignored_with(format!("{kind} differs: {why}")));
        }
        // The first fact of a server waits for it to start; that is not the fact's own time.
        let server = sites().server(kind).map_err(|f| Failed::from(f.0))?;
        let watched = Watched::begin(name, self.limit);
        let result = panic::catch_unwind(AssertUnwindSafe(|| match self.body {
            Body::Shared(body) => body(&sites().place(kind, &format!("{}-{}", self.module, self.name))?),
            Body::Own(body) => body(&Context { kind, server }),
        }));
        let message = match result {
            Ok(Ok(())) if !watched.timed_out() => return Ok(Completion::Completed),
            Ok(Ok(())) => format!("took over {:?}", self.limit),
            Ok(Err(failure)) => failure.0,
            Err(panic) => panic_message(&*panic),
        };
        if SKIP.with(|skip| skip.borrow().is_some()) {
            let reason = SKIP.with(|skip| skip.borrow_mut().take()).unwrap_or_default();
            return Ok(Completion::ignored_with(reason));
        }
        Err(Failed::from(format!("{message}\n{}", watched.logs())))
    }
}

/// The servers on which everything but the plain mode runs.
pub const S3: &[Kind] = &[Kind::S3sim, Kind::Moto, Kind::Versitygw, Kind::Minio];
/// The simulator alone: facts that need its counters, faults or cheap bytes.
pub const SIM: &[Kind] = &[Kind::S3sim];

thread_local! {
    static SKIP: RefCell<Option<String>> = const { RefCell::new(None) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Ends a fact that this machine cannot show, with the reason: `return skip("no sqlite3")`.
pub fn skip(reason: &str) -> Outcome {
    SKIP.with(|skip| *skip.borrow_mut() = Some(reason.to_owned()));
    Err(Failure(reason.to_owned()))
}

/// Keeps the place of a panic with its message, for the report of the fact.
pub fn note_panics() {
    panic::set_hook(Box::new(|info| {
        // A worker of a fact has nobody who reports for it.
        if !watchdog::is_watched() {
            eprintln!("{info}");
        }
        PANIC.with(|note| *note.borrow_mut() = info.to_string());
    }));
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let noted = PANIC.with(|note| std::mem::take(&mut *note.borrow_mut()));
    if noted.is_empty() { panic.downcast_ref::<String>().cloned().unwrap_or_default() } else { noted }
}

/// What a fact with mounts of its own gets.
pub struct Context {
    /// Which server.
    pub kind: Kind,
    server: Arc<Server>,
}

impl Context {
    /// A server: the shared one, or for the simulator a new one, whose faults and counters are the fact's alone.
    pub fn server(&self) -> Outcome<Arc<Server>> {
        if self.kind == Kind::S3sim { Ok(Arc::new(Server::start(self.kind)?)) } else { Ok(Arc::clone(&self.server)) }
    }

    /// A new bucket, mounted with these arguments.
    pub fn mount(&self, options: &[&str]) -> Outcome<Place> {
        self.mount_as(&Mounting::with(options))
    }

    /// A new bucket, mounted so.
    pub fn mount_as(&self, how: &Mounting) -> Outcome<Place> {
        let server = self.server()?;
        let bucket = server.new_bucket()?;
        Ok(Place::top(Mount::start(&server, &bucket, how)?))
    }

    /// A second mount of the same bucket.
    pub fn second(&self, first: &Place, options: &[&str]) -> Outcome<Place> {
        Ok(Place::top(Mount::start(&first.mount.server, &first.mount.bucket, &Mounting::with(options))?))
    }
}

/// The servers that were started, each with the mount that its facts share.
pub struct Sites(Mutex<Vec<Site>>);

/// A server, or why it did not start; nothing before somebody asked for it.
type Started = Option<Result<Arc<Server>, String>>;

struct Site {
    kind: Kind,
    server: Arc<Mutex<Started>>,
    mount: Arc<Mutex<Option<Arc<Mount>>>>,
}

/// The one [`Sites`] of the suite.
pub fn sites() -> &'static Sites {
    static SITES: Sites = Sites(Mutex::new(Vec::new()));
    &SITES
}

impl Sites {
    fn site<R>(&self, kind: Kind, take: impl FnOnce(&Site) -> R) -> R {
        let mut sites = self.0.lock().expect("nobody panics with it");
        if let Some(site) = sites.iter().find(|site| site.kind == kind) {
            return take(site);
        }
        let site = Site { kind, server: Arc::default(), mount: Arc::default() };
        let taken = take(&site);
        sites.push(site);
        taken
    }

    /// The server of a kind, started by whoever asks first.
    pub fn server(&self, kind: Kind) -> Outcome<Arc<Server>> {
        let slot = self.site(kind, |site| Arc::clone(&site.server));
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.get_or_insert_with(|| Server::start(kind).map(Arc::new).map_err(|f| f.0)).clone().map_err(Failure)
    }

    /// The shared mount of a server, mounted anew if it broke.
    pub fn mount(&self, kind: Kind) -> Outcome<Arc<Mount>> {
        let server = self.server(kind)?;
        let slot = self.site(kind, |site| Arc::clone(&site.mount));
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mount) = slot.as_ref().filter(|mount| kind == Kind::Plain || mount.is_mounted()) {
            return Ok(Arc::clone(mount));
        }
        let bucket = server.new_bucket()?;
        let mount = Mount::start(&server, &bucket, &Mounting::default())?;
        *slot = Some(Arc::clone(&mount));
        Ok(mount)
    }

    fn place(&self, kind: Kind, name: &str) -> Outcome<Place> {
        let mount = self.mount(kind)?;
        watchdog::watch(&mount);
        Place::folder(mount, name)
    }

    /// The kinds whose shared mount was used.
    pub fn mounted(&self) -> Vec<Kind> {
        let sites = self.0.lock().expect("nobody panics with it");
        let used = |site: &&Site| site.mount.lock().is_ok_and(|mount| mount.is_some());
        sites.iter().filter(used).map(|site| site.kind).collect()
    }

    /// Unmounts and ends everything.
    pub fn end(&self) {
        let sites = std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for site in &sites {
            drop(site.mount.lock().map(|mut mount| mount.take()));
        }
        for site in &sites {
            drop(site.server.lock().map(|mut server| server.take()));
        }
    }
}
