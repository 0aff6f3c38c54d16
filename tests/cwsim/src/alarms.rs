//! PutMetricAlarm and DescribeAlarms: alarms on one metric (API reference, PutMetricAlarm). Pure.

use std::collections::BTreeMap;

use crate::cbor::{Map, Value};
use crate::data::{check_namespace, dimensions};
use crate::fields::{Fields, Refusal, invalid};

/// Alarms by name, as they were put.
pub type Alarms = BTreeMap<String, Map>;

const STATISTICS: [&str; 5] = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"];
const COMPARISONS: [&str; 4] =
    ["GreaterThanOrEqualToThreshold", "GreaterThanThreshold", "LessThanThreshold", "LessThanOrEqualToThreshold"];
const MISSING_DATA: [&str; 4] = ["breaching", "notBreaching", "ignore", "missing"];
/// Alarms that one page of DescribeAlarms has.
const PAGE_MAX: i64 = 100;

/// Checks an alarm and keeps it.
///
/// # Errors
/// CloudWatch would refuse it.
pub fn put(alarms: &mut Alarms, input: Value) -> Result<(), Refusal> {
    let Value::Map(whole) = input.clone() else { return invalid("no structure") };
    let mut fields = Fields::of("PutMetricAlarm", input)?;
    let name = fields.text("AlarmName")?;
    let name = fields.required("AlarmName", name)?;
    if !(1..=255).contains(&name.len()) {
        return invalid(format!("alarm name {name:?}"));
    }
    if fields.text("AlarmDescription")?.is_some_and(|it| it.len() > 1024) {
        return invalid("AlarmDescription is longer than 1024");
    }
    let namespace = fields.text("Namespace")?;
    check_namespace(&fields.required("Namespace", namespace)?)?;
    let metric = fields.text("MetricName")?;
    fields.required("MetricName", metric)?;
    dimensions(fields.list("Dimensions")?)?;
    match (fields.text("Statistic")?, fields.text("ExtendedStatistic")?) {
        (Some(it), None) if STATISTICS.contains(&&*it) => {}
        (None, Some(it)) if is_percentile(&it) => {}
        other => return invalid(format!("statistics {other:?}")),
    }
    let (period, evaluated) = (fields.integer("Period")?, fields.integer("EvaluationPeriods")?);
    let (period, evaluated) = (fields.required("Period", period)?, fields.required("EvaluationPeriods", evaluated)?);
    if !(matches!(period, 10 | 20 | 30) || (period > 0 && period % 60 == 0)) {
        return invalid(format!("period {period}"));
    }
    let span_max = if period < 3600 { 86_400 } else { 604_800 };
    if evaluated < 1 || evaluated * period > span_max {
        return invalid(format!("{evaluated} periods of {period} s"));
    }
    if fields.integer("DatapointsToAlarm")?.is_some_and(|it| it < 1 || it > evaluated) {
        return invalid("DatapointsToAlarm is not within EvaluationPeriods");
    }
    let threshold = fields.number("Threshold")?;
    fields.required("Threshold", threshold)?;
    let comparison = fields.text("ComparisonOperator")?;
    let comparison = fields.required("ComparisonOperator", comparison)?;
    if !COMPARISONS.contains(&&*comparison) {
        return invalid(format!("comparison {comparison:?}"));
    }
    if fields.text("TreatMissingData")?.is_some_and(|it| !MISSING_DATA.contains(&&*it)) {
        return invalid("TreatMissingData");
    }
    if fields.text("EvaluateLowSampleCountPercentile")?.is_some_and(|it| !matches!(&*it, "evaluate" | "ignore")) {
        return invalid("EvaluateLowSampleCountPercentile");
    }
    fields.bool("ActionsEnabled")?;
    for kind in ["AlarmActions", "OKActions", "InsufficientDataActions"] {
        let actions = fields.texts(kind)?;
        if actions.len() > 5 || actions.iter().any(|it| !it.starts_with("arn:")) {
            return invalid(format!("{kind} {actions:?}"));
        }
    }
    fields.end()?;
    alarms.insert(name, whole);
    Ok(())
}

/// `p0` to `p100`, with up to ten decimals.
fn is_percentile(text: &str) -> bool {
    text.strip_prefix('p').and_then(|it| it.parse::<f64>().ok()).is_some_and(|it| (0.0..=100.0).contains(&it))
}

/// The alarms that were asked for, as AWS gives them back: with what it adds.
///
/// # Errors
/// The question is none.
pub fn describe(alarms: &Alarms, input: Value) -> Result<Value, Refusal> {
    let mut fields = Fields::of("DescribeAlarms", input)?;
    let (names, prefix) = (fields.texts("AlarmNames")?, fields.text("AlarmNamePrefix")?);
    if names.len() > 100 || (prefix.is_some() && !names.is_empty()) {
        return invalid("AlarmNames has a hundred at most, and excludes AlarmNamePrefix");
    }
    fields.texts("AlarmTypes")?;
    if fields.integer("MaxRecords")?.is_some_and(|it| !(1..=PAGE_MAX).contains(&it)) {
        return invalid("MaxRecords");
    }
    fields.end()?;
    let asked = |name: &str| match &prefix {
        Some(prefix) => name.starts_with(prefix.as_str()),
        None => names.is_empty() || names.iter().any(|it| it == name),
    };
    let found = alarms.iter().filter(|(name, _)| asked(name)).map(|(name, alarm)| {
        let mut alarm = alarm.clone();
        let arn = format!("arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}");
        alarm.insert("AlarmArn".into(), Value::Text(arn));
        alarm.insert("StateValue".into(), "INSUFFICIENT_DATA".into());
        alarm.entry("ActionsEnabled".into()).or_insert(Value::Bool(true));
        Value::Map(alarm)
    });
    Ok(Value::Map(Map::from([("MetricAlarms".to_owned(), Value::List(found.collect()))])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm() -> Map {
        let members: [(&str, Value); 8] = [
            ("AlarmName", "a".into()),
            ("Namespace", "n".into()),
            ("MetricName", "m".into()),
            ("ExtendedStatistic", "p99".into()),
            ("Period", Value::Integer(60)),
            ("EvaluationPeriods", Value::Integer(5)),
            ("Threshold", Value::Double(1.0)),
            ("ComparisonOperator", "GreaterThanThreshold".into()),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn an_alarm_is_put_and_described() {
        let mut alarms = Alarms::new();
        put(&mut alarms, Value::Map(alarm())).expect("it is good");
        let Ok(Value::Map(answer)) = describe(&alarms, Value::Map(Map::new())) else { panic!("an answer") };
        let Some(Value::List(found)) = answer.get("MetricAlarms") else { panic!("a list") };
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn alarms_beyond_the_rules_are_refused() {
        for (name, value) in [
            ("AlarmName", Value::from("")),
            ("Namespace", "AWS/S3".into()),
            ("ExtendedStatistic", "p101".into()),
            ("Statistic", "Sum".into()),
            ("Period", Value::Integer(45)),
            ("EvaluationPeriods", Value::Integer(1441)),
            ("DatapointsToAlarm", Value::Integer(6)),
            ("ComparisonOperator", "Greater".into()),
            ("TreatMissingData", "Ignore".into()),
            ("AlarmActions", Value::List(vec!["me".into()])),
            ("Colour", "red".into()),
        ] {
            let mut bad = alarm();
            bad.insert(name.to_owned(), value);
            assert!(put(&mut Alarms::new(), Value::Map(bad)).is_err(), "{name}");
        }
        for name in ["AlarmName", "Threshold", "MetricName", "EvaluationPeriods"] {
            let mut bad = alarm();
            bad.remove(name);
            assert!(put(&mut Alarms::new(), Value::Map(bad)).is_err(), "without {name}");
        }
    }
}
