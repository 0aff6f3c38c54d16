//! How an S3 client of the SDK is made: endpoint, region, credentials, connections.
//!
//! Reads the environment and the AWS configuration files; sends nothing. Credentials are renewed while the mount lives
//! (`credentials.rs`). A plain http endpoint never touches certificates, so that an odd SSL_CERT_FILE or AWS_CA_BUNDLE
//! cannot break it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_types::service_config::ServiceConfigKey;
use base64::Engine as _;

use super::connect::{ConnectError, REGION_DEFAULT, S3Settings};
use super::credentials::Renewing;

/// S3 answers a connection within milliseconds; a lost SYN is sent again after one second and after three.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// Idle connections are dropped before S3 does so (it waits about 20 s), lest a request meet a closed one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Other services are asked one thing at a time.
const OTHER_SERVICES_IDLE_MAX: usize = 1;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    url: Option<String>,
    is_plain_http: bool,
    is_path_style: bool,
}

impl Endpoint {
    /// What the settings say, else the environment, else the profile of the AWS configuration files (the SDK would read it,
    /// too; but whether conditions must be probed depends on it).
    pub(super) async fn of(settings: &S3Settings) -> Result<Self, ConnectError> {
        let said = settings.endpoint_url.clone().map(|url| ("--endpoint-url", url));
        Self::of_service("S3", said, settings).await
    }

    /// That of another service of AWS. `service` is as in AWS_ENDPOINT_URL_S3; what was `said` goes before everything else,
    /// and has the name of who said it.
    async fn of_service(
        service: &str,
        said: Option<(&str, String)>,
        settings: &S3Settings,
    ) -> Result<Self, ConnectError> {
        let is_path_style = settings.force_path_style;
        if let Some((source, url)) = said {
            return Self::at(source, url, is_path_style);
        }
        for name in [&format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL"] {
            if let Some(url) = std::env::var(name).ok().filter(|url| !url.is_empty()) {
                return Self::at(name, url, is_path_style);
            }
        }
        match of_profile(service, settings).await {
            Some(url) => Self::at("endpoint_url of the profile", url, is_path_style),
            None => Ok(Self { url: None, is_plain_http: false, is_path_style }),
        }
    }

    fn at(source: &str, url: String, force_path_style: bool) -> Result<Self, ConnectError> {
        let bad = || ConnectError::Usage(format!("{source} {url:?} is no URL such as https://s3.example.com:9000"));
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let host = host_of(rest).ok_or_else(bad)?;
        let is_plain_http = match scheme.to_ascii_lowercase().as_str() {
            "http" => true,
            "https" => false,
            _ => return Err(bad()),
        };
        let is_local = host.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost");
        Ok(Self { is_plain_http, is_path_style: force_path_style || is_local, url: Some(url) })
    }

    /// Whether this is S3 itself, which honours all conditions.
    pub(super) fn is_aws(&self) -> bool {
        let host = self.url.as_deref().and_then(|url| host_of(url.split_once("://")?.1));
        host.is_none_or(|host| host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
    }

    /// How to call it in a message.
    pub(super) fn name(&self) -> &str {
        self.url.as_deref().unwrap_or("S3")
    }

    /// The host, if it was named.
    pub(super) fn host_name(&self) -> Option<String> {
        host_of(self.url.as_deref()?.split_once("://")?.1).map(str::to_owned)
    }

    /// " at URL", or nothing for AWS.
    pub(super) fn place(&self) -> String {
        self.url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default()
    }
}

/// The endpoint that the profile names for a service, or for all (SDKs and tools reference guide, "Service-specific
/// endpoints").
async fn of_profile(service: &str, settings: &S3Settings) -> Option<String> {
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).no_credentials().region(Region::from_static(REGION_DEFAULT));
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    let shared = loader.load().await;
    let service = service.to_ascii_lowercase();
    let key =
        ServiceConfigKey::builder().service_id(&service).profile("endpoint_url").env("AWS_ENDPOINT_URL").build().ok();
    let named = key.zip(shared.service_config()).and_then(|(key, services)| services.load_config(key));
    named.or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// The host in `user@host:port/path`.
fn host_of(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit('@').next()?;
    let host = match host_and_port.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => host_and_port.split(':').next()?,
    };
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some(host)
}

/// The region that somebody names: the settings, the environment, the profile, the instance. `None`: to be learned from
/// the bucket. An endpoint that is not AWS knows nothing of the instance's region.
pub(super) async fn named_region(settings: &S3Settings, endpoint: &Endpoint) -> Option<String> {
    let trimmed = |region: String| Some(region.trim().to_owned()).filter(|region| !region.is_empty());
    if let Some(region) = settings.region.clone().and_then(trimmed) {
        return Some(region);
    }
    let set = |name| std::env::var(name).ok().and_then(trimmed);
    if let Some(region) = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")) {
        return Some(region);
    }
    let mut profile = aws_config::profile::region::Builder::default();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    let profile = aws_config::meta::region::ProvideRegion::region(&profile.build()).await;
    let profile = profile.and_then(|region| trimmed(region.to_string()));
    profile.or_else(|| settings.instance_region.clone().filter(|_| endpoint.is_aws()))
}

/// A client with those who sign its requests; nobody does for a public bucket. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) credentials: Option<Renewing>,
}

/// A client for `region`, with credentials of the environment, the profile or the instance.
pub(super) async fn build_client(
    settings: &S3Settings,
    endpoint: &Endpoint,
    region: &str,
) -> Result<Access, ConnectError> {
    let http = http_client(endpoint, settings.max_concurrency)?;
    check_region(region)?;
    let credentials = if settings.no_sign_request { None } else { Some(Renewing::new(settings, region).await?) };
    let shared = load(region, settings.profile.as_deref(), credentials.clone()).await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        // It would fire for a body that nobody polls yet; body.rs watches bodies while they are polled.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The SDK's own checksums would force aws-chunked trailers; ours are set where bodies are sent.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if settings.no_sign_request {
        config = config.allow_no_auth();
    }
    if let Some(url) = &endpoint.url {
        config = config.endpoint_url(url);
    }
    if endpoint.is_path_style {
        config = config.force_path_style(true);
    }
    Ok(Access { client: Client::from_conf(config.build()), credentials })
}

/// A region is written into headers and hosts; the SDK panics where it cannot be.
fn check_region(region: &str) -> Result<(), ConnectError> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !region.is_empty() && region.bytes().all(letters) {
        return Ok(());
    }
    Err(ConnectError::Usage(format!(
        "{region:?} is no region such as eu-west-1: look at --region, AWS_REGION, AWS_DEFAULT_REGION and the profile"
    )))
}

/// What all clients share; no credentials where there are none.
async fn load(region: &str, profile: Option<&str>, credentials: Option<Renewing>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region.to_owned()));
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    loader = match credentials {
        None => loader.no_credentials(),
        // They are cached and renewed behind the provider, so that those that S3 refuses can be dropped.
        Some(credentials) => loader.credentials_provider(credentials).identity_cache(IdentityCache::no_cache()),
    };
    loader.load().await
}

/// What the client of another service of AWS is made from.
#[derive(Clone, Debug)]
pub struct ServiceAccess {
    /// Region, endpoint, connections and patience.
    pub config: SdkConfig,
    /// Who signs its requests; to be told where the service says that they have expired.
    pub credentials: Renewing,
}

/// What the client of another service of AWS is made from: the region, the credentials, the connections and the patience
/// of the store's own. `service` is CLOUDWATCH or the like, as in AWS_ENDPOINT_URL_CLOUDWATCH; the URL that was `said`, with
/// the name of its option, goes before that. A public bucket may be read without credentials; a service cannot be used so,
/// and `no_sign_request` is not heeded.
///
/// # Errors
/// The endpoint is no URL; nobody names a region, which AWS needs; certificates cannot be read.
pub async fn service_access(
    settings: &S3Settings,
    service: &str,
    said: Option<(&str, String)>,
) -> Result<ServiceAccess, ConnectError> {
    let endpoint = Endpoint::of_service(service, said, settings).await?;
    let region = match named_region(settings, &endpoint).await {
        Some(region) => region,
        // It is part of a signature and no more.
        None if !endpoint.is_aws() => REGION_DEFAULT.to_owned(),
        None => {
            let service = service.to_ascii_lowercase();
            return Err(ConnectError::Usage(format!(
                "no region is known for {service}: name a --region, or set AWS_REGION"
            )));
        }
    };
    check_region(&region)?;
    let credentials = Renewing::new(settings, &region).await?;
    let mut config = load(&region, settings.profile.as_deref(), Some(credentials.clone()))
        .await
        .into_builder()
        .http_client(http_client(&endpoint, OTHER_SERVICES_IDLE_MAX)?)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build());
    if let Some(url) = &endpoint.url {
        config = config.endpoint_url(url);
    }
    Ok(ServiceAccess { config: config.build(), credentials })
}

fn http_client(endpoint: &Endpoint, idle_max: usize) -> Result<SharedHttpClient, ConnectError> {
    if endpoint.is_plain_http {
        return Ok(Builder::new().pool_idle_timeout(IDLE_TIMEOUT).pool_max_idle_per_host(idle_max).build_http());
    }
    let tls = tls_context()?;
    Ok(Builder::new().build_with_connector_fn(move |connection, components| {
        let mut connector = Connector::builder()
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(idle_max)
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone());
        connector.set_connector_settings(connection.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    }))
}

/// The system's certificates, or those of AWS_CA_BUNDLE, as for the AWS CLI.
fn tls_context() -> Result<TlsContext, ConnectError> {
    let trusted = match std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        None => TrustStore::default(),
        Some(path) => TrustStore::empty().with_pem_certificate(read_bundle(Path::new(&path))?),
    };
    TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| ConnectError::Usage(format!("certificates: {error}")))
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, ConnectError> {
    let bad = |cause: &str| ConnectError::Usage(format!("AWS_CA_BUNDLE {}: {cause}", path.display()));
    let pem = std::fs::read(path).map_err(|error| bad(&error.to_string()))?;
    if has_certificates(&pem) { Ok(pem) } else { Err(bad("holds no PEM certificates")) }
}

/// The TLS library takes what it is given for checked, so it is checked here.
fn has_certificates(pem: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(pem) else { return false };
    let mut blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1).peekable();
    let is_block = |block: &str| {
        block.split_once("-----END CERTIFICATE-----").is_some_and(|(body, _)| {
            let body: String = body.split_whitespace().collect();
            base64::engine::general_purpose::STANDARD.decode(body).is_ok_and(|der| der.first() == Some(&0x30))
        })
    };
    blocks.peek().is_some() && blocks.all(is_block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Endpoint {
        Endpoint::at("--endpoint-url", url.to_owned(), false).unwrap()
    }

    #[test]
    fn an_ip_address_and_localhost_are_addressed_by_path() {
        for url in ["http://127.0.0.1:9000", "http://localhost:9000/", "https://[::1]:9000", "http://s3.localhost"] {
            assert!(at(url).is_path_style, "{url}");
        }
        assert!(!at("https://s3.example.com").is_path_style);
        assert!(Endpoint::at("--endpoint-url", "https://s3.example.com".into(), true).unwrap().is_path_style);
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_a_usage_error() {
        for url in ["localhost:9000", "ftp://host", "http://", "https:///x"] {
            let error = Endpoint::at("AWS_ENDPOINT_URL_CLOUDWATCH", url.into(), false).unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with("AWS_ENDPOINT_URL_CLOUDWATCH "), "{error}");
        }
    }

    #[test]
    fn a_region_that_no_header_takes_is_a_usage_error() {
        for region in ["eu-west-1", "us-gov-east-1", "garage", "US_1"] {
            assert!(check_region(region).is_ok(), "{region}");
        }
        for region in ["eu\nwest", "eu west", "eu-wést-1", "", "a/b"] {
            let error = check_region(region).unwrap_err();
            assert!(error.is_usage() && error.to_string().lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn aws_is_known_by_its_name() {
        assert!(Endpoint { url: None, is_plain_http: false, is_path_style: false }.is_aws());
        assert!(at("https://s3.eu-west-1.amazonaws.com").is_aws());
        assert!(at("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com").is_aws());
        assert!(!at("https://amazonaws.com.example.org").is_aws());
    }

    #[test]
    fn a_bundle_without_certificates_is_found_out() {
        assert!(!has_certificates(b""));
        assert!(!has_certificates(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"));
        assert!(has_certificates(b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"));
    }
}
