//! `s3mount doctor`: what is well, what is not, and which permission is missing.

use std::process::Output;

use crate::harness::imds::{ImdsStub, Manner, without_keys};
use crate::harness::mount::text;
use crate::harness::prelude::*;
use crate::harness::sim::Faults;

pub fn facts() -> Vec<Fact> {
    vec![
        own!(a_healthy_bucket_passes_and_is_left_as_it_was),
        own!(each_missing_permission_is_named).on(SIM),
        own!(read_only_writes_nothing).on(SIM),
        own!(a_server_that_ignores_conditions_is_told).on(SIM),
        own!(a_clock_that_is_wrong_and_a_bucket_that_is_missing_are_found).on(SIM),
        own!(without_credentials_the_cause_is_named).on(SIM),
    ]
}

fn doctor(p: &Place, further: &[&str]) -> Outcome<(Output, serde_json::Value)> {
    let source = p.mount.source();
    let mut words = vec!["doctor", &source, "--json", "--endpoint-url", &p.mount.server.endpoint];
    words.extend(["--region", "us-east-1"]);
    words.extend(further);
    let output = p.mount.run(&words)?;
    let told =
        serde_json::from_slice(&output.stdout).map_err(|error| Failure(format!("{error}: {}", text(&output))))?;
    Ok((output, told))
}

fn verdict(told: &serde_json::Value, name: &str) -> String {
    let checks = told["checks"].as_array().cloned().unwrap_or_default();
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {told}"));
    check["verdict"].as_str().unwrap_or_default().to_owned()
}

/// Names of the checks that failed.
fn failed(told: &serde_json::Value) -> Vec<String> {
    let checks = told["checks"].as_array().cloned().unwrap_or_default();
    let failed = checks.iter().filter(|check| check["verdict"] == "failed");
    failed.map(|check| check["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn a_healthy_bucket_passes_and_is_left_as_it_was(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "x")?;
    let (output, told) = doctor(&p, &["--cache-dir", p.mount.home.to_str().unwrap_or_default()])?;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(told["ok"], true, "{told}");
    for name in
        ["fuse device", "memory", "state disk", "cache disk", "credentials", "clock", "s3:GetObject", "s3:DeleteObject"]
    {
        assert_eq!(verdict(&told, name), "ok", "{name}: {told}");
    }
    assert_eq!(p.keys()?, ["f"]);
    let endpoint = p.mount.server.endpoint.clone();
    let table = p.mount.run(&["doctor", &p.mount.source(), "--endpoint-url", &endpoint, "--region", "us-east-1"])?;
    assert!(table.status.success() && text(&table).contains("s3:PutObject"), "{}", text(&table));
    Ok(())
}

fn each_missing_permission_is_named(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let cases: [(&'static [&'static str], &str); 6] = [
        (&["ListObjectsV2"], "s3:ListBucket"),
        (&["GetObject"], "s3:GetObject"),
        (&["PutObject"], "s3:PutObject"),
        (&["AbortMultipartUpload"], "s3:AbortMultipartUpload"),
        (&["ListMultipartUploads"], "s3:ListBucketMultipartUploads"),
        (&["DeleteObject"], "s3:DeleteObject"),
    ];
    for (denied, action) in cases {
        p.sim().set(&Faults { denied, ..Faults::default() });
        let (output, told) = doctor(&p, &[])?;
        assert!(!output.status.success(), "{action}: {told}");
        assert_eq!(failed(&told), [action], "{told}");
        let said = text(&output);
        assert!(said.contains(&format!("add {action} to the IAM policy")), "{said}");
        assert!(said.lines().last().is_some_and(|line| line.contains("checks failed")), "{said}");
    }
    Ok(())
}

fn read_only_writes_nothing(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "x")?;
    p.sim().reset_counts();
    p.sim().set(&Faults { denied: &["PutObject", "DeleteObject", "CreateMultipartUpload"], ..Faults::default() });
    let (output, told) = doctor(&p, &["--read-only"])?;
    assert!(output.status.success(), "{told}");
    assert_eq!((verdict(&told, "s3:GetObject"), verdict(&told, "s3:PutObject")), ("ok".into(), "skipped".into()));
    let counts = p.sim().counts();
    let written: u64 = ["PutObject", "DeleteObject", "CreateMultipartUpload"].iter().map(|it| counts.of(it)).sum();
    assert_eq!(written, 0, "{counts:?}");
    Ok(())
}

fn a_server_that_ignores_conditions_is_told(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    assert_eq!(verdict(&doctor(&p, &[])?.1, "conditional writes"), "ok");
    p.sim().set(&Faults { ignore_conditions: true, ..Faults::default() });
    let (output, told) = doctor(&p, &[])?;
    assert!(output.status.success(), "a mount works without them: {told}");
    assert_eq!(verdict(&told, "conditional writes"), "note", "{told}");
    assert!(text(&output).contains("ignored on PutObject, CompleteMultipartUpload"), "{told}");
    Ok(())
}

fn a_clock_that_is_wrong_and_a_bucket_that_is_missing_are_found(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.sim().set(&Faults { clock_ahead_seconds: 1200, ..Faults::default() });
    let (output, told) = doctor(&p, &[])?;
    assert!(!output.status.success() && text(&output).contains("169.254.169.123"), "{told}");
    // Requests are signed with the server's time after its first answer, so nothing else fails.
    assert_eq!(failed(&told), ["clock"], "{told}");
    p.sim().set(&Faults::default());
    let words = ["doctor", "missing-bucket", "--json", "--endpoint-url", &p.mount.server.endpoint];
    let output = p.mount.run(&words)?;
    assert!(!output.status.success());
    assert!(text(&output).contains("bucket missing-bucket does not exist"), "{}", text(&output));
    Ok(())
}

fn without_credentials_the_cause_is_named(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let imds = ImdsStub::start(Manner::LosesTokens, std::time::Duration::from_secs(1), 1)?;
    let source = p.mount.source();
    let mut command = p.mount.program_of(&without_keys(&imds.endpoint));
    command.args(["doctor", &source, "--endpoint-url", &p.mount.server.endpoint]);
    let output = run(&mut command)?;
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("FAILED  credentials") && said.contains("--http-put-response-hop-limit 2"), "{said}");
    Ok(())
}
