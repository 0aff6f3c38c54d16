//! The options of a mount as they are in force, defaults filled in: for people who ask. Holds nothing secret.

use std::collections::BTreeMap;

use super::MountConfig;

impl MountConfig {
    /// The budget for requests and retrieval in US dollars an hour.
    pub fn budget_usd_per_hour(&self) -> Option<f64> {
        self.budget_micro_usd_per_hour.map(|micro| micro as f64 / 1e6)
    }

    /// Options by name, values as they could be typed.
    pub fn in_force(&self) -> BTreeMap<String, String> {
        let or_default = |value: &Option<String>| value.clone().unwrap_or_else(|| "default".into());
        let mut options = vec![
            ("read-only", self.read_only.to_string()),
            ("allow-other", self.allow_other.to_string()),
            ("allow-root", self.allow_root.to_string()),
            ("uid", self.defaults.uid.to_string()),
            ("gid", self.defaults.gid.to_string()),
            ("file-mode", format!("{:o}", self.defaults.file_mode)),
            ("dir-mode", format!("{:o}", self.defaults.dir_mode)),
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
        ];
        if let Some(path) = &self.price_table {
            options.push(("price-table", path.display().to_string()));
        }
        if let Some(budget) = self.budget_usd_per_hour() {
            options.push(("budget-usd-per-hour", budget.to_string()));
        }
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
