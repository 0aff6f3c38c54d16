//! The exports of a mount, built from its configuration: CloudWatch and Prometheus.

use std::path::Path;
use std::sync::Arc;

use super::Failure;
use super::run::connect_failure;
use crate::clock::Clock;
use crate::config::{CloudWatchConfig, DimensionName, MountConfig, name_of};
use crate::export::cloudwatch::{CloudWatchExport, CloudWatchSink};
use crate::export::prometheus::{self, PrometheusServer};
use crate::metrics::{Metrics, PriceTable};
use crate::store::s3::{S3Settings, service_access};

/// What was asked for.
pub(super) struct Exports {
    pub(super) cloudwatch: Option<CloudWatchExport>,
    pub(super) prometheus: Option<PrometheusServer>,
}

/// Starts what was asked for. `instance` is the id of the EC2 instance, where there is one.
///
/// # Errors
/// An address that cannot be listened on; an endpoint that is none. CloudWatch itself is not asked.
pub(super) async fn start(
    config: &MountConfig,
    settings: &S3Settings,
    dir: &Path,
    instance: Option<&str>,
    (metrics, prices): (&Arc<Metrics>, &Arc<PriceTable>),
) -> Result<Exports, Failure> {
    let name = config.metrics.mount_name.clone().unwrap_or_else(|| name_of(dir));
    let prometheus = match config.metrics.prometheus {
        None => None,
        Some(address) => {
            let labels = prometheus::Labels { bucket: config.bucket.clone(), mount: name.clone() };
            let served =
                prometheus::serve(address, (Arc::clone(metrics), Arc::clone(prices)), Clock::system(), labels).await;
            Some(served.map_err(|error| {
                Failure::system(format!("{address} cannot be listened on ({error}): name another with --prometheus"))
            })?)
        }
    };
    let cloudwatch = match &config.metrics.cloudwatch {
        None => None,
        Some(wanted) => {
            let values = [Some(config.bucket.as_str()), Some(&name), instance];
            Some(cloudwatch(wanted, settings, values, (metrics, prices)).await?)
        }
    };
    Ok(Exports { cloudwatch, prometheus })
}

/// `values` are those of bucket, mount name and instance.
async fn cloudwatch(
    wanted: &CloudWatchConfig,
    settings: &S3Settings,
    [bucket, name, instance]: [Option<&str>; 3],
    (metrics, prices): (&Arc<Metrics>, &Arc<PriceTable>),
) -> Result<CloudWatchExport, Failure> {
    let said = wanted.endpoint_url.clone().map(|url| ("--cloudwatch-endpoint-url", url));
    let access = service_access(settings, "CLOUDWATCH", said).await.map_err(|error| connect_failure(&error))?;
    let mut dimensions = Vec::new();
    for dimension in &wanted.dimensions {
        let value = match dimension {
            DimensionName::Bucket => bucket,
            DimensionName::MountName => name,
            DimensionName::InstanceId => instance,
        };
        match value {
            Some(value) => dimensions.push((dimension.name().to_owned(), value.to_owned())),
            None => tracing::warn!("the instance's id is not known: metrics go to CloudWatch without {dimension:?}"),
        }
    }
    let dimension_bytes = dimensions.iter().map(|(name, value)| name.len() + value.len() + 20).sum();
    let sink = CloudWatchSink::new(&access.config, wanted, dimensions).renewing(move || access.credentials.refused());
    let numbers = (Arc::clone(metrics), Arc::clone(prices));
    Ok(CloudWatchExport::start(numbers, Clock::system(), wanted.interval, dimension_bytes, Box::new(sink)))
}
