//! The command line, as clap reads it. Nothing here is checked against the machine or against other options: see `mod.rs`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{ConfigError, LogFormat, file, fstab};

/// Mounts an S3 bucket as a file system.
#[derive(Debug, Parser)]
#[command(
    name = "s3mount",
    version,
    about = "Mounts an S3 bucket as a file system",
    long_about = "Mounts an S3 bucket as a file system: one file is one plain object.\n\n  \
        s3mount my-bucket /mnt/data\n  s3mount my-bucket/some/prefix /mnt/part -o ro,allow_other\n  \
        s3mount unmount /mnt/data",
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Another thing to do than to mount.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to mount, and how.
    #[command(flatten)]
    pub mount: MountArgs,
}

/// Why a command line was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Words that clap does not take; also help and version.
    #[error(transparent)]
    Words(#[from] clap::Error),
    /// A word behind `-o`, or in a file.
    #[error(transparent)]
    Option(#[from] ConfigError),
}

impl Cli {
    /// Reads a command line, its program's name included. A word behind `-o` counts like the long option of its name, and goes
    /// before it. What the file of `--config` says counts like the same words on the
    /// command line, and everything else goes before it.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn read(argv: impl IntoIterator<Item = OsString>) -> Result<Self, Refused> {
        Self::read_as(argv, false)
    }

    /// The same; a sloppy reader passes over words behind `-o` that are unknown (mount(8), `-s`).
    pub(super) fn read_as(argv: impl IntoIterator<Item = OsString>, sloppy: bool) -> Result<Self, Refused> {
        let mut argv: Vec<OsString> = argv.into_iter().collect();
        let mut cli = Self::try_parse_from(&argv)?;
        // Behind `--` nothing is an option.
        let mut at = argv.iter().position(|word| word == "--").unwrap_or(argv.len());
        for list in &cli.mount.options {
            let words = fstab::arguments(list, sloppy)?;
            let count = words.len();
            argv.splice(at..at, words.into_iter().map(OsString::from));
            at += count;
        }
        if !cli.mount.options.is_empty() {
            cli = Self::try_parse_from(&argv)?;
        }
        let Some(name) = &cli.mount.config else { return Ok(cli) };
        let file = file::read(&file::path(name))?;
        let heard = file.arguments.into_iter().filter(|argument| !cli.mount.contradicts(argument));
        // First, so that whatever else is said goes before it.
        argv.splice(1..1, heard.map(OsString::from).collect::<Vec<_>>());
        let mut cli = Self::try_parse_from(argv)?;
        cli.mount.source = cli.mount.source.or(file.source);
        cli.mount.dir = cli.mount.dir.or(file.dir);
        Ok(cli)
    }
}

/// Everything but mounting. A bucket of one of these names is written `s3://NAME`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Wait until everything is in S3, then unmount
    Unmount(UnmountArgs),
    /// Show what a mount is doing
    Status(StatusArgs),
    /// Look at everything that a mount needs, and say what to do where something is missing
    Doctor(DoctorArgs),
    /// Watch mounts at work
    Top(TopArgs),
    /// Bring back bytes that could not be uploaded
    Recover(RecoverArgs),
    /// Set up what watches a mount in CloudWatch
    #[command(name = "cloudwatch")]
    CloudWatch(CloudWatchArgs),
    /// Write manual pages and completions, for packages
    #[command(hide = true)]
    MakeManuals {
        /// Directory to write into
        dir: PathBuf,
    },
}

/// `s3mount unmount`.
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Where the bucket is mounted
    pub dir: PathBuf,
}

/// `s3mount status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the bucket is mounted; all mounts of this user if left out
    pub dir: Option<PathBuf>,
    /// Print one JSON object for each mount
    #[arg(long)]
    pub json: bool,
}

/// `s3mount doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Bucket, bucket and prefix, or s3://BUCKET[/PREFIX]
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub source: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write nothing into the bucket: what needs writing is not looked at
    #[arg(long)]
    pub read_only: bool,
    /// Where the mounts keep their state
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where a mount would cache blocks on disk
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// How to reach S3
    #[command(flatten)]
    pub s3: S3Args,
}

/// `s3mount top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the bucket is mounted; the first of all mounts of this user if left out
    pub dir: Option<PathBuf>,
}

/// `s3mount recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// What to do; list if left out
    #[command(subcommand)]
    pub action: Option<RecoverAction>,
    /// Where the mounts keep their state
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// How to reach S3, for export, push and discard
    #[command(flatten)]
    pub s3: S3Args,
}

/// What to do with kept bytes.
#[derive(Debug, Subcommand)]
pub enum RecoverAction {
    /// Show what is kept
    List,
    /// Write a kept file, whole, to a local path
    Export {
        /// Name of what is kept, as `list` shows it
        id: String,
        /// Local file to make
        path: PathBuf,
        /// Put zeros where the object that was written over is gone
        #[arg(long)]
        holes: bool,
    },
    /// Upload a kept file to its key
    Push {
        /// Name of what is kept, as `list` shows it
        id: String,
        /// Replace what stands at the key now
        #[arg(long)]
        force: bool,
    },
    /// Delete what is kept, for good
    Discard {
        /// Name of what is kept, as `list` shows it
        id: String,
    },
}

/// `s3mount cloudwatch`.
#[derive(Debug, Args)]
pub struct CloudWatchArgs {
    /// What to do
    #[command(subcommand)]
    pub action: CloudWatchAction,
}

/// What to do in CloudWatch.
#[derive(Debug, Subcommand)]
pub enum CloudWatchAction {
    /// Put a dashboard and alarms for a mount that was made with --cloudwatch; again changes nothing
    Install(InstallArgs),
}

/// `s3mount cloudwatch install`.
#[derive(Debug, Default, Args)]
pub struct InstallArgs {
    /// Bucket, bucket and prefix, or s3://BUCKET[/PREFIX]
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub source: String,
    /// Where it is mounted: the mount's name, unless --mount-name is
    pub dir: Option<PathBuf>,
    /// Name of the mount in its metrics
    #[arg(long, value_name = "NAME")]
    pub mount_name: Option<String>,
    /// Dimensions that the mount sends, of Bucket, MountName and InstanceId [default: Bucket,MountName]
    #[arg(long, value_name = "NAME[,...]")]
    pub cloudwatch_dimensions: Option<String>,
    /// Instance of the mount, where InstanceId is a dimension [default: this instance]
    #[arg(long, value_name = "ID")]
    pub instance_id: Option<String>,
    /// Namespace of the metrics [default: S3Mount]
    #[arg(long, value_name = "NAME")]
    pub cloudwatch_namespace: Option<String>,
    /// Another CloudWatch endpoint than the region's
    #[arg(long, value_name = "URL")]
    pub cloudwatch_endpoint_url: Option<String>,
    /// What alarms notify, such as an SNS topic; may be given up to five times
    #[arg(long, value_name = "ARN")]
    pub alarm_action: Vec<String>,
    /// Alarm when the 99th percentile of reads is longer for five minutes [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub alarm_read_latency: Option<String>,
    /// Alarm when more requests fail in five minutes [default: 10]
    #[arg(long, value_name = "COUNT")]
    pub alarm_errors: Option<u32>,
    /// Alarm when bytes wait longer to be in S3 [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub alarm_dirty_age: Option<String>,
    /// Print what would be put, as JSON, and ask CloudWatch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Region and profile
    #[command(flatten)]
    pub s3: S3Args,
}

/// How to reach S3.
#[derive(Clone, Debug, Default, Args)]
pub struct S3Args {
    /// Another S3 server than Amazon's
    #[arg(long, value_name = "URL", global = true)]
    pub endpoint_url: Option<String>,
    /// Region of the bucket [default: environment, profile, instance, or what S3 says]
    #[arg(long, value_name = "REGION", global = true)]
    pub region: Option<String>,
    /// Profile of the AWS configuration files
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,
    /// Send requests without credentials, for public buckets
    #[arg(long, global = true)]
    pub no_sign_request: bool,
    /// Name the bucket in the path, not in the host [default for IP addresses and localhost]
    #[arg(long, global = true)]
    pub force_path_style: bool,
}

/// Where the numbers go.
#[derive(Clone, Debug, Default, Args)]
pub struct MetricsArgs {
    /// Send metrics to CloudWatch
    #[arg(long)]
    pub cloudwatch: bool,
    /// Namespace of the metrics [default: S3Mount]
    #[arg(long, value_name = "NAME")]
    pub cloudwatch_namespace: Option<String>,
    /// How often metrics are sent, 1s to 5m; below 60s as high resolution [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub cloudwatch_interval: Option<String>,
    /// Another CloudWatch endpoint than the region's
    #[arg(long, value_name = "URL")]
    pub cloudwatch_endpoint_url: Option<String>,
    /// Dimensions, of Bucket, MountName and InstanceId [default: Bucket,MountName]
    #[arg(long, value_name = "NAME[,...]")]
    pub cloudwatch_dimensions: Option<String>,
    /// Name of the mount in its metrics [default: DIR]
    #[arg(long, value_name = "NAME")]
    pub mount_name: Option<String>,
    /// Answer Prometheus on this port, of the loopback if no address is given
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    pub prometheus: Option<String>,
}

impl MountArgs {
    /// Whether what was said excludes this argument of a file.
    fn contradicts(&self, argument: &str) -> bool {
        match argument.split('=').next().unwrap_or_default() {
            "--read-only" => self.read_write,
            "--allow-other" => self.allow_root,
            "--allow-root" => self.allow_other,
            "--no-sign-request" => self.s3.profile.is_some(),
            "--profile" => self.s3.no_sign_request,
            _ => false,
        }
    }
}

/// What to mount, and how.
#[derive(Clone, Debug, Default, Args)]
pub struct MountArgs {
    /// Bucket, bucket and prefix, or s3://BUCKET[/PREFIX]
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub source: Option<String>,
    /// Empty directory to mount on
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Stay in the foreground and log to stderr
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// File with what is not said here: a path, or NAME for /etc/s3mount/NAME.toml
    #[arg(long, value_name = "NAME|PATH")]
    pub config: Option<String>,
    /// How to reach S3
    #[command(flatten)]
    pub s3: S3Args,
    /// Refuse every change
    #[arg(long)]
    pub read_only: bool,
    /// `rw` behind `-o`: what is so anyway
    #[arg(long, hide = true)]
    pub read_write: bool,
    /// `noexec` behind `-o`: programs on the mount cannot be run
    #[arg(long, hide = true)]
    pub noexec: bool,
    /// `exec` behind `-o`: they can, which is so anyway
    #[arg(long, hide = true, overrides_with = "noexec")]
    pub exec: bool,
    /// Mount on a directory that is not empty: what is in it is hidden meanwhile
    #[arg(long)]
    pub nonempty: bool,
    /// Let all users in, as far as modes allow
    #[arg(long)]
    pub allow_other: bool,
    /// Let root in beside the user who mounts
    #[arg(long)]
    pub allow_root: bool,
    /// Owner of all files [default: who mounts]
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Group of all files [default: who mounts]
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// Mode of files, octal [default: 644]
    #[arg(long, value_name = "MODE")]
    pub file_mode: Option<String>,
    /// Mode of directories, octal [default: 755]
    #[arg(long, value_name = "MODE")]
    pub dir_mode: Option<String>,
    /// Keep modes, owners, times, links, special files and user.* attributes in the metadata of objects, as s3fs does; a listing
    /// then asks for each of its names once (HEAD)
    #[arg(long)]
    pub posix: bool,
    /// How old names and attributes may be, such as 500ms, 10s, 5m or 0 [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub metadata_ttl: Option<String>,
    /// Ask for small files before they are opened where files are opened in listing order; an open may then show what S3 held
    /// up to this time before, such as 250ms [default: 0, every open asks]
    #[arg(long, value_name = "TIME")]
    pub open_ahead: Option<String>,
    /// Reads and writes pass the kernel's page cache by: for programs that keep what they read, or read it once
    #[arg(long)]
    pub direct_io: bool,
    /// Memory for cached and unpublished bytes, such as 4GiB [default: a quarter of what there is, half on EC2's memory-optimised types]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// Directory on a fast local disk that keeps what was read, over restarts too; auto takes the instance store
    #[arg(long, value_name = "DIR|auto")]
    pub cache_dir: Option<PathBuf>,
    /// With --cache-dir auto: mount an instance store that is not mounted at /var/cache/s3mount, and make a file system on it first if it is blank
    #[arg(long)]
    pub format_instance_store: bool,
    /// Most that the disk cache may take, such as 100GiB [default: 80 % of what is free]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Size of the first thousand parts of an upload, 5MiB to 512MiB [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    pub part_size: Option<String>,
    /// Uploads in flight [default: 16, more where the instance type has the network for them]
    #[arg(long, value_name = "N")]
    pub max_concurrency: Option<usize>,
    /// Prices of requests and retrieval, TOML [default: a dated table of us-east-1, built in]
    #[arg(long, value_name = "FILE")]
    pub price_table: Option<PathBuf>,
    /// Warn when requests and retrieval cost more than this, and read ahead less; nothing is ever refused
    #[arg(long, value_name = "USD")]
    pub budget_usd_per_hour: Option<String>,
    /// What to log: error, warn, info, debug or trace, or a filter such as s3mount::store=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How to log: text, or json for one JSON object a line
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
    /// Where to log when not in the foreground [default: the journal under systemd, else s3mount.log in the state directory]
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Where unpublished bytes are kept [default: /var/lib/s3mount, or ~/.local/state/s3mount]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the numbers go
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Options as mount(8) and fstab write them: every long option, and the ordinary mount words
    #[arg(short = 'o', value_name = "OPTION[,...]")]
    pub options: Vec<String>,
}
