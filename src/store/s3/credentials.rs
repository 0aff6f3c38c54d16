//! Who signs requests: the sources of credentials in the AWS CLI's order, and their renewal while the mount lives.
//!
//! Owns the credentials in use. They are renewed in the background before they expire, while requests go on with the old
//! ones; credentials that AWS refused as expired are dropped, so that the next request loads new ones. A source that is away
//! never takes away credentials that still hold.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::Region;
use aws_smithy_http_client::Builder;
use parking_lot::Mutex;

use super::connect::{ConnectError, S3Settings};
use super::errors::chain_of;
use super::profile::{ProfileCredentials, check_profile};
use crate::clock::Clock;

/// Credentials are renewed so long before they expire: IMDS has new ones five minutes ahead (user guide, "Retrieve security
/// credentials from instance metadata").
const RENEW_BEFORE: Duration = Duration::from_secs(240);
/// Between two tries to renew credentials that still hold: some sources have no later ones yet.
const RENEW_PAUSE: Duration = Duration::from_secs(5);
/// Requests that were signed with the same credentials are refused within such a time.
const TOGETHER: Duration = Duration::from_secs(1);
/// Between two renewals for a refusal that may have another cause than the credentials. Those of a session hold longer.
const DOUBT_PAUSE: Duration = Duration::from_secs(300);
/// A source may take so long: a process or a login on the far side of the network takes seconds.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);
/// The metadata service answers within milliseconds; SDK's own patience is a second a try.
const IMDS_TRY: Duration = Duration::from_secs(1);

/// Where credentials came from and how long they hold, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsTold {
    /// Such as "the environment" or "the instance's role".
    pub source: &'static str,
    /// Identifies the key, and is no secret.
    pub access_key_id: String,
    /// When they expire, if they do.
    pub expires: Option<SystemTime>,
}

#[derive(Debug)]
struct Source {
    name: &'static str,
    provider: SharedCredentialsProvider,
}

#[derive(Clone, Debug)]
struct Held {
    credentials: Credentials,
    source: &'static str,
    loaded: std::time::Instant,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// When the last try to renew began.
    tried: Option<std::time::Instant>,
    /// When a refusal without a reason was last laid to the credentials in use.
    doubted: Option<std::time::Instant>,
    /// They are to be loaded anew, and hold until then.
    is_in_doubt: bool,
}

/// The credentials of one client, renewed; clones are the same.
#[derive(Clone)]
pub struct Renewing(Arc<Inner>);

struct Inner {
    sources: Vec<Source>,
    /// Why IMDS is not among the sources.
    imds_absent: Option<String>,
    state: Mutex<State>,
    loading: tokio::sync::Mutex<()>,
    clock: Clock,
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").field("sources", &self.0.sources).finish_non_exhaustive()
    }
}

/// The error in one line, without what the SDK says of every source that has nothing.
pub(super) fn cause_of(error: &CredentialsError) -> String {
    let told = chain_of(error);
    told.strip_prefix("the credential provider was not enabled: ").map_or(told.clone(), str::to_owned)
}

/// Credentials without the blanks and newlines that files and secrets end with. The SDK writes key and token into headers, and panics
/// where they cannot be in one.
fn fit_for_headers(credentials: Credentials, source: &str) -> provider::Result {
    let (key, secret) = (credentials.access_key_id(), credentials.secret_access_key());
    let token = credentials.session_token();
    let is_graphic = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let told = [("access key ID", Some(key)), ("secret access key", Some(secret)), ("session token", token)];
    for (what, value) in told {
        if value.is_some_and(|value| !is_graphic(value.trim())) {
            return Err(CredentialsError::invalid_configuration(format!(
                "the {what} of {source} is empty, or has blanks, line breaks or letters in it that none has: write it anew"
            )));
        }
    }
    if [Some(key), Some(secret), token].into_iter().flatten().all(|value| value.trim() == value) {
        return Ok(credentials);
    }
    let mut trimmed =
        Credentials::builder().access_key_id(key.trim()).secret_access_key(secret.trim()).provider_name("s3mount");
    trimmed.set_session_token(token.map(|token| token.trim().to_owned()));
    trimmed.set_expiry(credentials.expiry());
    Ok(trimmed.build())
}

fn has_keys_in_environment() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("AWS_ACCESS_KEY_ID") && is_set("AWS_SECRET_ACCESS_KEY")
}

impl Renewing {
    /// The sources that the settings and the environment name; nothing is asked yet.
    ///
    /// # Errors
    /// A profile is named that is not there: what comes after it would be another identity.
    pub(super) async fn new(settings: &S3Settings, region: &str) -> Result<Self, ConnectError> {
        check_profile(settings.profile.as_deref()).await?;
        let mut sources = Vec::new();
        let mut add = |name, provider| sources.push(Source { name, provider });
        if settings.profile.is_none() && has_keys_in_environment() {
            // What comes first anyway, without the https client that the other sources need.
            add("the environment", SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()));
        } else {
            let config = ProviderConfig::without_region().with_region(Some(Region::new(region.to_owned())));
            let profile = ProfileCredentials::new(settings.profile.as_deref(), region);
            add("a profile of the AWS configuration files", SharedCredentialsProvider::new(profile));
            let web = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
            add("a web identity token", SharedCredentialsProvider::new(web));
            let container = EcsCredentialsProvider::builder().configure(&config).build();
            add("the container's role", SharedCredentialsProvider::new(container));
            if settings.imds_absent.is_none() {
                // Plain http: no certificates are read for it.
                let config = config.with_http_client(Builder::new().build_http());
                let client = aws_config::imds::Client::builder()
                    .configure(&config)
                    .max_attempts(2)
                    .connect_timeout(IMDS_TRY)
                    .read_timeout(IMDS_TRY)
                    .build();
                let instance = ImdsCredentialsProvider::builder().configure(&config).imds_client(client).build();
                add("the instance's role", SharedCredentialsProvider::new(instance));
            }
        }
        Ok(Self::of(sources, settings.imds_absent.clone(), Clock::system()))
    }

    fn of(sources: Vec<Source>, imds_absent: Option<String>, clock: Clock) -> Self {
        let (state, loading) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { sources, imds_absent, state, loading, clock }))
    }

    /// AWS says that they have expired: the next request loads new ones. What was loaded a moment ago stays: many requests
    /// are refused together, and one renewal serves them all.
    pub fn refused(&self) {
        let mut state = self.0.state.lock();
        let now = self.0.clock.now();
        if state.held.as_ref().is_some_and(|held| now.saturating_duration_since(held.loaded) > TOGETHER) {
            state.held = None;
        }
    }

    /// AWS gives no reason for a refusal, and does so to credentials that have expired. Tells whether the next request may have
    /// others: seldom, for what is refused for another reason is refused for ever.
    pub(super) fn doubted(&self) -> bool {
        let mut state = self.0.state.lock();
        let now = self.0.clock.now();
        let since = state.doubted.map(|doubted| now.saturating_duration_since(doubted));
        if since.is_none_or(|since| since >= DOUBT_PAUSE) {
            state.doubted = Some(now);
            state.is_in_doubt = true;
        }
        // Many requests are refused together.
        state.is_in_doubt || since.is_some_and(|since| since <= TOGETHER)
    }

    /// Where the credentials come from.
    pub(super) async fn told(&self) -> Result<CredentialsTold, String> {
        let held = self.get().await.map_err(|error| cause_of(&error))?;
        let (access_key_id, expires) = (held.credentials.access_key_id().to_owned(), held.credentials.expiry());
        Ok(CredentialsTold { source: held.source, access_key_id, expires })
    }

    async fn get(&self) -> Result<Held, CredentialsError> {
        if let (Some(held), false) = (self.present(), self.is_in_doubt()) {
            return Ok(held);
        }
        let _loading = self.0.loading.lock().await;
        // Somebody else may have loaded them meanwhile.
        match self.present() {
            Some(held) if !self.is_in_doubt() => Ok(held),
            // They most likely hold: the doubt takes nothing away.
            Some(held) => Ok(self.load().await.unwrap_or(held)),
            None => self.load().await,
        }
    }

    fn is_in_doubt(&self) -> bool {
        self.0.state.lock().is_in_doubt
    }

    /// What is held and has not expired; begins to renew it when it is about to.
    fn present(&self) -> Option<Held> {
        let mut state = self.0.state.lock();
        let held = state.held.clone()?;
        let Some(expires) = held.credentials.expiry() else { return Some(held) };
        let left = expires.duration_since(self.0.clock.wall()).ok().filter(|left| !left.is_zero())?;
        let now = self.0.clock.now();
        let may_try = state.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= RENEW_PAUSE);
        if left <= RENEW_BEFORE && may_try {
            state.tried = Some(now);
            let renewing = self.clone();
            tokio::spawn(async move {
                let _loading = renewing.0.loading.lock().await;
                if let Err(error) = renewing.load().await {
                    tracing::warn!("credentials are not renewed yet ({} s are left): {error}", left.as_secs());
                }
            });
        }
        Some(held)
    }

    /// Asks the sources in order. The first that has credentials, or ought to have them and fails, decides.
    async fn load(&self) -> Result<Held, CredentialsError> {
        let mut lacking: Vec<&str> = Vec::new();
        self.0.state.lock().is_in_doubt = false;
        for source in &self.0.sources {
            let asked = tokio::time::timeout(LOAD_TIMEOUT, source.provider.provide_credentials()).await;
            let asked = asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LOAD_TIMEOUT)));
            match asked.and_then(|credentials| fit_for_headers(credentials, source.name)) {
                Ok(credentials) => {
                    let held = Held { credentials, source: source.name, loaded: self.0.clock.now() };
                    let expires = held.credentials.expiry().map(humantime::format_rfc3339_seconds);
                    let expires = expires.map_or_else(|| "never".to_owned(), |time| time.to_string());
                    tracing::info!(
                        source = source.name,
                        key = held.credentials.access_key_id(),
                        expires,
                        "credentials"
                    );
                    self.0.state.lock().held = Some(held.clone());
                    return Ok(held);
                }
                Err(CredentialsError::CredentialsNotLoaded(_)) => lacking.push(source.name),
                Err(error) => return Err(error),
            }
        }
        let absent = self.0.imds_absent.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        Err(CredentialsError::not_loaded(format!("{} had none{absent}", lacking.join(", "))))
    }
}

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { provider::Result::Ok(self.get().await?.credentials) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Hands out key after key, each for `lifetime`.
    #[derive(Debug)]
    struct Rotating {
        clock: Clock,
        lifetime: Duration,
        given: Arc<AtomicU32>,
        is_away: Arc<std::sync::atomic::AtomicBool>,
    }

    impl ProvideCredentials for Rotating {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if self.is_away.load(Ordering::SeqCst) {
                return future::ProvideCredentials::ready(Err(CredentialsError::provider_error("away")));
            }
            let key = format!("KEY{}", self.given.fetch_add(1, Ordering::SeqCst) + 1);
            let expires = Some(self.clock.wall() + self.lifetime);
            future::ProvideCredentials::ready(Ok(Credentials::new(key, "secret", None, expires, "test")))
        }
    }

    struct Bed {
        clock: Clock,
        given: Arc<AtomicU32>,
        is_away: Arc<std::sync::atomic::AtomicBool>,
        renewing: Renewing,
    }

    fn bed() -> Bed {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let (given, is_away) = (Arc::default(), Arc::default());
        let lifetime = Duration::from_secs(3600);
        let rotating =
            Rotating { clock: clock.clone(), lifetime, given: Arc::clone(&given), is_away: Arc::clone(&is_away) };
        let sources = vec![Source { name: "test", provider: SharedCredentialsProvider::new(rotating) }];
        Bed { renewing: Renewing::of(sources, None, clock.clone()), clock, given, is_away }
    }

    impl Bed {
        async fn key(&self) -> Result<String, CredentialsError> {
            let key = self.renewing.provide_credentials().await?.access_key_id().to_owned();
            // A renewal in the background has its turn.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            Ok(key)
        }
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_they_expire() {
        let bed = bed();
        assert_eq!(bed.key().await.expect("a key"), "KEY1");
        bed.clock.advance(Duration::from_secs(3000));
        assert_eq!(bed.key().await.expect("a key"), "KEY1");
        assert_eq!(bed.given.load(Ordering::SeqCst), 1);
        bed.clock.advance(Duration::from_secs(400));
        // The request that notices goes on with the old key, for which nobody waits.
        assert_eq!(bed.key().await.expect("a key"), "KEY1");
        assert_eq!(bed.key().await.expect("a key"), "KEY2");
    }

    #[tokio::test]
    async fn a_source_that_is_away_leaves_what_still_holds() {
        let bed = bed();
        bed.key().await.expect("a key");
        bed.is_away.store(true, Ordering::SeqCst);
        bed.clock.advance(Duration::from_secs(3590));
        assert_eq!(bed.key().await.expect("a key"), "KEY1");
        bed.clock.advance(Duration::from_secs(20));
        bed.key().await.expect_err("it has expired");
        bed.is_away.store(false, Ordering::SeqCst);
        assert_eq!(bed.key().await.expect("a key"), "KEY2");
    }

    #[tokio::test]
    async fn refused_credentials_are_loaded_anew_once_for_all_requests() {
        let bed = bed();
        bed.key().await.expect("a key");
        bed.clock.advance(Duration::from_secs(10));
        bed.renewing.refused();
        assert_eq!(bed.key().await.expect("a key"), "KEY2");
        bed.renewing.refused();
        assert_eq!(bed.key().await.expect("a key"), "KEY2");
    }

    #[tokio::test]
    async fn keys_are_trimmed_and_what_no_header_takes_is_refused() {
        let given = |key: &str, secret: &str, token: Option<&str>| {
            let credentials = Credentials::new(key, secret, token.map(str::to_owned), None, "test");
            fit_for_headers(credentials, "the environment").map_err(|error| cause_of(&error))
        };
        // As a secret of Kubernetes that was made with echo has them.
        let trimmed = given("KEY\n", " secret\r\n", Some("token\n")).expect("good keys");
        assert_eq!((trimmed.access_key_id(), trimmed.secret_access_key()), ("KEY", "secret"));
        assert_eq!(trimmed.session_token(), Some("token"));
        for (key, secret, token) in
            [("K\nY", "s", None), ("", "s", None), ("K", "s t", None), ("K", "s", Some("t\n\u{e9}"))]
        {
            let refused = given(key, secret, token).expect_err("no header takes it");
            assert!(refused.contains("of the environment is empty") && refused.lines().count() == 1, "{refused}");
            assert!(!refused.contains(secret) || secret == "s", "a secret is told: {refused}");
        }
    }

    #[tokio::test]
    async fn a_refusal_without_a_reason_renews_them_now_and_then_and_takes_none_away() {
        let bed = bed();
        bed.key().await.expect("a key");
        for _ in 0..2 {
            assert!(bed.renewing.doubted(), "many are refused together");
            assert_eq!(bed.key().await.expect("a key"), "KEY2");
        }
        for _ in 0..3 {
            bed.clock.advance(Duration::from_secs(60));
            assert!(!bed.renewing.doubted());
            assert_eq!(bed.key().await.expect("a key"), "KEY2");
        }
        bed.clock.advance(DOUBT_PAUSE);
        bed.is_away.store(true, Ordering::SeqCst);
        assert!(bed.renewing.doubted());
        assert_eq!(bed.key().await.expect("it holds"), "KEY2");
    }

    #[tokio::test]
    async fn a_lack_of_credentials_names_who_was_asked_and_why_the_instance_was_not() {
        let renewing = Renewing::of(Vec::new(), Some("this machine is no EC2 instance".into()), Clock::system());
        let error = renewing.told().await.expect_err("nobody has any");
        assert!(error.contains("no EC2 instance") && !error.contains("enabled"), "{error}");
    }
}
