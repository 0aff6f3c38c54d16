//! The instance that we run on, as far as there is one: asked once, before anything is built.

use std::sync::Arc;

use crate::config::Machine;
use crate::ec2::{Imds, ImdsError, Instance, bandwidth_of, is_memory_optimised};

/// Whether something is there that ought to answer and does not, also where nobody knows whether there is a service.
fn is_a_fault(error: &ImdsError) -> bool {
    use ImdsError::{Broken, Endpoint, HopLimit, Refused, Silent};
    matches!(error, HopLimit | Silent(_) | Refused(..) | Broken(..) | Endpoint(_))
}

/// What is known of the machine around us.
#[derive(Debug)]
pub struct Surroundings {
    /// The metadata service and what it said, or why it said nothing (a line of cause and remedy).
    pub instance: Result<(Arc<Imds>, Instance), ImdsError>,
}

impl Surroundings {
    /// Asks the metadata service, if this may be an instance. Takes a second at most.
    pub async fn look() -> Self {
        let (instance, is_expected) = match Imds::of_this_machine() {
            Err(error) => (Err(error), false),
            Ok(imds) => {
                let is_expected = imds.is_expected();
                (Instance::ask(&imds).await.map(|instance| (Arc::new(imds), instance)), is_expected)
            }
        };
        match &instance {
            Ok((_, it)) => {
                tracing::info!(id = it.id, kind = it.instance_type, region = it.region, spot = ?it.is_spot, "on EC2");
            }
            // Without it an instance has no role, no region, limits for any machine and no word of its end.
            Err(error) if is_expected || is_a_fault(error) => {
                tracing::warn!("{error}");
            }
            Err(error) => tracing::debug!("{error}"),
        }
        Self { instance }
    }

    /// What the limits are adapted to.
    pub fn machine(&self) -> Machine {
        let Ok((_, instance)) = &self.instance else { return Machine::default() };
        Machine {
            network_megabits: bandwidth_of(&instance.instance_type).map(|bandwidth| bandwidth.peak_megabits),
            is_memory_optimised: is_memory_optimised(&instance.instance_type),
        }
    }

    /// The instance's id.
    pub fn id(&self) -> Option<&str> {
        self.instance.as_ref().ok().map(|(_, instance)| instance.id.as_str())
    }

    /// The instance's region.
    pub fn region(&self) -> Option<&str> {
        self.instance.as_ref().ok().map(|(_, instance)| instance.region.as_str())
    }

    /// Why the metadata service cannot be asked for credentials, if it cannot: a second try would cost another second.
    pub fn imds_absent(&self) -> Option<String> {
        self.instance.as_ref().err().map(ToString::to_string)
    }

    /// Where spot notices come from, on what may be a spot instance.
    pub fn spot(&self) -> Option<Arc<Imds>> {
        self.instance
            .as_ref()
            .ok()
            .filter(|(_, instance)| instance.is_spot != Some(false))
            .map(|(imds, _)| Arc::clone(imds))
    }
}
