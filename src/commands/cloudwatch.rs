//! `s3mount cloudwatch install`: a dashboard and alarms for a mount, what they cost, and who must be allowed what.
//!
//! `plan` says what is to be there (pure), `apply` asks CloudWatch what is there and puts what differs.

mod apply;
mod plan;

use std::time::Duration;

use serde_json::json;

use self::apply::{Change, CloudWatch};
use self::plan::{Plan, install_policy, metrics_policy};
use super::say::say;
use super::status::resolved;
use crate::config::InstallConfig;
use crate::config::cli::{CloudWatchAction, CloudWatchArgs};
use crate::lifecycle::Failure;
use crate::lifecycle::instance::Surroundings;
use crate::lifecycle::run::{connect_failure, s3_settings};
use crate::metrics::{CloudWatchMonth, CloudWatchPrices};
use crate::store::s3::service_access;

/// Mounts send once a minute unless they are told otherwise.
const INTERVAL: Duration = Duration::from_secs(60);

/// Does what was asked.
pub(super) fn run(arguments: CloudWatchArgs) -> Result<(), Failure> {
    let CloudWatchAction::Install(mut arguments) = arguments.action;
    // A mount without a name has that of its directory, as the daemon knows it.
    arguments.dir = arguments.dir.map(|dir| resolved(&dir));
    let config = InstallConfig::new(arguments).map_err(|error| Failure::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::system(format!("no threads can be made: {error}")))?;
    runtime.block_on(install(&config))
}

async fn install(config: &InstallConfig) -> Result<(), Failure> {
    let here = Surroundings::look().await;
    let settings = s3_settings(&config.s3, &config.bucket, "", true, &here);
    let said = config.endpoint_url.clone().map(|url| ("--cloudwatch-endpoint-url", url));
    let access = service_access(&settings, "CLOUDWATCH", said).await.map_err(|error| connect_failure(&error))?;
    let shared = access.config;
    let region = shared.region().map(|region| region.as_ref().to_owned()).unwrap_or_default();
    let plan = Plan::of(config, here.id(), &region).map_err(Failure::usage)?;
    let prices = CloudWatchPrices::default();
    let month = prices.month(plan.alarms.len(), INTERVAL);
    if config.dry_run {
        let whole = json!({
            "PutDashboard": plan.dashboard,
            "PutMetricAlarm": plan.alarms,
            "PolicyOfTheMount": metrics_policy(&config.namespace),
            "PolicyOfWhoInstalls": install_policy(),
            "MonthlyPrice": month,
        });
        say!("{whole:#}");
        return Ok(());
    }
    let cloudwatch = CloudWatch::new(&shared);
    let mut changes = 0;
    let mut told = |what: &str, change: Change| {
        say!("{what}: {}", change.word());
        changes += usize::from(change != Change::None);
    };
    told(&format!("dashboard {}", plan.dashboard.dashboard_name), cloudwatch.dashboard(&plan.dashboard).await?);
    for (alarm, change) in cloudwatch.alarms(&plan.alarms).await? {
        told(&format!("alarm {}", alarm.alarm_name), change);
    }
    if changes == 0 {
        say!("nothing has changed");
    }
    say!("{}", price_line(&month, &prices));
    say!("The mount's role needs:\n{:#}", metrics_policy(&config.namespace));
    Ok(())
}

fn price_line(month: &CloudWatchMonth, prices: &CloudWatchPrices) -> String {
    format!(
        "A month costs ${:.2} ({} metrics ${:.2}, alarms ${:.2}, a request a minute ${:.2}), ${:.2} for each of at most {} \
         metrics by operation that are sent, and ${:.2} for the dashboard beyond an account's first three ({}, {})",
        month.metrics_usd + month.alarms_usd + month.requests_usd,
        month.metrics,
        month.metrics_usd,
        month.alarms_usd,
        month.requests_usd,
        month.operation_metric_usd,
        month.operation_metrics_max,
        month.dashboard_usd,
        prices.region,
        prices.dated,
    )
}
