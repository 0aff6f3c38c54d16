//! What is to be there: a dashboard, alarms, policies. Pure; spelled as CloudWatch's API spells it, so that what is
//! printed can be handed to any other client.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{DimensionName, InstallConfig};
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

/// What tells the mount's series from others.
struct Series(Vec<Dimension>);

impl Plan {
    /// Everything for the mount of `config` on the instance of that id, with which it need not be known.
    ///
    /// # Errors
    /// The id is needed: a line of cause and remedy.
    pub(super) fn of(config: &InstallConfig, instance: Option<&str>, region: &str) -> Result<Self, String> {
        let series = Series::of(config, instance)?;
        Ok(Self { dashboard: dashboard(config, &series, region), alarms: alarms(config, &series) })
    }
}

impl Series {
    fn of(config: &InstallConfig, instance: Option<&str>) -> Result<Self, String> {
        let value = |name: DimensionName| match name {
            DimensionName::Bucket => Some(config.bucket.as_str()),
            DimensionName::MountName => config.mount_name.as_deref(),
            DimensionName::InstanceId => config.instance_id.as_deref().or(instance),
        };
        let mut dimensions = Vec::new();
        // They are a set; in this order alarms are compared with those that CloudWatch has.
        for name in [DimensionName::Bucket, DimensionName::InstanceId, DimensionName::MountName] {
            if !config.dimensions.contains(&name) {
                continue;
            }
            let value = value(name).ok_or("the instance's id is not known here: name it with --instance-id")?;
            dimensions.push(Dimension { name: name.name().to_owned(), value: value.to_owned() });
        }
        Ok(Self(dimensions))
    }

    /// What the mount is called in the names of dashboard and alarms.
    fn title(&self, separator: &str) -> String {
        let of = |name: DimensionName| self.0.iter().find(move |it| it.name == name.name());
        let all = [DimensionName::Bucket, DimensionName::MountName, DimensionName::InstanceId].into_iter();
        all.filter_map(of).map(|it| it.value.as_str()).collect::<Vec<_>>().join(separator)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn alarms(config: &InstallConfig, series: &Series) -> Vec<Alarm> {
    let alarm = |what: &str, description: &str, metric: &str, statistic: &str, threshold: f64| {
        let is_percentile = statistic.starts_with('p');
        Alarm {
            alarm_name: format!("S3Mount {} - {what}", series.title(" ")),
            alarm_description: description.to_owned(),
            namespace: config.namespace.clone(),
            metric_name: metric.to_owned(),
            dimensions: series.0.clone(),
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

fn dashboard(config: &InstallConfig, series: &Series, region: &str) -> Dashboard {
    // Names of dashboards have letters, digits, - and _ alone.
    let letter = |it: char| if it.is_ascii_alphanumeric() || it == '_' { it } else { '-' };
    let name: String = format!("S3Mount-{}", series.title("-")).chars().map(letter).collect();
    let body = json!({ "widgets": widgets(config, series, region) });
    Dashboard { dashboard_name: name, dashboard_body: body.to_string() }
}

fn widgets(config: &InstallConfig, series: &Series, region: &str) -> Vec<Value> {
    let metric = |name: &str, options: Value| {
        let mut words = vec![json!(config.namespace), json!(name)];
        words.extend(series.0.iter().flat_map(|it| [json!(it.name), json!(it.value)]));
        words.push(options);
        Value::Array(words)
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
    let names: String = series.0.iter().map(|it| format!("{},", it.name)).collect();
    let values: String = series.0.iter().map(|it| format!(" {}=\"{}\"", it.name, it.value)).collect();
    let by_operation = format!(
        "SEARCH('{{\"{}\",{names}Operation}} MetricName=\"{}\"{values}', 'Sum', {PERIOD_SECONDS})",
        config.namespace,
        ByKind::Requests.name(),
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
        (
            "Errors, retries, late GETs sent twice",
            [ByKind::Errors.name(), Counter::Retries.name(), Counter::Hedges.name()]
                .map(|it| plain(it, "Sum"))
                .to_vec(),
            none(),
        ),
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

    /// The plan of a mount on no instance that we know of.
    fn plan(config: &InstallConfig) -> Plan {
        Plan::of(config, None, "eu-west-1").expect("its dimensions are known")
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
        let plan = plan(&config());
        assert_eq!(plan.dashboard.dashboard_name, "S3Mount-my-bucket--mnt-data");
        assert!(plan.alarms.iter().all(|alarm| alarm.alarm_name.starts_with("S3Mount my.bucket /mnt/data - ")));
    }

    #[test]
    fn the_thresholds_are_in_the_units_of_the_metrics() {
        let alarms = plan(&config()).alarms;
        let of = |metric: &str| alarms.iter().find(|it| it.metric_name == metric).expect("there is one");
        assert_eq!((of("ReadLatency").threshold, Latency::Read.unit()), (1000.0, "Milliseconds"));
        assert_eq!((of("OldestDirtySeconds").threshold, Derived::OldestDirtySeconds.unit()), (600.0, "Seconds"));
        assert_eq!((of("S3Errors").threshold, of("S3Errors").period), (10.0, 300));
        assert_eq!(of("ReadLatency").extended_statistic.as_deref(), Some("p99"));
    }

    #[test]
    fn the_dashboard_shows_every_metric_that_is_sent() {
        let body = plan(&config()).dashboard.dashboard_body;
        let names = Counter::ALL.iter().filter(|it| it.is_sent_to_cloudwatch()).map(|it| it.name());
        let names = names.chain(Gauge::ALL.iter().filter(|it| it.is_sent_to_cloudwatch()).map(|it| it.name()));
        let names = names.chain(Latency::ALL.iter().map(|it| it.name())).chain(ByKind::ALL.iter().map(|it| it.name()));
        for name in names.chain(Derived::ALL.iter().map(|it| it.name())) {
            assert!(body.contains(name), "{name}");
        }
    }

    #[test]
    fn the_series_are_those_of_the_mounts_dimensions() {
        let of = |dimensions: &[DimensionName], instance: Option<&str>| {
            let config = InstallConfig { dimensions: dimensions.to_vec(), ..config() };
            let plan = Plan::of(&config, instance, "eu-west-1")?;
            let alarm = &plan.alarms[0];
            let pairs: Vec<_> = alarm.dimensions.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
            let body: Value = serde_json::from_str(&plan.dashboard.dashboard_body).expect("JSON");
            let dirty = &body["widgets"][8]["properties"]["metrics"][0];
            let search = body["widgets"][2]["properties"]["metrics"][0][0]["expression"].clone();
            Ok::<_, String>((alarm.alarm_name.clone(), pairs.join(" "), dirty.clone(), search))
        };
        use DimensionName::{Bucket, InstanceId, MountName};
        let (name, pairs, dirty, search) = of(&[MountName, InstanceId, Bucket], Some("i-0a")).expect("all are known");
        assert_eq!(name, "S3Mount my.bucket /mnt/data i-0a - p99 read latency");
        assert_eq!(pairs, "Bucket=my.bucket InstanceId=i-0a MountName=/mnt/data");
        let wanted = ["S3Mount", "DirtyBytes", "Bucket", "my.bucket", "InstanceId", "i-0a", "MountName", "/mnt/data"];
        assert_eq!(dirty.as_array().expect("a metric")[..8], wanted.map(Value::from));
        let wanted = "SEARCH('{\"S3Mount\",Bucket,InstanceId,MountName,Operation} MetricName=\"S3Requests\" \
             Bucket=\"my.bucket\" InstanceId=\"i-0a\" MountName=\"/mnt/data\"', 'Sum', 60)";
        assert_eq!(search, wanted);
        let (name, pairs, ..) = of(&[Bucket], None).expect("all are known");
        assert_eq!((name.as_str(), pairs.as_str()), ("S3Mount my.bucket - p99 read latency", "Bucket=my.bucket"));
        assert!(of(&[Bucket, InstanceId], None).expect_err("which one?").contains("--instance-id"));
    }
}
