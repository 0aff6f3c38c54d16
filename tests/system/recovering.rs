//! `s3mount recover` of what a mount of a prefix kept, under a policy for that prefix.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use s3sim::shaping::{Config, Faults};

use super::bed::{Bed, Daemon, hold, run, text};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[(
    "recovering::what_a_mount_of_a_prefix_kept_comes_back_under_its_policy",
    what_a_mount_of_a_prefix_kept_comes_back_under_its_policy,
)];

/// The policy of a mount of `team/`, with more that is denied.
fn policy(bed: &Bed, denied: &[&str]) {
    let denied = denied.iter().map(|&operation| operation.to_owned()).collect();
    let faults = Faults { listed_prefix: "team/".into(), denied, ..Faults::default() };
    bed.sim.set(Config { faults, ..Config::default() });
}

fn what_a_mount_of_a_prefix_kept_comes_back_under_its_policy() -> Shown {
    let bed = Bed::new()?;
    policy(&bed, &[]);
    let (dir, log) = (bed.path("mnt"), bed.path("log"));
    let stderr = fs::File::create(&log).map_err(|e| e.to_string())?;
    let mut command = bed.s3mount();
    command.args(["-f", "s3://data/team"]).arg(&dir).args(bed.reach()).stderr(stderr);
    let mut daemon = Daemon::start(&mut command, &dir)?;
    let whole = vec![7; 100_000];
    fs::write(dir.join("edited"), &whole).map_err(|e| e.to_string())?;
    policy(&bed, &["PutObject", "CreateMultipartUpload"]);
    let kept_bytes = b"never uploaded";
    // Neither close succeeds.
    let _ = fs::write(dir.join("new"), kept_bytes);
    let edited = fs::OpenOptions::new().write(true).open(dir.join("edited")).map_err(|e| e.to_string())?;
    let _ = std::os::unix::fs::FileExt::write_all_at(&edited, b"edit", 50_000);
    drop(edited);
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended()?;
    policy(&bed, &[]);
    bed.sim.reset();
    let recover = |arguments: &[&str]| run(bed.s3mount().arg("recover").args(arguments).args(bed.reach()));
    let listed = text(&recover(&["list"])?);
    let ids: BTreeMap<&str, &str> = listed
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(id, rest)| (rest.split("  ").next().unwrap_or_default(), id))
        .collect();
    let id_of = |key: &str| {
        ids.get(&*format!("s3://data/team/{key}")).copied().ok_or_else(|| format!("{key} is not kept: {listed}"))
    };
    let export = |key: &str| -> Result<Vec<u8>, String> {
        let path = bed.path(key);
        let exported = recover(&["export", id_of(key)?, &path.display().to_string()])?;
        hold(exported.status.success(), "it is exported", &text(&exported))?;
        fs::read(path).map_err(|e| e.to_string())
    };
    hold(export("new")? == kept_bytes, "it is what was written", &listed)?;
    let asked = bed.sim.counters().requests;
    hold(asked.is_empty(), "S3 is not asked for what the journal has", &format!("{asked:?}"))?;
    let mut expected = whole;
    expected[50_000..50_004].copy_from_slice(b"edit");
    hold(export("edited")? == expected, "what was edited is whole", &listed)?;
    let wrote = bed.sim.log().iter().any(|request| request.method != "GET");
    hold(!wrote, "an export writes nothing", &format!("{:?}", bed.sim.counters().requests))?;
    for key in ["new", "edited"] {
        let pushed = recover(&["push", id_of(key)?])?;
        hold(pushed.status.success(), "it is pushed", &text(&pushed))?;
    }
    hold(bed.object("team/new").as_deref() == Some(kept_bytes), "it is in S3", &listed)?;
    hold(bed.object("team/edited") == Some(expected), "it is in S3", &listed)?;
    let elsewhere: Vec<String> =
        bed.sim.log().into_iter().map(|request| request.key).filter(|key| !key.starts_with("team/")).collect();
    hold(elsewhere.is_empty(), "nothing outside of the prefix is touched", &elsewhere.join(", "))?;
    Ok(None)
}
