//! PutMetricData through the AWS SDK: one request, sent once, gzipped by the SDK from 10 KiB on.

use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};

use super::datum::{Datum, Value};
use super::sender::{PutError, Sink};
use crate::config::CloudWatchConfig;

/// Answers that no repetition can change: the data are wrong, not the moment.
const REFUSALS: [&str; 5] = [
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "MissingParameter",
    "MissingRequiredParameter",
    "ValidationError",
];
/// Answers that say who may not do this.
const DENIALS: [&str; 3] = ["AccessDenied", "NotAuthorized", "UnauthorizedOperation"];

/// Answers that say that the credentials have expired, or that their key is gone: new ones are loaded for the next request.
const EXPIRIES: [&str; 4] =
    ["ExpiredToken", "TokenRefreshRequired", "InvalidClientTokenId", "UnrecognizedClientException"];
/// Status of a request that is too large, whatever its code.
const TOO_LARGE: u16 = 413;

/// Where data go, and as whose.
pub struct CloudWatchSink {
    client: Client,
    /// Called where credentials have expired.
    renew: Option<Box<dyn Fn() + Send + Sync>>,
    namespace: String,
    dimensions: Vec<(String, String)>,
    is_high_resolution: bool,
}

impl CloudWatchSink {
    /// A sink for what `config` says; `dimensions` are name and value.
    pub fn new(shared: &aws_config::SdkConfig, config: &CloudWatchConfig, dimensions: Vec<(String, String)>) -> Self {
        Self {
            client: Client::new(shared),
            renew: None,
            namespace: config.namespace.clone(),
            dimensions,
            is_high_resolution: config.is_high_resolution(),
        }
    }

    /// Calls `renew` where CloudWatch takes the credentials for expired; it should see to new ones for the next request.
    pub fn renewing(self, renew: impl Fn() + Send + Sync + 'static) -> Self {
        Self { renew: Some(Box::new(renew)), ..self }
    }

    fn datum(&self, datum: Datum) -> MetricDatum {
        let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
        let mut dimensions: Vec<_> = self.dimensions.iter().map(|(name, value)| dimension(name, value)).collect();
        dimensions.extend(datum.operation.map(|operation| dimension("Operation", operation)));
        let built = MetricDatum::builder()
            .metric_name(datum.name)
            .set_dimensions(Some(dimensions))
            .timestamp(datum.at.into())
            .unit(StandardUnit::from(datum.unit))
            .set_storage_resolution(self.is_high_resolution.then_some(1));
        match datum.value {
            Value::Single(value) => built.value(value).build(),
            Value::Distribution(it) => {
                let statistics = StatisticSet::builder()
                    .sample_count(it.sample_count)
                    .sum(it.sum)
                    .minimum(it.minimum)
                    .maximum(it.maximum)
                    .build();
                built.set_values(Some(it.values)).set_counts(Some(it.counts)).statistic_values(statistics).build()
            }
        }
    }
}

#[async_trait]
impl Sink for CloudWatchSink {
    async fn put(&self, data: Vec<Datum>) -> Result<(), PutError> {
        let data = data.into_iter().map(|datum| self.datum(datum)).collect();
        let request = self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let is_expired = |code: &str| EXPIRIES.iter().any(|it| code.starts_with(it));
                if let Some(renew) = self.renew.as_ref().filter(|_| error.code().is_some_and(is_expired)) {
                    renew();
                }
                Err(put_error(&error))
            }
        }
    }
}

/// What an error of the SDK means, in a line.
pub fn put_error<E>(error: &SdkError<E>) -> PutError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    SdkError<E>: ProvideErrorMetadata + std::error::Error,
{
    let code = error.code().unwrap_or_default();
    let status = error.raw_response().map(|response| response.status().as_u16());
    let starts = |known: &[&str]| known.iter().any(|it| code.starts_with(it));
    let detail = match (code, error.message()) {
        ("", _) => causes(error),
        (code, Some(message)) => format!("{code}: {message}"),
        (code, None) => code.to_owned(),
    };
    if starts(&DENIALS) {
        PutError::Denied(detail)
    } else if starts(&REFUSALS) || status == Some(TOO_LARGE) {
        PutError::Refused(detail)
    } else {
        PutError::Away(detail)
    }
}

/// An error and what caused it, in a line.
fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    all.collect::<Vec<_>>().join(": ").replace('\n', " ")
}
