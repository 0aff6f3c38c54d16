//! Asks CloudWatch what is there, and puts what is not, or is otherwise.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::Builder;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::operation::get_dashboard::GetDashboardError;
use aws_sdk_cloudwatch::types::{self, ComparisonOperator, MetricAlarm, Statistic};
use serde_json::Value;

use super::plan::{Alarm, Dashboard, Dimension};
use crate::export::cloudwatch::{PutError, put_error};
use crate::lifecycle::Failure;

/// A request that is not answered for so long is sent again, and given up after as long for all tries.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(15);

/// What putting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Created,
    Changed,
}

impl Change {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "unchanged",
            Self::Created => "created",
            Self::Changed => "changed",
        }
    }
}

/// CloudWatch.
pub(super) struct CloudWatch(Client);

impl CloudWatch {
    pub(super) fn new(shared: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(TRY_TIMEOUT).operation_timeout(TIMEOUT);
        let config = Builder::from(shared).retry_config(RetryConfig::standard()).timeout_config(timeouts.build());
        Self(Client::from_conf(config.build()))
    }

    /// Makes a dashboard be as it is wanted. White space and the order of members are nothing.
    pub(super) async fn dashboard(&self, wanted: &Dashboard) -> Result<Change, Failure> {
        let name = &wanted.dashboard_name;
        let change = match self.0.get_dashboard().dashboard_name(name).send().await {
            Ok(found) => {
                let json = |text: &str| serde_json::from_str::<Value>(text).ok();
                let found = found.dashboard_body().and_then(json);
                if found.is_some() && found == json(&wanted.dashboard_body) {
                    return Ok(Change::None);
                }
                Change::Changed
            }
            Err(error) if error.as_service_error().is_some_and(GetDashboardError::is_dashboard_not_found_error) => {
                Change::Created
            }
            Err(error) => return Err(failure("GetDashboard", &error)),
        };
        let put = self.0.put_dashboard().dashboard_name(name).dashboard_body(&wanted.dashboard_body);
        let put = put.send().await.map_err(|error| failure("PutDashboard", &error))?;
        if let Some(said) = put.dashboard_validation_messages().first() {
            let said = said.message().unwrap_or_default();
            return Err(Failure::system(format!("CloudWatch finds fault with the dashboard {name}: {said}")));
        }
        Ok(change)
    }

    /// Makes each alarm be as it is wanted.
    pub(super) async fn alarms<'a>(&self, wanted: &'a [Alarm]) -> Result<Vec<(&'a Alarm, Change)>, Failure> {
        let names = wanted.iter().map(|alarm| alarm.alarm_name.clone()).collect();
        let found = self.0.describe_alarms().set_alarm_names(Some(names)).send().await;
        let found = found.map_err(|error| failure("DescribeAlarms", &error))?;
        let found: Vec<Alarm> = found.metric_alarms().iter().map(Alarm::from).collect();
        let mut changes = Vec::new();
        for alarm in wanted {
            let change = match found.iter().find(|it| it.alarm_name == alarm.alarm_name) {
                Some(found) if found == alarm => Change::None,
                Some(_) => Change::Changed,
                None => Change::Created,
            };
            if change != Change::None {
                self.put_alarm(alarm).await?;
            }
            changes.push((alarm, change));
        }
        Ok(changes)
    }

    async fn put_alarm(&self, alarm: &Alarm) -> Result<(), Failure> {
        let dimension =
            |it: &Dimension| types::Dimension::builder().name(it.name.clone()).value(it.value.clone()).build();
        let request = self
            .0
            .put_metric_alarm()
            .alarm_name(&alarm.alarm_name)
            .alarm_description(&alarm.alarm_description)
            .namespace(&alarm.namespace)
            .metric_name(&alarm.metric_name)
            .set_dimensions(Some(alarm.dimensions.iter().map(dimension).collect()))
            .set_statistic(alarm.statistic.as_deref().map(Statistic::from))
            .set_extended_statistic(alarm.extended_statistic.clone())
            .period(alarm.period)
            .evaluation_periods(alarm.evaluation_periods)
            .datapoints_to_alarm(alarm.datapoints_to_alarm)
            .threshold(alarm.threshold)
            .comparison_operator(ComparisonOperator::from(alarm.comparison_operator.as_str()))
            .treat_missing_data(&alarm.treat_missing_data)
            .set_alarm_actions(Some(alarm.alarm_actions.clone()))
            .set_ok_actions(Some(alarm.ok_actions.clone()));
        request.send().await.map(drop).map_err(|error| failure("PutMetricAlarm", &error))
    }
}

impl From<&MetricAlarm> for Alarm {
    fn from(found: &MetricAlarm) -> Self {
        let text = |it: Option<&str>| it.unwrap_or_default().to_owned();
        let dimension = |it: &types::Dimension| Dimension { name: text(it.name()), value: text(it.value()) };
        let mut dimensions: Vec<Dimension> = found.dimensions().iter().map(dimension).collect();
        // They are a set, and ours are in this order.
        dimensions.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            alarm_name: text(found.alarm_name()),
            alarm_description: text(found.alarm_description()),
            namespace: text(found.namespace()),
            metric_name: text(found.metric_name()),
            dimensions,
            statistic: found.statistic().map(|it| it.as_str().to_owned()),
            extended_statistic: found.extended_statistic().map(str::to_owned),
            period: found.period().unwrap_or_default(),
            evaluation_periods: found.evaluation_periods().unwrap_or_default(),
            datapoints_to_alarm: found.datapoints_to_alarm().unwrap_or_default(),
            threshold: found.threshold().unwrap_or_default(),
            comparison_operator: text(found.comparison_operator().map(ComparisonOperator::as_str)),
            treat_missing_data: text(found.treat_missing_data()),
            alarm_actions: found.alarm_actions().to_vec(),
            ok_actions: found.ok_actions().to_vec(),
        }
    }
}

/// One line of cause and remedy.
fn failure<E>(operation: &str, error: &SdkError<E>) -> Failure
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    SdkError<E>: ProvideErrorMetadata + std::error::Error,
{
    Failure::system(match put_error(error) {
        PutError::Denied(detail) => format!(
            "cloudwatch:{operation} is not allowed ({detail}): add it to the IAM policy, see docs/iam/metrics-install.json"
        ),
        PutError::Refused(detail) => format!("CloudWatch refuses {operation}: {detail}"),
        PutError::Away(detail) => {
            format!("CloudWatch does not answer {operation} ({detail}): check the network, --region and credentials")
        }
    })
}
