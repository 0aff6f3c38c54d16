//! Spot notices: a spot instance is told two minutes ahead that it will be taken away, and earlier that this may come.
//!
//! Asks every five seconds (user guide, "Spot Instance interruption notices") and ends with the first notice. A service
//! that is away for a while is asked on.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::imds::{Imds, ImdsError};

/// How often to ask, as the user guide recommends.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How far ahead a notice is given: a clock that is wrong must not make it more.
const AHEAD: Duration = Duration::from_secs(120);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The instance will be taken away.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SpotNotice {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When, in UTC, such as `2026-11-25T22:09:17Z`.
    pub time: String,
}

impl SpotNotice {
    /// How long the instance has from `now` on: two minutes at most, and nothing if the time cannot be read.
    pub fn time_left(&self, now: SystemTime) -> Duration {
        let at = humantime::parse_rfc3339_weak(&self.time).ok();
        at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default().min(AHEAD)
    }
}

/// Whether this is a spot instance, within `patience`.
///
/// # Errors
/// The service did not say, which it may do later.
pub async fn is_spot(imds: &Imds, patience: Duration) -> Result<bool, ImdsError> {
    match imds.get("/latest/meta-data/instance-life-cycle", patience).await {
        Ok(life_cycle) => Ok(life_cycle == "spot"),
        // Older regions and other clouds' imitations may not know it: then nothing is to be feared.
        Err(ImdsError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for a notice; for ever where the instance is no spot instance. A recommendation to rebalance is logged once, when it
/// first comes.
pub async fn notice(imds: &Imds) -> SpotNotice {
    notice_asking_every(ASK_EVERY, imds).await
}

async fn notice_asking_every(pause: Duration, imds: &Imds) -> SpotNotice {
    loop {
        match is_spot(imds, PATIENCE).await {
            Ok(true) => break,
            Ok(false) => std::future::pending().await,
            Err(error) => tracing::debug!(%error, "no word about the life cycle"),
        }
        tokio::time::sleep(pause).await;
    }
    let mut is_rebalance_told = false;
    loop {
        match imds.get("/latest/meta-data/spot/instance-action", PATIENCE).await {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(notice) => return notice,
                Err(error) => tracing::warn!(%error, text, "a spot notice cannot be read"),
            },
            Err(ImdsError::NotFound) => {}
            Err(error) => tracing::debug!(%error, "no word about spot notices"),
        }
        let rebalance = "/latest/meta-data/events/recommendations/rebalance";
        if !is_rebalance_told && imds.get(rebalance, PATIENCE).await.is_ok() {
            is_rebalance_told = true;
            tracing::warn!("EC2 recommends to move work away from this spot instance: it may be interrupted soon");
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Manner, Stub};
    use super::*;

    const LIFE_CYCLE: &str = "/latest/meta-data/instance-life-cycle";

    #[tokio::test]
    async fn a_notice_is_heard() {
        let stub = Stub::start(Manner::Answers).await;
        stub.put(LIFE_CYCLE, "spot");
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        stub.put("/latest/meta-data/events/recommendations/rebalance", r#"{"noticeTime": "2026-11-25T22:07:17Z"}"#);
        stub.put(
            "/latest/meta-data/spot/instance-action",
            r#"{"action": "terminate", "time": "2026-11-25T22:09:17Z"}"#,
        );
        let expected = SpotNotice { action: "terminate".into(), time: "2026-11-25T22:09:17Z".into() };
        assert_eq!(notice(&imds).await, expected);
    }

    #[test]
    fn the_time_left_is_two_minutes_at_most() {
        let notice = |time: &str| SpotNotice { action: "stop".into(), time: time.into() };
        let now = humantime::parse_rfc3339("2026-11-25T22:07:00Z").expect("a time");
        assert_eq!(notice("2026-11-25T22:08:30Z").time_left(now), Duration::from_secs(90));
        assert_eq!(notice("2026-11-25T23:08:30Z").time_left(now), AHEAD);
        assert_eq!(notice("2026-11-25T22:06:00Z").time_left(now), Duration::ZERO);
        assert_eq!(notice("soon").time_left(now), Duration::ZERO);
    }

    #[tokio::test]
    async fn without_a_notice_it_asks_on() {
        let stub = Stub::start(Manner::Answers).await;
        stub.put(LIFE_CYCLE, "spot");
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        stub.put("/latest/meta-data/spot/instance-action", "unreadable");
        let waited = tokio::time::timeout(Duration::from_millis(200), notice(&imds)).await;
        assert!(waited.is_err(), "{waited:?}");
        assert_eq!(stub.tokens_given(), 1);
    }

    #[tokio::test]
    async fn a_life_cycle_that_is_not_told_at_once_is_asked_for_again() {
        let stub = Stub::start(Manner::Answers).await;
        stub.put("/latest/meta-data/spot/instance-action", r#"{"action": "stop", "time": "2026-11-25T22:09:17Z"}"#);
        stub.put(LIFE_CYCLE, "spot");
        stub.fail(LIFE_CYCLE, 2);
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        is_spot(&imds, PATIENCE).await.expect_err("it fails twice");
        assert_eq!(notice_asking_every(Duration::from_millis(1), &imds).await.action, "stop");
    }

    #[tokio::test]
    async fn an_instance_that_is_no_spot_instance_is_not_asked_for_notices() {
        let stub = Stub::start(Manner::Answers).await;
        stub.put("/latest/meta-data/spot/instance-action", r#"{"action": "stop", "time": "2026-11-25T22:09:17Z"}"#);
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        for life_cycle in [None, Some("on-demand")] {
            life_cycle.inspect(|text| stub.put(LIFE_CYCLE, text));
            let waited = tokio::time::timeout(Duration::from_millis(200), notice(&imds)).await;
            assert!(waited.is_err(), "{waited:?}");
        }
    }
}
