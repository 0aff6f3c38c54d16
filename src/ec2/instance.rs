//! What is asked of the metadata service at mount: once, within one second, all questions together.

use std::time::Duration;

use serde::Deserialize;

use super::imds::{Imds, ImdsError};
use crate::clock::Clock;

/// A mount waits so long for the service in all.
const PATIENCE: Duration = Duration::from_secs(1);

/// The instance, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Such as `i-0123456789abcdef0`.
    pub id: String,
    /// Such as `r6i.4xlarge`.
    pub instance_type: String,
    /// Such as `eu-west-1`.
    pub region: String,
    /// It may be taken away with two minutes' notice; `None` if the service did not say.
    pub is_spot: Option<bool>,
}

/// The fields of the instance identity document that are used (user guide, "Instance identity documents").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityDocument {
    instance_id: String,
    instance_type: String,
    region: String,
}

impl Instance {
    /// Asks the service. Costs at most a second.
    ///
    /// # Errors
    /// See [`ImdsError`].
    pub async fn ask(imds: &Imds) -> Result<Self, ImdsError> {
        let clock = Clock::timers();
        let began = clock.now();
        let path = "/latest/dynamic/instance-identity/document";
        let text = imds.get(path, PATIENCE).await?;
        let document: IdentityDocument = serde_json::from_str(&text)
            .map_err(|error| ImdsError::Refused(imds.endpoint(), path.to_owned(), format!("unreadable: {error}")))?;
        // What is known by now is worth more than this, which is asked for again.
        let left = PATIENCE.saturating_sub(clock.now().saturating_duration_since(began));
        let is_spot = super::spot::is_spot(imds, left).await;
        Ok(Self {
            id: document.instance_id,
            instance_type: document.instance_type,
            region: document.region,
            is_spot: is_spot.inspect_err(|error| tracing::debug!("no word about the life cycle: {error}")).ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Manner, Stub};
    use super::*;

    #[tokio::test]
    async fn an_instance_describes_itself() {
        let stub = Stub::start(Manner::Answers).await;
        let document =
            r#"{"instanceId": "i-07", "instanceType": "r3.8xlarge", "region": "us-east-2", "kernelId": null}"#;
        stub.put("/latest/dynamic/instance-identity/document", document);
        stub.put("/latest/meta-data/instance-life-cycle", "spot");
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        let expected = Instance {
            id: "i-07".into(),
            instance_type: "r3.8xlarge".into(),
            region: "us-east-2".into(),
            is_spot: Some(true),
        };
        assert_eq!(Instance::ask(&imds).await, Ok(expected));
        stub.put("/latest/dynamic/instance-identity/document", "<html>");
        assert!(matches!(Instance::ask(&imds).await, Err(ImdsError::Refused(..))));
    }

    #[tokio::test]
    async fn a_life_cycle_that_is_not_told_takes_nothing_else_away() {
        let stub = Stub::start(Manner::Answers).await;
        let document = r#"{"instanceId": "i-07", "instanceType": "r3.8xlarge", "region": "us-east-2"}"#;
        stub.put("/latest/dynamic/instance-identity/document", document);
        stub.fail("/latest/meta-data/instance-life-cycle", 1);
        let imds = Imds::at(&stub.endpoint()).expect("an address");
        let told = Instance::ask(&imds).await.expect("it says who it is");
        assert_eq!((&*told.id, told.is_spot), ("i-07", None));
        assert_eq!(Instance::ask(&imds).await.map(|told| told.is_spot), Ok(Some(false)), "404: it is none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_or_loses_tokens_costs_a_second_in_all() {
        for manner in [Manner::Hangs, Manner::LosesTokens] {
            let stub = Stub::start(manner).await;
            let imds = Imds::at(&stub.endpoint()).expect("an address");
            let began = tokio::time::Instant::now();
            Instance::ask(&imds).await.expect_err("nothing is said");
            assert!(began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
        }
    }
}
