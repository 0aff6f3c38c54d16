//! Where the numbers go: CloudWatch, Prometheus, and the name under which a mount is found there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::cli::MetricsArgs;
use super::{ConfigError, endpoint_host, measures};

/// Shortest and longest interval: high-resolution metrics have seconds, and the console's graphs have five minutes.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(300);
const INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// Below this an interval is a high-resolution metric (API reference, MetricDatum: StorageResolution).
const STANDARD_RESOLUTION: Duration = Duration::from_secs(60);
/// Bytes of a namespace and of a dimension's value (API reference, PutMetricData and Dimension).
const NAMESPACE_BYTES_MAX: usize = 255;
const DIMENSION_BYTES_MAX: usize = 1024;

/// What tells the series of one mount from those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimensionName {
    /// The bucket.
    Bucket,
    /// The mount's name.
    MountName,
    /// The EC2 instance: each instance has series of its own, and pays for them.
    InstanceId,
}

impl DimensionName {
    const ALL: [Self; 3] = [Self::Bucket, Self::MountName, Self::InstanceId];

    /// As CloudWatch is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bucket => "Bucket",
            Self::MountName => "MountName",
            Self::InstanceId => "InstanceId",
        }
    }
}

/// The export to CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatchConfig {
    /// Namespace of the metrics.
    pub namespace: String,
    /// How often numbers are sent: 1 s to 5 min.
    pub interval: Duration,
    /// Another endpoint than the region's.
    pub endpoint_url: Option<String>,
    /// Dimensions of each metric, in this order.
    pub dimensions: Vec<DimensionName>,
}

impl CloudWatchConfig {
    /// Whether the metrics are stored with one-second resolution.
    pub fn is_high_resolution(&self) -> bool {
        self.interval < STANDARD_RESOLUTION
    }
}

/// Where the numbers go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// To CloudWatch, if asked for.
    pub cloudwatch: Option<CloudWatchConfig>,
    /// Where Prometheus may ask, if it may.
    pub prometheus: Option<SocketAddr>,
    /// Name of the mount, if it was said; else the directory's path is it.
    pub mount_name: Option<String>,
}

impl MetricsConfig {
    /// Checks what was typed.
    ///
    /// # Errors
    /// A bad value; an option of CloudWatch without `--cloudwatch`.
    pub fn new(arguments: MetricsArgs) -> Result<Self, ConfigError> {
        for (said, name) in [
            (arguments.cloudwatch_namespace.is_some(), "cloudwatch-namespace"),
            (arguments.cloudwatch_interval.is_some(), "cloudwatch-interval"),
            (arguments.cloudwatch_endpoint_url.is_some(), "cloudwatch-endpoint-url"),
            (arguments.cloudwatch_dimensions.is_some(), "cloudwatch-dimensions"),
        ] {
            if said && !arguments.cloudwatch {
                return Err(ConfigError::Needs(name, "cloudwatch"));
            }
        }
        if arguments.mount_name.is_some() && !arguments.cloudwatch && arguments.prometheus.is_none() {
            return Err(ConfigError::Needs("mount-name", "cloudwatch or --prometheus"));
        }
        let cloudwatch = match arguments.cloudwatch {
            false => None,
            true => Some(CloudWatchConfig {
                namespace: namespace(arguments.cloudwatch_namespace)?,
                interval: interval(arguments.cloudwatch_interval.as_deref())?,
                endpoint_url: endpoint(arguments.cloudwatch_endpoint_url)?,
                dimensions: dimensions(arguments.cloudwatch_dimensions.as_deref())?,
            }),
        };
        let prometheus = arguments.prometheus.as_deref().map(address).transpose()?;
        let mount_name = arguments.mount_name.map(mount_name).transpose()?;
        Ok(Self { cloudwatch, prometheus, mount_name })
    }
}

/// The name of a mount, checked.
///
/// # Errors
/// CloudWatch would refuse it as the value of a dimension.
pub(super) fn mount_name(name: String) -> Result<String, ConfigError> {
    if is_dimension_value(&name) {
        return Ok(name);
    }
    let why = format!("{name:?} is no name: 1 to {DIMENSION_BYTES_MAX} printable ASCII letters, no colon first");
    Err(ConfigError::Value("mount-name".into(), why))
}

/// The namespace, checked.
///
/// # Errors
/// CloudWatch would refuse it.
pub fn namespace(said: Option<String>) -> Result<String, ConfigError> {
    let Some(name) = said else { return Ok("S3Mount".to_owned()) };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#:".contains(&byte);
    let fits = (1..=NAMESPACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(letter);
    if !fits || name.starts_with("AWS/") || name.starts_with(':') {
        let why = format!("{name:?} is no namespace: letters, digits and . - _ / # :, and not AWS/ first");
        return Err(ConfigError::Value("cloudwatch-namespace".into(), why));
    }
    Ok(name)
}

/// The endpoint, checked.
///
/// # Errors
/// It is no URL.
pub fn endpoint(said: Option<String>) -> Result<Option<String>, ConfigError> {
    if let Some(url) = &said {
        endpoint_host("cloudwatch-endpoint-url", url)?;
    }
    Ok(said)
}

fn interval(said: Option<&str>) -> Result<Duration, ConfigError> {
    let Some(text) = said else { return Ok(INTERVAL_DEFAULT) };
    let interval = measures::duration(text).filter(|it| (INTERVAL_MIN..=INTERVAL_MAX).contains(it));
    // Intervals begin at whole multiples of themselves, which the timestamps of CloudWatch must be able to say.
    interval.filter(|it| it.subsec_nanos() == 0).ok_or_else(|| {
        let why = format!("{text:?} is no time from 1s to 5m, in whole seconds");
        ConfigError::Value("cloudwatch-interval".into(), why)
    })
}

/// The dimensions, checked.
///
/// # Errors
/// A name that is none, or is there twice.
pub(super) fn dimensions(said: Option<&str>) -> Result<Vec<DimensionName>, ConfigError> {
    let Some(text) = said else { return Ok(vec![DimensionName::Bucket, DimensionName::MountName]) };
    let mut dimensions = Vec::new();
    for word in text.split(',') {
        match DimensionName::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(word.trim())) {
            Some(dimension) if !dimensions.contains(&dimension) => dimensions.push(dimension),
            Some(_) | None => {
                let why = format!("{word:?}: write some of Bucket,MountName,InstanceId, each once");
                return Err(ConfigError::Value("cloudwatch-dimensions".into(), why));
            }
        }
    }
    Ok(dimensions)
}

/// `9100`, `127.0.0.1:9100`, `[::1]:9100` or `localhost:9100`.
fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let port = text.strip_prefix("localhost:").unwrap_or(text).parse::<u16>();
    port.map(|port| SocketAddr::new(loopback, port)).or_else(|_| text.parse()).map_err(|_| {
        let why = format!("{text:?} is no address: write a port such as 9100, or 127.0.0.1:9100");
        ConfigError::Value("prometheus".into(), why)
    })
}

/// What CloudWatch takes as the value of a dimension.
pub(super) fn is_dimension_value(text: &str) -> bool {
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (1..=DIMENSION_BYTES_MAX).contains(&text.len())
        && text.bytes().all(printable)
        && !text.starts_with(':')
        && !text.trim().is_empty()
}

/// The name of a mount that has none: its directory's path, spelled so that CloudWatch takes it.
pub fn name_of(dir: &std::path::Path) -> String {
    let printable = |letter: char| if letter.is_ascii_graphic() { letter } else { '_' };
    let name: String = dir.to_string_lossy().chars().map(printable).take(DIMENSION_BYTES_MAX).collect();
    if is_dimension_value(&name) { name } else { "mount".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloudwatch() -> MetricsArgs {
        MetricsArgs { cloudwatch: true, ..MetricsArgs::default() }
    }

    #[test]
    fn an_option_of_cloudwatch_without_it_is_refused() {
        let lonely = MetricsArgs { cloudwatch_interval: Some("1s".into()), ..MetricsArgs::default() };
        let error = MetricsConfig::new(lonely).expect_err("it needs --cloudwatch");
        assert_eq!(error.to_string(), "--cloudwatch-interval needs --cloudwatch: add it, or leave the first out");
        let unnamed = MetricsArgs { mount_name: Some("x".into()), ..MetricsArgs::default() };
        assert!(matches!(MetricsConfig::new(unnamed), Err(ConfigError::Needs("mount-name", _))));
    }

    #[test]
    fn defaults_are_a_minute_and_two_dimensions() {
        let config = MetricsConfig::new(cloudwatch()).expect("good options").cloudwatch.expect("asked for");
        assert_eq!((config.namespace.as_str(), config.interval), ("S3Mount", Duration::from_secs(60)));
        assert_eq!(config.dimensions, [DimensionName::Bucket, DimensionName::MountName]);
        assert!(!config.is_high_resolution());
    }

    #[test]
    fn intervals_are_one_second_to_five_minutes() {
        for (text, seconds) in [("1s", 1), ("5m", 300), ("10", 10)] {
            assert_eq!(interval(Some(text)), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["0", "500ms", "1.5s", "6m", "soon"] {
            assert!(interval(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_port_is_on_the_loopback() {
        for (text, found) in [
            ("9100", Some("127.0.0.1:9100")),
            ("localhost:9100", Some("127.0.0.1:9100")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("example.org:80", None),
            ("70000", None),
        ] {
            assert_eq!(address(text).ok(), found.map(|it| it.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn what_cloudwatch_would_refuse_is_refused_here() {
        for name in ["AWS/S3", "", "a b", ":x"] {
            assert!(namespace(Some(name.into())).is_err(), "{name}");
        }
        assert!(dimensions(Some("Bucket,bucket")).is_err());
        assert!(dimensions(Some("Owner")).is_err());
        assert_eq!(dimensions(Some("instanceid")), Ok(vec![DimensionName::InstanceId]));
        assert!(!is_dimension_value(" ") && !is_dimension_value("ä") && is_dimension_value("/mnt/data"));
        assert_eq!(name_of(std::path::Path::new("/mnt/d ü")), "/mnt/d__");
    }
}
