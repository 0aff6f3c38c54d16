//! `s3mount cloudwatch install`: what it puts, that it puts it once, what it prints, and what it says when it cannot.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use cwsim::{CwSim, Manner};
use serde_json::Value;

use crate::harness::imds::{self, ImdsStub};
use crate::harness::mount::{program, text};
use crate::harness::place::checked;
use crate::harness::prelude::*;
use crate::harness::process::cache_dir;
use crate::harness::s3::{ACCESS_KEY, SECRET_KEY};

pub fn facts() -> Vec<Fact> {
    vec![
        own!(a_second_install_changes_nothing_and_says_so).on(SIM),
        own!(a_dry_run_prints_everything_and_asks_nothing).on(SIM),
        own!(the_dimensions_of_the_mount_are_those_of_the_install).on(SIM),
        own!(moto_takes_what_a_dry_run_prints).on(&[Kind::Moto]),
        own!(what_hinders_an_install_is_told_in_a_line).on(SIM),
    ]
}

/// A home, and the program that installs for `my-bucket` on `/mnt/data`.
fn install(home: &tempfile::TempDir, endpoint: &str, further: &[&str]) -> Command {
    let mut command = program(home.path());
    command.args(["cloudwatch", "install", "s3://my-bucket", "/mnt/data", "--cloudwatch-endpoint-url", endpoint]);
    command.args(further);
    command
}

fn lines(output: &Output) -> Outcome<Vec<String>> {
    Ok(checked(output)?.lines().map(str::to_owned).collect())
}

fn count(cloudwatch: &CwSim, operation: &str) -> usize {
    cloudwatch.received().iter().filter(|it| it.operation == operation).count()
}

fn a_second_install_changes_nothing_and_says_so(_: &Context) -> Outcome {
    let (cloudwatch, home) = (CwSim::start()?, tempfile::tempdir()?);
    let topic = "arn:aws:sns:us-east-1:123456789012:topic";
    let again = || run(&mut install(&home, cloudwatch.url(), &["--alarm-action", topic]));
    let first = lines(&again()?)?;
    assert_eq!(first.iter().filter(|line| line.ends_with(": created")).count(), 4, "{first:?}");
    // That a dashboard is not there yet is the only thing that it was refused.
    assert_eq!(cloudwatch.refusals(), ["ResourceNotFound: Dashboard S3Mount-my-bucket--mnt-data does not exist"]);
    let what = ["age of dirty bytes", "errors", "p99 read latency"];
    assert_eq!(cloudwatch.alarms(), what.map(|what| format!("S3Mount my-bucket /mnt/data - {what}")));
    assert_eq!(cloudwatch.dashboards().len(), 1);

    let second = lines(&again()?)?;
    assert_eq!(second.iter().filter(|line| line.ends_with(": unchanged")).count(), 4, "{second:?}");
    assert!(second.iter().any(|line| line == "nothing has changed"), "{second:?}");
    assert_eq!((count(&cloudwatch, "PutDashboard"), count(&cloudwatch, "PutMetricAlarm")), (1, 3));

    let slower = ["--alarm-action", topic, "--alarm-read-latency", "2s"];
    let third = lines(&run(&mut install(&home, cloudwatch.url(), &slower))?)?;
    let changed: Vec<_> = third.iter().filter(|line| line.ends_with(": changed")).collect();
    assert!(changed.len() == 2 && changed[1].contains("p99 read latency"), "its alarm, and its line: {third:?}");

    // The documented policy allows what was called, and no more.
    let called: BTreeSet<_> = cloudwatch.received().iter().map(|it| format!("cloudwatch:{}", it.operation)).collect();
    let policy: Value = serde_json::from_str(include_str!("../../../docs/iam/metrics-install.json"))?;
    let statements = policy["Statement"].as_array().cloned().unwrap_or_default();
    let actions = statements.iter().flat_map(|it| it["Action"].as_array().cloned().unwrap_or_default());
    let allowed: BTreeSet<_> = actions.filter_map(|it| it.as_str().map(str::to_owned)).collect();
    assert_eq!(called, allowed);
    let printed = third.join("\n");
    assert!(
        printed.contains("\"cloudwatch:namespace\": \"S3Mount\"") && printed.contains("A month costs $5.84"),
        "{printed}"
    );
    Ok(())
}

/// What a dry run prints.
fn dry_run(home: &tempfile::TempDir, endpoint: &str) -> Outcome<Value> {
    let output = run(&mut install(home, endpoint, &["--dry-run", "--region", "eu-west-1"]))?;
    Ok(serde_json::from_str(&checked(&output)?)?)
}

fn a_dry_run_prints_everything_and_asks_nothing(_: &Context) -> Outcome {
    let (cloudwatch, home) = (CwSim::start()?, tempfile::tempdir()?);
    let told = dry_run(&home, cloudwatch.url())?;
    assert!(cloudwatch.received().is_empty(), "{:?}", cloudwatch.received());
    assert_eq!(told["PutMetricAlarm"].as_array().map(Vec::len), Some(3), "{told}");
    let body = told["PutDashboard"]["DashboardBody"].as_str().unwrap_or_default();
    let body: Value = serde_json::from_str(body)?;
    assert_eq!(body["widgets"][0]["properties"]["region"], "eu-west-1");
    assert_eq!(told["PolicyOfTheMount"]["Statement"][0]["Action"][0], "cloudwatch:PutMetricData");
    assert_eq!(told["MonthlyPrice"]["metrics"], 17);
    Ok(())
}

fn the_dimensions_of_the_mount_are_those_of_the_install(_: &Context) -> Outcome {
    let (cloudwatch, home) = (CwSim::start()?, tempfile::tempdir()?);
    let words = ["--cloudwatch-dimensions", "Bucket,MountName,InstanceId", "--instance-id", "i-0123456789abcdef0"];
    let dry = [&words[..], &["--dry-run", "--region", "us-east-1"]].concat();
    let told: Value = serde_json::from_str(&checked(&run(&mut install(&home, cloudwatch.url(), &dry))?)?)?;
    let dimension = |name: &str, value: &str| serde_json::json!({ "Name": name, "Value": value });
    let wanted = serde_json::json!([
        dimension("Bucket", "my-bucket"),
        dimension("InstanceId", "i-0123456789abcdef0"),
        dimension("MountName", "/mnt/data"),
    ]);
    for alarm in told["PutMetricAlarm"].as_array().into_iter().flatten() {
        assert_eq!(alarm["Dimensions"], wanted);
    }
    for count in ["created", "unchanged"] {
        let said = lines(&run(&mut install(&home, cloudwatch.url(), &words))?)?;
        let ended = said.iter().filter(|line| line.ends_with(&format!(": {count}"))).count();
        assert_eq!(ended, 4, "{said:?}");
    }
    // On the instance itself nobody needs to name it.
    let imds = ImdsStub::start(imds::Manner::Answers, Duration::from_secs(21_600), 1)?;
    let mut here = install(&home, cloudwatch.url(), &["--cloudwatch-dimensions", "InstanceId", "--dry-run"]);
    here.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.endpoint);
    let told: Value = serde_json::from_str(&checked(&run(&mut here)?)?)?;
    let alarm = &told["PutMetricAlarm"][0];
    assert_eq!(alarm["Dimensions"], serde_json::json!([dimension("InstanceId", "i-0stub")]));
    assert_eq!(alarm["AlarmName"], "S3Mount i-0stub - p99 read latency");
    // Those of the default are others, and stay beside them.
    lines(&run(&mut install(&home, cloudwatch.url(), &[]))?)?;
    assert_eq!((cloudwatch.alarms().len(), cloudwatch.dashboards().len()), (6, 2));
    Ok(())
}

/// Hands what stands on stdin to CloudWatch, and prints what that has then.
const PUT: &str = r#"
import boto3, json, sys
endpoint, key, secret = sys.argv[1:4]
cloudwatch = boto3.client("cloudwatch", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key,
                          aws_secret_access_key=secret)
told = json.load(open(sys.argv[4]))
cloudwatch.put_dashboard(**told["PutDashboard"])
for alarm in told["PutMetricAlarm"]:
    cloudwatch.put_metric_alarm(**alarm)
name = told["PutDashboard"]["DashboardName"]
assert cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"] == told["PutDashboard"]["DashboardBody"]
for alarm in cloudwatch.describe_alarms(AlarmNamePrefix="S3Mount my-bucket")["MetricAlarms"]:
    print(alarm["MetricName"], alarm.get("ExtendedStatistic") or alarm.get("Statistic"), alarm["Threshold"])
"#;

fn moto_takes_what_a_dry_run_prints(c: &Context) -> Outcome {
    let home = tempfile::tempdir()?;
    let endpoint = c.server()?.endpoint.clone();
    let file = home.path().join("told.json");
    std::fs::write(&file, dry_run(&home, &endpoint)?.to_string())?;
    let mut python = Command::new(cache_dir().join("venv/bin/python"));
    python.env_clear().env("HOME", home.path()).args(["-c", PUT, &endpoint, ACCESS_KEY, SECRET_KEY]).arg(&file);
    let mut told: Vec<String> = lines(&run(&mut python)?)?;
    told.sort();
    assert_eq!(told, ["OldestDirtySeconds Maximum 600.0", "ReadLatency p99 1000.0", "S3Errors Sum 10.0"]);
    Ok(())
}

fn what_hinders_an_install_is_told_in_a_line(_: &Context) -> Outcome {
    let (cloudwatch, home) = (CwSim::start()?, tempfile::tempdir()?);
    let said = |command: &mut Command, code: i32, words: &[&str]| -> Outcome {
        let output = run(command)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(error.lines().count() == 1 && words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        assert!(!error.contains('{'), "no insides of the SDK: {error}");
        Ok(())
    };
    cloudwatch.set(Manner::Denies);
    said(&mut install(&home, cloudwatch.url(), &[]), 2, &["cloudwatch:GetDashboard is not allowed", "IAM policy"])?;
    for manner in [Manner::IsDown, Manner::Resets, Manner::Hangs] {
        cloudwatch.set(manner);
        said(&mut install(&home, cloudwatch.url(), &[]), 2, &["CloudWatch does not answer GetDashboard", "network"])?;
    }
    cloudwatch.set(Manner::Answers);
    let elsewhere = ["--cloudwatch-dimensions", "InstanceId,Bucket"];
    said(&mut install(&home, cloudwatch.url(), &elsewhere), 1, &["instance's id is not known", "--instance-id"])?;
    let mut misled = program(home.path());
    misled.args(["cloudwatch", "install", "my-bucket", "/mnt/data"]).env("AWS_ENDPOINT_URL_CLOUDWATCH", "localhost:1");
    said(&mut misled, 1, &["AWS_ENDPOINT_URL_CLOUDWATCH \"localhost:1\" is no URL"])?;
    let mut unnamed = program(home.path());
    said(unnamed.args(["cloudwatch", "install", "my-bucket"]), 1, &["--mount-name"])?;
    let mut nowhere = program(home.path());
    said(nowhere.args(["cloudwatch", "install", "my-bucket", "/mnt/data"]), 1, &["no region is known", "--region"])?;
    let mut keyless = install(&home, cloudwatch.url(), &[]);
    keyless.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    said(&mut keyless, 2, &["credentials"])
}
