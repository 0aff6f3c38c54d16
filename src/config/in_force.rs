//! The options of a mount as they are in force, defaults filled in: for people who ask. Holds nothing secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{CacheDir, MountConfig};

impl MountConfig {
    /// The budget for requests and retrieval in US dollars an hour.
    pub fn budget_usd_per_hour(&self) -> Option<f64> {
        self.budget_micro_usd_per_hour.map(|micro| micro as f64 / 1e6)
    }

    /// Options by name, values as they could be typed.
    pub fn in_force(&self) -> BTreeMap<String, String> {
        let or_default = |value: &Option<String>| value.clone().unwrap_or_else(|| "default".into());
        let path_or_default =
            |path: &Option<PathBuf>| or_default(&path.as_ref().map(|path| path.display().to_string()));
        let cloudwatch = self.metrics.cloudwatch.as_ref();
        let mut options = vec![
            ("read-only", self.read_only.to_string()),
            ("nonempty", self.nonempty.to_string()),
            ("allow-other", self.allow_other.to_string()),
            ("allow-root", self.allow_root.to_string()),
            ("uid", self.defaults.uid.to_string()),
            ("gid", self.defaults.gid.to_string()),
            ("file-mode", format!("{:o}", self.defaults.file_mode)),
            ("dir-mode", format!("{:o}", self.defaults.dir_mode)),
            ("posix", self.defaults.posix.to_string()),
            ("metadata-ttl", format!("{}ms", self.namespace.metadata_ttl.as_millis())),
            ("open-ahead", format!("{}ms", self.open_ahead.as_millis())),
            ("direct-io", self.direct_io.to_string()),
            ("part-size", self.write.part_bytes.to_string()),
            ("max-concurrency", self.write.uploads_max.to_string()),
            ("memory-limit", self.memory_limit_bytes.to_string()),
            ("endpoint-url", or_default(&self.s3.endpoint_url)),
            ("region", or_default(&self.s3.region)),
            ("profile", or_default(&self.s3.profile)),
            ("no-sign-request", self.s3.no_sign_request.to_string()),
            ("force-path-style", self.s3.force_path_style.to_string()),
            ("log-level", self.log_level.clone()),
            ("log-format", format!("{:?}", self.log_format).to_lowercase()),
            ("log-file", path_or_default(&self.log_file)),
            ("state-dir", path_or_default(&self.state_dir)),
            ("price-table", path_or_default(&self.price_table)),
            ("cloudwatch", cloudwatch.is_some().to_string()),
            ("mount-name", or_default(&self.metrics.mount_name)),
        ];
        if let Some(cache) = &self.disk_cache {
            let dir = match &cache.dir {
                CacheDir::At(dir) => dir.display().to_string(),
                CacheDir::InstanceStore { .. } => "auto".into(),
            };
            let formats = matches!(cache.dir, CacheDir::InstanceStore { format: true });
            options.push(("cache-dir", dir));
            options.push(("format-instance-store", formats.to_string()));
            options.push(("cache-size", or_default(&cache.size_bytes.map(|bytes| bytes.to_string()))));
        }
        if let Some(it) = cloudwatch {
            let names: Vec<_> = it.dimensions.iter().map(|dimension| dimension.name()).collect();
            options.push(("cloudwatch-namespace", it.namespace.clone()));
            options.push(("cloudwatch-interval", format!("{}ms", it.interval.as_millis())));
            options.push(("cloudwatch-endpoint-url", or_default(&it.endpoint_url)));
            options.push(("cloudwatch-dimensions", names.join(",")));
        }
        if let Some(address) = self.metrics.prometheus {
            options.push(("prometheus", address.to_string()));
        }
        if let Some(budget) = self.budget_usd_per_hour() {
            options.push(("budget-usd-per-hour", budget.to_string()));
        }
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::super::cli::{Cli, MountArgs};
    use super::*;

    /// What is no property of the mount: where its options stand, and who waits for it.
    const OF_THE_CALL: [&str; 2] = ["config", "foreground"];

    #[test]
    fn every_option_is_told() {
        let line = "s3mount data /mnt --cloudwatch --prometheus 9000 --cache-dir auto --budget-usd-per-hour 1";
        let cli = Cli::read(line.split(' ').map(Into::into)).expect("good options");
        let told = MountConfig::new(cli.mount, (0, 0)).expect("good options").in_force();
        let known = MountArgs::augment_args(Command::new("s3mount"));
        let names = known.get_arguments().filter(|option| !option.is_hide_set()).filter_map(clap::Arg::get_long);
        let missing: Vec<_> = names.filter(|name| !told.contains_key(*name) && !OF_THE_CALL.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
