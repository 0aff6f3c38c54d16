//! What is to be there: a dashboard, alarms, policies. Pure; spelled as CloudWatch's API spells it, so that what is
//! printed can be handed to any other client.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::InstallConfig;
use crate::metrics::{ByKind, Counter, Derived, Gauge, Latency};

/// Seconds of a point of the dashboard, and of a period of an alarm.
const PERIOD_SECONDS: i32 = 60;
/// The dashboard's grid is 24 wide; three widgets stand side by side.
const WIDGET_WIDTH: usize = 8;
const WIDGET_HEIGHT: usize = 6;
const WIDGETS_IN_A_ROW: usize = 3;

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) dashboard: Dashboard,
    pub(super) alarms: Vec<Alarm>,
}

/// Input of PutDashboard.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Dashboard {
    pub(super) dashboard_name: String,
    pub(super) dashboard_body: String,
}

/// A dimension.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Dimension {
    pub(super) name: String,
    pub(super) value: String,
}

/// Input of PutMetricAlarm.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Alarm {
    pub(super) alarm_name: String,
    pub(super) alarm_description: String,
    pub(super) namespace: String,
    pub(super) metric_name: String,
    pub(super) dimensions: Vec<Dimension>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) statistic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extended_statistic: Option<String>,
    pub(super) period: i32,
    pub(super) evaluation_periods: i32,
    pub(super) datapoints_to_alarm: i32,
    pub(super) threshold: f64,
    pub(super) comparison_operator: String,
    pub(super) treat_missing_data: String,
    pub(super) alarm_actions: Vec<String>,
    #[serde(rename = "OKActions")]
    pub(super) ok_actions: Vec<String>,
}

impl Plan {
    pub(super) fn of(config: &InstallConfig, region: &str) -> Self {
        Self { dashboard: dashboard(config, region), alarms: alarms(config) }
    }
}

fn dimensions(config: &InstallConfig) -> Vec<Dimension> {
    let of = |name: &str, value: &str| Dimension { name: name.to_owned(), value: value.to_owned() };
    vec![of("Bucket", &config.bucket), of("MountName", &config.mount_name)]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn alarms(config: &InstallConfig) -> Vec<Alarm> {
    let alarm = |what: &str, description: &str, metric: &str, statistic: &str, threshold: f64| {
        let is_percentile = statistic.starts_with('p');
        Alarm {
            alarm_name: format!("S3Mount {} {} - {what}", config.bucket, config.mount_name),
            alarm_description: description.to_owned(),
            namespace: config.namespace.clone(),
            metric_name: metric.to_owned(),
            dimensions: dimensions(config),
            statistic: (!is_percentile).then(|| statistic.to_owned()),
            extended_statistic: is_percentile.then(|| statistic.to_owned()),
            period: PERIOD_SECONDS,
            evaluation_periods: 5,
            datapoints_to_alarm: 5,
            threshold,
            comparison_operator: "GreaterThanThreshold".into(),
            // A mount that is idle, or unmounted, is well.
            treat_missing_data: "notBreaching".into(),
            alarm_actions: config.alarm_actions.clone(),
            ok_actions: config.alarm_actions.clone(),
        }
    };
    let slow = "Reads are slow: s3mount status and the log of the mount say whether S3, the network or the queue is.";
    let failing = "Requests to S3 fail: the log of the mount names the operation and the cause.";
    let waiting = "Bytes wait to be in S3: a file is open for long, or its upload does not get on (s3mount status).";
    let (latency, errors, age) = (Latency::Read.name(), ByKind::Errors.name(), Derived::OldestDirtySeconds.name());
    let failing = alarm("errors", failing, errors, "Sum", config.errors_max.into());
    vec![
        alarm("p99 read latency", slow, latency, "p99", milliseconds(config.read_latency_max)),
        // Few and far between or in a heap: what counts is how many came in five minutes.
        Alarm { period: 5 * PERIOD_SECONDS, evaluation_periods: 1, datapoints_to_alarm: 1, ..failing },
        alarm("age of dirty bytes", waiting, age, "Maximum", config.dirty_age_max.as_secs_f64()),
    ]
}

fn dashboard(config: &InstallConfig, region: &str) -> Dashboard {
    // Names of dashboards have letters, digits, - and _ alone.
    let letter = |it: char| if it.is_ascii_alphanumeric() || it == '_' { it } else { '-' };
    let name: String = format!("S3Mount-{}-{}", config.bucket, config.mount_name).chars().map(letter).collect();
    let body = json!({ "widgets": widgets(config, region) });
    Dashboard { dashboard_name: name, dashboard_body: body.to_string() }
}

fn widgets(config: &InstallConfig, region: &str) -> Vec<Value> {
    let metric = |name: &str, options: Value| {
        json!([config.namespace, name, "Bucket", config.bucket, "MountName", config.mount_name, options])
    };
    let plain = |name: &str, statistic: &str| metric(name, json!({ "stat": statistic }));
    let percentiles = |latency: Latency| {
        let of = |statistic: &str| {
            metric(latency.name(), json!({ "stat": statistic, "label": format!("{} {statistic}", latency.name()) }))
        };
        vec![of("p50"), of("p99")]
    };
    let per_second = |counter: Counter, id: &str| {
        let rate =
            json!([{ "expression": format!("{id}/PERIOD({id})"), "label": format!("{} a second", counter.name()) }]);
        vec![metric(counter.name(), json!({ "stat": "Sum", "id": id, "visible": false })), rate]
    };
    let by_operation = format!(
        "SEARCH('{{\"{}\",Bucket,MountName,Operation}} MetricName=\"{}\" Bucket=\"{}\" MountName=\"{}\"', 'Sum', {PERIOD_SECONDS})",
        config.namespace,
        ByKind::Requests.name(),
        config.bucket,
        config.mount_name
    );
    let line = |label: &str, value: f64| json!({ "horizontal": [{ "label": label, "value": value }] });
    let none = || json!({});
    let shown: Vec<(&str, Vec<Value>, Value)> = vec![
        (
            "Throughput of applications",
            [per_second(Counter::BytesRead, "m1"), per_second(Counter::BytesWritten, "m2")].concat(),
            none(),
        ),
        (
            "Throughput of S3",
            [per_second(Counter::S3BytesReceived, "m1"), per_second(Counter::S3BytesSent, "m2")].concat(),
            none(),
        ),
        ("Requests by operation", vec![json!([{ "expression": by_operation, "id": "e1" }])], none()),
        ("Reads, ms", percentiles(Latency::Read), line("alarm on p99", milliseconds(config.read_latency_max))),
        ("Writes, ms", [percentiles(Latency::Write), percentiles(Latency::Sync)].concat(), none()),
        (
            "Names and first bytes of S3, ms",
            [percentiles(Latency::Metadata), percentiles(Latency::S3FirstByte)].concat(),
            none(),
        ),
        ("Errors", vec![plain(ByKind::Errors.name(), "Sum"), plain(Counter::Retries.name(), "Sum")], none()),
        (
            "Age of dirty bytes, s",
            vec![plain(Derived::OldestDirtySeconds.name(), "Maximum")],
            line("alarm", config.dirty_age_max.as_secs_f64()),
        ),
        ("Dirty bytes", vec![plain(Gauge::DirtyBytes.name(), "Maximum")], none()),
        ("Blocks found in a cache, %", vec![plain(Derived::CacheHitRatio.name(), "Average")], none()),
        (
            "Dollars an hour, requests to S3",
            vec![metric(Derived::EstimatedCost.name(), json!({ "stat": "Sum", "period": 3600 }))],
            none(),
        ),
    ];
    let widget = |(number, (title, metrics, annotations)): (usize, (&str, Vec<Value>, Value))| {
        json!({
            "type": "metric",
            "x": number % WIDGETS_IN_A_ROW * WIDGET_WIDTH,
            "y": number / WIDGETS_IN_A_ROW * WIDGET_HEIGHT,
            "width": WIDGET_WIDTH,
            "height": WIDGET_HEIGHT,
            "properties": {
                "title": title, "region": region, "view": "timeSeries", "stacked": false, "period": PERIOD_SECONDS,
                "metrics": metrics, "annotations": annotations,
            },
        })
    };
    shown.into_iter().enumerate().map(widget).collect()
}

fn policy(statements: &Value) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// What a mount that exports must be allowed.
pub(super) fn metrics_policy(namespace: &str) -> Value {
    policy(&json!([{
        "Sid": "Metrics",
        "Effect": "Allow",
        "Action": ["cloudwatch:PutMetricData"],
        "Resource": "*",
        "Condition": { "StringEquals": { "cloudwatch:namespace": namespace } },
    }]))
}

/// What who installs must be allowed.
pub(super) fn install_policy() -> Value {
    policy(&json!([
        {
            "Sid": "Dashboard",
            "Effect": "Allow",
            "Action": ["cloudwatch:GetDashboard", "cloudwatch:PutDashboard"],
            "Resource": "arn:aws:cloudwatch::*:dashboard/S3Mount-*",
        },
        {
            "Sid": "Alarms",
            "Effect": "Allow",
            "Action": ["cloudwatch:PutMetricAlarm"],
            "Resource": "arn:aws:cloudwatch:*:*:alarm:S3Mount *",
        },
        { "Sid": "Looking", "Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms"], "Resource": "*" },
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cli::InstallArgs;

    fn config() -> InstallConfig {
        let arguments =
            InstallArgs { source: "my.bucket".into(), dir: Some("/mnt/data".into()), ..InstallArgs::default() };
        InstallConfig::new(arguments).expect("good words")
    }

    #[test]
    fn the_documented_policies_are_those_that_are_printed() {
        let read = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/iam").join(name);
            serde_json::from_str::<Value>(&std::fs::read_to_string(path).expect("the policy is there")).expect("JSON")
        };
        assert_eq!(read("metrics.json"), metrics_policy("S3Mount"));
        assert_eq!(read("metrics-install.json"), install_policy());
    }

    #[test]
    fn names_are_such_as_cloudwatch_takes_and_the_policy_covers() {
        let plan = Plan::of(&config(), "eu-west-1");
        assert_eq!(plan.dashboard.dashboard_name, "S3Mount-my-bucket--mnt-data");
        assert!(plan.alarms.iter().all(|alarm| alarm.alarm_name.starts_with("S3Mount my.bucket /mnt/data - ")));
    }

    #[test]
    fn the_thresholds_are_in_the_units_of_the_metrics() {
        let alarms = alarms(&config());
        let of = |metric: &str| alarms.iter().find(|it| it.metric_name == metric).expect("there is one");
        assert_eq!((of("ReadLatency").threshold, Latency::Read.unit()), (1000.0, "Milliseconds"));
        assert_eq!((of("OldestDirtySeconds").threshold, Derived::OldestDirtySeconds.unit()), (600.0, "Seconds"));
        assert_eq!((of("S3Errors").threshold, of("S3Errors").period), (10.0, 300));
        assert_eq!(of("ReadLatency").extended_statistic.as_deref(), Some("p99"));
    }

    #[test]
    fn the_dashboard_shows_every_metric_that_is_sent() {
        let body = Plan::of(&config(), "eu-west-1").dashboard.dashboard_body;
        let names = Counter::ALL.iter().filter(|it| it.is_sent_to_cloudwatch()).map(|it| it.name());
        let names = names.chain(Gauge::ALL.iter().filter(|it| it.is_sent_to_cloudwatch()).map(|it| it.name()));
        let names = names.chain(Latency::ALL.iter().map(|it| it.name())).chain(ByKind::ALL.iter().map(|it| it.name()));
        for name in names.chain(Derived::ALL.iter().map(|it| it.name())) {
            assert!(body.contains(name), "{name}");
        }
    }
}
