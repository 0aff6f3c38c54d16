//! What was typed, and what it means: a validated configuration, every limit with its unit in its name.

pub mod cli;
mod file;
mod fstab;
pub mod helper;
mod in_force;
mod install;
mod limits;
mod machine;
mod measures;
mod memory;
mod metrics;

use std::path::PathBuf;
use std::time::Duration;

use self::cli::{MountArgs, S3Args};
pub use self::install::InstallConfig;
pub use self::limits::{AttributeDefaults, CacheDir, DiskCacheConfig, NamespaceLimits, ReadLimits, WriteLimits};
pub use self::machine::{Machine, Said};
pub use self::memory::{MEMORY_BYTES_MIN, present_bytes};
pub use self::metrics::{CloudWatchConfig, DimensionName, MetricsConfig, endpoint, name_of, namespace};

/// What is wrong with what was typed; each says cause and remedy in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No bucket or no directory.
    #[error("{0} is missing: write s3mount BUCKET[/PREFIX] DIR")]
    Missing(&'static str),
    /// The bucket's name cannot be one.
    #[error("{0:?} is no bucket name: 3 to 63 lower-case letters, digits, dots and dashes")]
    Bucket(String),
    /// The prefix has no path.
    #[error("the prefix {0:?} has an empty, `.` or `..` part: such keys have no path")]
    Prefix(String),
    /// An unknown word behind `-o`.
    #[error("unknown option {name:?}; {}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// What was typed.
        name: String,
        /// The known word that looks most like it.
        nearest: Option<String>,
    },
    /// A value that cannot be one.
    #[error("bad value for {0}: {1}")]
    Value(String, String),
    /// A file that cannot be read, or says what it cannot.
    #[error("{place}: {why}")]
    File {
        /// Path, and line where there is one.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// An option that means nothing without another.
    #[error("--{0} needs --{1}: add it, or leave the first out")]
    Needs(&'static str, &'static str),
    /// Two options that exclude each other.
    #[error("{0} and {1} contradict each other: leave one out")]
    Contradiction(&'static str, &'static str),
}

fn suggestion(near: Option<&str>) -> String {
    near.map_or_else(|| "s3mount --help lists them".to_owned(), |near| format!("did you mean {near:?}?"))
}

/// How a record of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people, and for the journal.
    #[default]
    Text,
    /// A JSON object on a line.
    Json,
}

/// How to reach S3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Config {
    /// Another server than Amazon's.
    pub endpoint_url: Option<String>,
    /// Region, if it was said.
    pub region: Option<String>,
    /// Profile of the AWS configuration files.
    pub profile: Option<String>,
    /// No credentials.
    pub no_sign_request: bool,
    /// The bucket is named in the path. Set for endpoints that are an IP address or localhost.
    pub force_path_style: bool,
}

/// One mount, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountConfig {
    /// Bucket and prefix, as typed: mount(8) finds its line in fstab again by it.
    pub source: String,
    /// Bucket.
    pub bucket: String,
    /// What all keys begin with: empty, or ending in `/`.
    pub prefix: String,
    /// Directory to mount on, as typed; every other path here is absolute.
    pub dir: PathBuf,
    /// Stay in the foreground.
    pub foreground: bool,
    /// How to reach S3.
    pub s3: S3Config,
    /// Refuse every change.
    pub read_only: bool,
    /// Programs on the mount cannot be run.
    pub no_exec: bool,
    /// What is in the directory may be hidden.
    pub nonempty: bool,
    /// Let all users in.
    pub allow_other: bool,
    /// Let root in.
    pub allow_root: bool,
    /// Owners and modes.
    pub defaults: AttributeDefaults,
    /// Where the numbers go.
    pub metrics: MetricsConfig,
    /// Limits of the namespace.
    pub namespace: NamespaceLimits,
    /// How old the answer of S3 may be with which a small file is opened that follows its neighbour; zero: every open asks.
    pub open_ahead: Duration,
    /// Reads and writes pass the page cache by.
    pub direct_io: bool,
    /// Limits of the read engine.
    pub read: ReadLimits,
    /// Limits of the write engine.
    pub write: WriteLimits,
    /// Memory that both share, in bytes.
    pub memory_limit_bytes: u64,
    /// Which of the limits the user set.
    pub said: Said,
    /// The disk cache, if there is to be one.
    pub disk_cache: Option<DiskCacheConfig>,
    /// Another price table than the one that is built in.
    pub price_table: Option<PathBuf>,
    /// Budget for requests and retrieval in millionths of a US dollar an hour.
    pub budget_micro_usd_per_hour: Option<u64>,
    /// What to log.
    pub log_level: String,
    /// In which form.
    pub log_format: LogFormat,
    /// Where to log in the background.
    pub log_file: Option<PathBuf>,
    /// Where state is kept, if it was said.
    pub state_dir: Option<PathBuf>,
}

/// Most uploads in flight that can be asked for: as many connections to S3, each with a part in memory. The largest instances
/// reach 100 Gbit/s with less than two hundred.
const UPLOADS_MAX: usize = 4096;
/// Largest part size that can be asked for: a part is sent as one request and held in memory whole.
const PART_BYTES_MAX: u64 = 512 << 20;

impl S3Config {
    /// Checks what was typed.
    ///
    /// # Errors
    /// A bad endpoint; options that exclude each other.
    pub fn new(arguments: S3Args) -> Result<Self, ConfigError> {
        if arguments.no_sign_request && arguments.profile.is_some() {
            return Err(ConfigError::Contradiction("no-sign-request", "profile"));
        }
        let host = match &arguments.endpoint_url {
            Some(url) => Some(endpoint_host("endpoint-url", url)?),
            None => None,
        };
        let by_address = host.is_some_and(|host| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok());
        Ok(Self {
            endpoint_url: arguments.endpoint_url,
            region: arguments.region,
            profile: arguments.profile,
            no_sign_request: arguments.no_sign_request,
            force_path_style: arguments.force_path_style || by_address,
        })
    }
}

/// The host of the URL that an option names.
fn endpoint_host(option: &str, url: &str) -> Result<String, ConfigError> {
    let why = || ConfigError::Value(option.into(), format!("{url:?} is no http:// or https:// address"));
    host_of(url).ok_or_else(why)
}

/// The host of a URL, without brackets and port.
fn host_of(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    if let Some(bracketed) = authority.strip_prefix('[') {
        return Some(bracketed.split(']').next()?.to_owned());
    }
    Some(authority.split(':').next()?.to_owned())
}

impl MountConfig {
    /// Checks what was typed. `ids` are user and group of who mounts.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(arguments: MountArgs, ids: (u32, u32)) -> Result<Self, ConfigError> {
        let source = arguments.source.as_deref().ok_or(ConfigError::Missing("the bucket"))?;
        let (bucket, prefix) = parse_source(source)?;
        let dir = arguments.dir.clone().ok_or(ConfigError::Missing("the directory"))?;
        if arguments.allow_other && arguments.allow_root {
            return Err(ConfigError::Contradiction("allow-other", "allow-root"));
        }
        if arguments.read_only && arguments.read_write {
            return Err(ConfigError::Contradiction("rw", "read-only"));
        }
        let defaults = AttributeDefaults {
            uid: arguments.uid.unwrap_or(ids.0),
            gid: arguments.gid.unwrap_or(ids.1),
            file_mode: mode("file-mode", arguments.file_mode.as_deref())?.unwrap_or(0o644),
            dir_mode: mode("dir-mode", arguments.dir_mode.as_deref())?.unwrap_or(0o755),
            posix: arguments.posix,
        };
        let (mut read, mut write) = (ReadLimits::default(), WriteLimits::default());
        let memory_limit_bytes = memory_limit(arguments.memory_limit.as_deref())?;
        memory::divide(memory_limit_bytes, read.window_bytes_max, &mut read, &mut write);
        if let Some(part_bytes) = part_size(arguments.part_size.as_deref())? {
            write.part_bytes = part_bytes;
            write.single_put_bytes_max = part_bytes;
        }
        if let Some(uploads) = arguments.max_concurrency {
            if !(1..=UPLOADS_MAX).contains(&uploads) {
                let why = format!("{uploads} is not between 1 and {UPLOADS_MAX}");
                return Err(ConfigError::Value("max-concurrency".into(), why));
            }
            write.uploads_max = uploads;
        }
        let mut namespace = NamespaceLimits::default();
        if let Some(ttl) = duration("metadata-ttl", arguments.metadata_ttl.as_deref())? {
            namespace.metadata_ttl = ttl;
        }
        let open_ahead = duration("open-ahead", arguments.open_ahead.as_deref())?.unwrap_or_default();
        let disk_cache = disk_cache(&arguments)?;
        Ok(Self {
            source: source.to_owned(),
            bucket,
            prefix,
            dir,
            foreground: arguments.foreground,
            s3: S3Config::new(arguments.s3)?,
            metrics: MetricsConfig::new(arguments.metrics)?,
            read_only: arguments.read_only,
            no_exec: arguments.noexec,
            nonempty: arguments.nonempty,
            allow_other: arguments.allow_other,
            allow_root: arguments.allow_root,
            defaults,
            namespace,
            open_ahead,
            direct_io: arguments.direct_io,
            read,
            write,
            memory_limit_bytes,
            said: Said {
                memory_limit: arguments.memory_limit.is_some(),
                max_concurrency: arguments.max_concurrency.is_some(),
            },
            disk_cache,
            price_table: arguments.price_table.map(absolute),
            budget_micro_usd_per_hour: budget(arguments.budget_usd_per_hour.as_deref())?,
            log_level: arguments.log_level.unwrap_or_else(|| "info".into()),
            log_format: arguments.log_format.unwrap_or_default(),
            log_file: arguments.log_file.map(absolute),
            state_dir: arguments.state_dir.map(absolute),
        })
    }
}

fn budget(text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let usd = text.trim().trim_start_matches('$').parse::<f64>().ok().filter(|usd| usd.is_finite());
    let micro = usd.map(|usd| (usd * 1e6).round()).filter(|micro| (1.0..1e15).contains(micro));
    let bad = || ConfigError::Value("budget-usd-per-hour".into(), format!("{text:?} is no amount such as 0.50"));
    micro.map(|micro| Some(micro as u64)).ok_or_else(bad)
}

fn duration(name: &str, text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match measures::duration(text) {
        Some(duration) => Ok(Some(duration)),
        None => Err(ConfigError::Value(name.into(), format!("{text:?} is no time such as 500ms, 10s or 5m"))),
    }
}

fn mode(name: &str, text: Option<&str>) -> Result<Option<u32>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match measures::mode(text) {
        Some(mode) => Ok(Some(mode)),
        None => Err(ConfigError::Value(name.into(), format!("{text:?} is no octal mode such as 644"))),
    }
}

fn size(name: &str, text: &str) -> Result<u64, ConfigError> {
    measures::size_bytes(text)
        .ok_or_else(|| ConfigError::Value(name.into(), format!("{text:?} is no size such as 512MiB or 4GiB")))
}

fn memory_limit(text: Option<&str>) -> Result<u64, ConfigError> {
    let Some(text) = text else { return Ok((memory::present_bytes() / 4).max(memory::MEMORY_BYTES_MIN)) };
    let bytes = size("memory-limit", text)?;
    if bytes < memory::MEMORY_BYTES_MIN {
        return Err(ConfigError::Value("memory-limit".into(), "at least 64MiB".into()));
    }
    Ok(bytes)
}

/// A path as it is meant where it was typed: a daemon leaves the directory of whoever called it.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The least that a disk cache can do with.
const CACHE_BYTES_MIN: u64 = 64 << 20;

fn disk_cache(arguments: &MountArgs) -> Result<Option<DiskCacheConfig>, ConfigError> {
    let is_auto = arguments.cache_dir.as_deref().is_some_and(|dir| dir.as_os_str() == "auto");
    let format = arguments.format_instance_store;
    if format && !is_auto {
        return Err(ConfigError::Value("format-instance-store".into(), "only together with --cache-dir auto".into()));
    }
    let Some(dir) = &arguments.cache_dir else {
        return match arguments.cache_size {
            Some(_) => Err(ConfigError::Value("cache-size".into(), "name a directory with --cache-dir, too".into())),
            None => Ok(None),
        };
    };
    let size_bytes = arguments.cache_size.as_deref().map(|text| size("cache-size", text)).transpose()?;
    if size_bytes.is_some_and(|bytes| bytes < CACHE_BYTES_MIN) {
        return Err(ConfigError::Value("cache-size".into(), "at least 64MiB".into()));
    }
    let dir = if is_auto { CacheDir::InstanceStore { format } } else { CacheDir::At(absolute(dir.clone())) };
    Ok(Some(DiskCacheConfig { dir, size_bytes }))
}

fn part_size(text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let bytes = size("part-size", text)?;
    // Parts are made of whole pages of 1 MiB.
    if !(5 << 20..=PART_BYTES_MAX).contains(&bytes) || bytes % (1 << 20) != 0 {
        return Err(ConfigError::Value("part-size".into(), "5MiB to 512MiB, in whole MiB".into()));
    }
    Ok(Some(bytes))
}

/// Bucket and prefix of `BUCKET[/PREFIX]` or `s3://BUCKET[/PREFIX]`.
///
/// # Errors
/// Either cannot be one.
pub fn parse_source(source: &str) -> Result<(String, String), ConfigError> {
    let source = source.strip_prefix("s3://").unwrap_or(source);
    let (bucket, prefix) = source.split_once('/').unwrap_or((source, ""));
    let letters = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b".-_".contains(&letter);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(letters) {
        return Err(ConfigError::Bucket(bucket.to_owned()));
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Ok((bucket.to_owned(), String::new()));
    }
    if prefix.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(ConfigError::Prefix(prefix.to_owned()));
    }
    Ok((bucket.to_owned(), format!("{prefix}/")))
}

#[cfg(test)]
mod tests {
    use super::cli::Cli;
    use super::*;

    fn config(words: &[&str]) -> Result<MountConfig, ConfigError> {
        let argv = ["s3mount", "bucket", "/mnt"].iter().chain(words).map(Into::into);
        let cli = Cli::read(argv).expect("words that clap takes");
        MountConfig::new(cli.mount, (1000, 1000))
    }

    #[test]
    fn sources_are_read() {
        for (source, bucket, prefix) in [
            ("bucket", "bucket", ""),
            ("s3://unmount", "unmount", ""),
            ("bucket/a/b/", "bucket", "a/b/"),
            ("s3://bucket/a,b", "bucket", "a,b/"),
        ] {
            assert_eq!(parse_source(source), Ok((bucket.to_owned(), prefix.to_owned())), "{source}");
        }
        assert!(matches!(parse_source("No"), Err(ConfigError::Bucket(_))));
        assert!(matches!(parse_source("bucket/a//b"), Err(ConfigError::Prefix(_))));
        assert!(matches!(parse_source("bucket/../b"), Err(ConfigError::Prefix(_))));
    }

    #[test]
    fn contradictions_are_refused() {
        let both = config(&["--allow-other", "--allow-root"]);
        assert_eq!(both, Err(ConfigError::Contradiction("allow-other", "allow-root")));
        let rw = config(&["--read-only", "-o", "rw"]);
        assert_eq!(rw, Err(ConfigError::Contradiction("rw", "read-only")));
        let anonymous = config(&["--no-sign-request", "-o", "profile=p"]);
        assert_eq!(anonymous, Err(ConfigError::Contradiction("no-sign-request", "profile")));
    }

    #[test]
    fn a_disk_cache_is_asked_for_by_its_directory() {
        let cache = |words: &[&str]| config(words).map(|config| config.disk_cache);
        assert_eq!(cache(&[]), Ok(None));
        let auto = DiskCacheConfig { dir: CacheDir::InstanceStore { format: false }, size_bytes: Some(1 << 30) };
        assert_eq!(cache(&["-o", "cache_dir=auto,cache_size=1GiB"]), Ok(Some(auto)));
        let at = DiskCacheConfig { dir: CacheDir::At("/c".into()), size_bytes: None };
        assert_eq!(cache(&["--cache-dir", "/c"]), Ok(Some(at)));
        let formatted = DiskCacheConfig { dir: CacheDir::InstanceStore { format: true }, size_bytes: None };
        assert_eq!(cache(&["-o", "cache_dir=auto,format_instance_store"]), Ok(Some(formatted)));
        assert!(cache(&["--format-instance-store"]).is_err());
        assert!(cache(&["--cache-dir", "/c", "--format-instance-store"]).is_err());
        assert!(cache(&["--cache-size", "1GiB"]).is_err());
        assert!(cache(&["--cache-dir", "/c", "--cache-size", "1MiB"]).is_err());
    }

    #[test]
    fn path_style_is_chosen_for_addresses() {
        for (url, path_style) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000/", true),
            ("http://[::1]:9000", true),
            ("https://s3.example.com", false),
        ] {
            let s3 = S3Config::new(S3Args { endpoint_url: Some(url.into()), ..S3Args::default() }).expect("a good URL");
            assert_eq!(s3.force_path_style, path_style, "{url}");
        }
        assert!(S3Config::new(S3Args { endpoint_url: Some("ftp://x".into()), ..S3Args::default() }).is_err());
    }

    #[test]
    fn options_reach_the_limits() {
        let config =
            config(&["-o", "memory_limit=1GiB,part-size=16MiB,metadata-ttl=0,file_mode=600"]).expect("good options");
        assert_eq!(config.write.part_bytes, 16 << 20);
        assert_eq!(config.defaults.file_mode, 0o600);
        assert!(config.namespace.metadata_ttl.is_zero());
        assert_eq!(config.read.cache_bytes + config.read.in_flight_bytes + config.write.staging_bytes, 1 << 30);
    }

    #[test]
    fn paths_mean_what_they_meant_where_they_were_typed() {
        let relative = ["--log-file", "l", "--state-dir", "./s", "--price-table", "p.toml", "--cache-dir", "c"];
        let config = config(&relative).expect("good options");
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(config.log_file, Some(here.join("l")));
        assert_eq!(config.state_dir, Some(here.join("s")));
        assert_eq!(config.price_table, Some(here.join("p.toml")));
        assert_eq!(config.disk_cache.map(|cache| cache.dir), Some(CacheDir::At(here.join("c"))));
    }

    #[test]
    fn a_limit_that_no_machine_has_is_refused() {
        for bad in ["0", "4097", "18446744073709551615"] {
            let refused = config(&["--max-concurrency", bad]).expect_err(bad).to_string();
            assert_eq!(refused, format!("bad value for max-concurrency: {bad} is not between 1 and 4096"));
        }
        for bad in ["17179869184GiB", "99999999999999TiB"] {
            assert!(config(&["--memory-limit", bad]).is_err(), "{bad}");
        }
        assert!(config(&["--metadata-ttl", "150000000000000d"]).is_err());
    }

    #[test]
    fn a_budget_is_dollars() {
        let budget = |text| config(&["--budget-usd-per-hour", text]).map(|config| config.budget_usd_per_hour());
        assert_eq!(budget("0.5"), Ok(Some(0.5)));
        assert_eq!(budget("$12"), Ok(Some(12.0)));
        for bad in ["0", "nan", "much", "1e30"] {
            assert!(matches!(budget(bad), Err(ConfigError::Value(..))), "{bad}");
        }
    }

    #[test]
    fn a_word_behind_o_goes_before_the_same_option() {
        let config = config(&["--uid", "1", "-o", "uid=2", "-o", "uid=3,allow_other"]).expect("good options");
        assert_eq!((config.defaults.uid, config.allow_other), (3, true));
    }
}
