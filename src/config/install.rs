//! What watches a mount in CloudWatch: which mount, and when its alarms go off.

use std::time::Duration;

use super::cli::InstallArgs;
use super::metrics::{dimensions, is_dimension_value, mount_name};
use super::{ConfigError, DimensionName, S3Config, endpoint, measures, name_of, namespace, parse_source};

/// The 99th percentile of reads that is too long: a read that S3 answers takes 15 to 60 ms, its queue included a few times that.
const READ_LATENCY_DEFAULT: Duration = Duration::from_secs(1);
/// Failed requests in five minutes that are too many. Single ones are repeated, and nobody notices.
const ERRORS_DEFAULT: u32 = 10;
/// How long bytes may wait. Files that are open and written to for longer are ordinary; then it wants a larger one.
const DIRTY_AGE_DEFAULT: Duration = Duration::from_secs(600);
/// Actions of an alarm (API reference, PutMetricAlarm).
const ACTIONS_MAX: usize = 5;
/// So that the names of alarms, which have 255 letters, hold it.
const MOUNT_NAME_BYTES_MAX: usize = 128;

/// What `s3mount cloudwatch install` puts.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallConfig {
    /// Bucket of the mount.
    pub bucket: String,
    /// Name of the mount in its metrics; there if it is among the dimensions.
    pub mount_name: Option<String>,
    /// The instance of the mount, if it was said.
    pub instance_id: Option<String>,
    /// Dimensions that the mount sends.
    pub dimensions: Vec<DimensionName>,
    /// Namespace of the metrics.
    pub namespace: String,
    /// Another endpoint than the region's.
    pub endpoint_url: Option<String>,
    /// ARNs of what alarms notify.
    pub alarm_actions: Vec<String>,
    /// 99th percentile of reads above which an alarm goes off.
    pub read_latency_max: Duration,
    /// Failed requests in five minutes above which one does.
    pub errors_max: u32,
    /// Age of unpublished bytes above which one does.
    pub dirty_age_max: Duration,
    /// Print, and ask nobody.
    pub dry_run: bool,
    /// Region and profile.
    pub s3: S3Config,
}

impl InstallConfig {
    /// Checks what was typed.
    ///
    /// # Errors
    /// A bad value, or a mount that has no name.
    pub fn new(arguments: InstallArgs) -> Result<Self, ConfigError> {
        let (bucket, _) = parse_source(&arguments.source)?;
        let dimensions = dimensions(arguments.cloudwatch_dimensions.as_deref())?;
        let name = match (arguments.mount_name, &arguments.dir) {
            _ if !dimensions.contains(&DimensionName::MountName) => None,
            (Some(name), _) => Some(mount_name(name)?),
            (None, Some(dir)) => Some(name_of(dir)),
            (None, None) => return Err(ConfigError::Missing("the directory, or --mount-name,")),
        };
        // The search expression of the dashboard has both kinds of quotes.
        let fits = |name: &String| name.len() <= MOUNT_NAME_BYTES_MAX && !name.contains(['"', '\'', '\\']);
        if let Some(name) = name.as_ref().filter(|name| !fits(name)) {
            let why =
                format!("{name:?} is longer than {MOUNT_NAME_BYTES_MAX} letters, or has quotes: mount with another");
            return Err(ConfigError::Value("mount-name".into(), why));
        }
        let instance = arguments.instance_id;
        if instance.is_some() && !dimensions.contains(&DimensionName::InstanceId) {
            return Err(ConfigError::Needs("instance-id", "cloudwatch-dimensions with InstanceId"));
        }
        let is_id = |id: &String| id.starts_with("i-") && id.len() <= 32 && fits(id) && is_dimension_value(id);
        if let Some(id) = instance.as_ref().filter(|id| !is_id(id)) {
            let why = format!("{id:?} is no instance such as i-0123456789abcdef0");
            return Err(ConfigError::Value("instance-id".into(), why));
        }
        let actions = arguments.alarm_action;
        if let Some(action) = actions.iter().find(|action| !action.starts_with("arn:")) {
            let why = format!("{action:?} is no ARN such as arn:aws:sns:eu-west-1:123456789012:topic");
            return Err(ConfigError::Value("alarm-action".into(), why));
        }
        if actions.len() > ACTIONS_MAX {
            let why = format!("an alarm has {ACTIONS_MAX} actions at most");
            return Err(ConfigError::Value("alarm-action".into(), why));
        }
        Ok(Self {
            bucket,
            mount_name: name,
            instance_id: instance,
            dimensions,
            namespace: namespace(arguments.cloudwatch_namespace)?,
            endpoint_url: endpoint(arguments.cloudwatch_endpoint_url)?,
            alarm_actions: actions,
            read_latency_max: time("alarm-read-latency", arguments.alarm_read_latency, READ_LATENCY_DEFAULT)?,
            errors_max: arguments.alarm_errors.unwrap_or(ERRORS_DEFAULT),
            dirty_age_max: time("alarm-dirty-age", arguments.alarm_dirty_age, DIRTY_AGE_DEFAULT)?,
            dry_run: arguments.dry_run,
            s3: S3Config::new(arguments.s3)?,
        })
    }
}

fn time(option: &str, said: Option<String>, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = said else { return Ok(default) };
    measures::duration(&text).filter(|time| !time.is_zero()).ok_or_else(|| {
        let why = format!("{text:?} is no time such as 500ms, 2s or 10m");
        ConfigError::Value(option.to_owned(), why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> InstallArgs {
        InstallArgs { source: "s3://bucket/prefix".into(), dir: Some("/mnt/data".into()), ..InstallArgs::default() }
    }

    #[test]
    fn a_mount_is_named_by_its_directory_unless_it_has_a_name() {
        let config = InstallConfig::new(arguments()).expect("good words");
        assert_eq!((config.bucket.as_str(), config.mount_name.as_deref()), ("bucket", Some("/mnt/data")));
        let named = InstallArgs { mount_name: Some("jobs".into()), ..arguments() };
        assert_eq!(InstallConfig::new(named).expect("good words").mount_name.as_deref(), Some("jobs"));
        assert!(InstallConfig::new(InstallArgs { dir: None, ..arguments() }).is_err());
    }

    #[test]
    fn only_what_is_a_dimension_needs_a_value() {
        let of = |dimensions: &str| InstallArgs { cloudwatch_dimensions: Some(dimensions.into()), ..arguments() };
        let config = InstallConfig::new(InstallArgs { dir: None, ..of("Bucket") }).expect("a bucket has its name");
        assert_eq!((config.dimensions, config.mount_name), (vec![DimensionName::Bucket], None));
        let id = Some("i-0123456789abcdef0".to_owned());
        let config = InstallArgs { instance_id: id.clone(), ..of("InstanceId,Bucket") };
        assert_eq!(InstallConfig::new(config).expect("good words").instance_id, id);
        let lonely = InstallConfig::new(InstallArgs { instance_id: id, ..arguments() });
        assert!(matches!(lonely, Err(ConfigError::Needs("instance-id", _))), "{lonely:?}");
    }

    #[test]
    fn what_cloudwatch_would_refuse_is_refused_here() {
        for bad in [
            InstallArgs { mount_name: Some("a\"b".into()), ..arguments() },
            InstallArgs { mount_name: Some("x".repeat(200)), ..arguments() },
            InstallArgs { cloudwatch_dimensions: Some("Bucket,Bucket".into()), ..arguments() },
            InstallArgs {
                cloudwatch_dimensions: Some("InstanceId".into()),
                instance_id: Some("web-1".into()),
                ..arguments()
            },
            InstallArgs { alarm_action: vec!["topic".into()], ..arguments() },
            InstallArgs { alarm_action: vec!["arn:x".into(); 6], ..arguments() },
            InstallArgs { alarm_dirty_age: Some("0".into()), ..arguments() },
            InstallArgs { alarm_read_latency: Some("soon".into()), ..arguments() },
            InstallArgs { cloudwatch_namespace: Some("AWS/S3".into()), ..arguments() },
        ] {
            assert!(InstallConfig::new(bad).is_err());
        }
    }
}
