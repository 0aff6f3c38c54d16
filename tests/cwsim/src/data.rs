//! PutMetricData: what it may carry (API reference, PutMetricData, MetricDatum, Dimension, StatisticSet), and what is
//! known then. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::cbor::Value;
use crate::fields::{Fields, Refusal, invalid};

/// Data a request may have, and bytes, decompressed.
pub const DATA_MAX: usize = 1000;
/// Bytes a request may have, decompressed.
pub const REQUEST_BYTES_MAX: usize = 1_000_000;
/// Distinct values of a datum.
pub const VALUES_MAX: usize = 150;
/// Dimensions of a datum.
pub const DIMENSIONS_MAX: usize = 30;
const PAST_SECONDS_MAX: f64 = 14.0 * 86_400.0;
const FUTURE_SECONDS_MAX: f64 = 2.0 * 3600.0;

const UNITS: &str = "Seconds Microseconds Milliseconds Bytes Kilobytes Megabytes Gigabytes Terabytes Bits Kilobits Megabits \
    Gigabits Terabits Percent Count Bytes/Second Kilobytes/Second Megabytes/Second Gigabytes/Second Terabytes/Second \
    Bits/Second Kilobits/Second Megabits/Second Gigabits/Second Terabits/Second Count/Second None";

/// Names and values of dimensions.
pub type Dimensions = BTreeMap<String, String>;

/// One datum that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Namespace.
    pub namespace: String,
    /// Metric.
    pub name: String,
    /// Dimensions.
    pub dimensions: Dimensions,
    /// Seconds since 1970.
    pub timestamp: f64,
    /// Unit.
    pub unit: String,
    /// 1 or 60.
    pub resolution: i64,
    /// Values and how often each was there.
    pub values: Vec<(f64, f64)>,
    /// How many.
    pub sample_count: f64,
    /// Their sum.
    pub sum: f64,
    /// The least.
    pub minimum: f64,
    /// The greatest.
    pub maximum: f64,
}

/// The data of a request, if CloudWatch would take all of them.
///
/// # Errors
/// It would refuse the request.
pub fn read(input: Value, now: f64) -> Result<Vec<Point>, Refusal> {
    let mut fields = Fields::of("PutMetricData", input)?;
    let namespace = fields.text("Namespace")?;
    let namespace = fields.required("Namespace", namespace)?;
    check_namespace(&namespace)?;
    let data = fields.list("MetricData")?;
    fields.end()?;
    if data.is_empty() {
        return Err(Refusal { code: "MissingParameter", line: "MetricData is required".into() });
    }
    if data.len() > DATA_MAX {
        return invalid(format!("{} metrics are more than {DATA_MAX}", data.len()));
    }
    let place = |number| format!("MetricData.member.{}", number + 1);
    data.into_iter().enumerate().map(|(number, it)| datum(Fields::of(place(number), it)?, &namespace, now)).collect()
}

/// Whether a namespace is one.
///
/// # Errors
/// It is none.
pub fn check_namespace(name: &str) -> Result<(), Refusal> {
    let letter = |it: char| it.is_ascii_alphanumeric() || ".-_/#: ".contains(it);
    let fits = (1..=255).contains(&name.len()) && name.chars().all(letter) && !name.starts_with(':');
    if fits && !name.starts_with("AWS/") { Ok(()) } else { invalid(format!("namespace {name:?}")) }
}

fn datum(mut fields: Fields, namespace: &str, now: f64) -> Result<Point, Refusal> {
    let name = fields.text("MetricName")?;
    let name = fields.required("MetricName", name)?;
    check_word("metric name", &name, 255)?;
    let dimensions = dimensions(fields.list("Dimensions")?)?;
    let timestamp = fields.timestamp("Timestamp")?.unwrap_or(now);
    if timestamp < now - PAST_SECONDS_MAX || timestamp > now + FUTURE_SECONDS_MAX {
        return invalid(format!("timestamp {timestamp} of {name} is not within two weeks ago and two hours ahead"));
    }
    let unit = fields.text("Unit")?.unwrap_or_else(|| "None".into());
    if !UNITS.split(' ').any(|it| it == unit) {
        return invalid(format!("unit {unit:?}"));
    }
    let resolution = fields.integer("StorageResolution")?.unwrap_or(60);
    if !matches!(resolution, 1 | 60) {
        return invalid(format!("storage resolution {resolution}"));
    }
    let (value, values, counts) = (fields.number("Value")?, fields.numbers("Values")?, fields.numbers("Counts")?);
    let set = fields.structure("StatisticValues")?.map(statistics).transpose()?;
    fields.end()?;
    let values = match value {
        Some(_) if set.is_some() || !values.is_empty() => {
            return invalid(format!("Value of {name} excludes Values and StatisticValues"));
        }
        Some(value) => vec![(value, 1.0)],
        None => pairs(&name, values, counts)?,
    };
    let [sample_count, sum, minimum, maximum] = match set {
        Some(set) => set,
        None if values.is_empty() => return invalid(format!("{name} has no value")),
        None => reckoned(&values),
    };
    let is_within = |it: f64| (minimum..=maximum).contains(&it);
    if !values.is_empty() {
        let [count, ..] = reckoned(&values);
        if count != sample_count || !values.iter().all(|(it, _)| is_within(*it)) {
            return invalid(format!("statistics of {name} are not those of its values"));
        }
    }
    if sample_count > 0.0 && !(minimum * sample_count <= sum * 1.000_001 && sum <= maximum * sample_count * 1.000_001) {
        return invalid(format!("sum {sum} of {name} is not between {sample_count} times {minimum} and {maximum}"));
    }
    let namespace = namespace.to_owned();
    Ok(Point { namespace, name, dimensions, timestamp, unit, resolution, values, sample_count, sum, minimum, maximum })
}

fn statistics(mut fields: Fields) -> Result<[f64; 4], Refusal> {
    let mut one = |name: &str| {
        let it = fields.number(name)?;
        fields.required(name, it)
    };
    let set = [one("SampleCount")?, one("Sum")?, one("Minimum")?, one("Maximum")?];
    fields.end()?;
    if set[0] > 0.0 && set[2] <= set[3] { Ok(set) } else { invalid(format!("statistics {set:?}")) }
}

fn pairs(name: &str, values: Vec<f64>, counts: Vec<f64>) -> Result<Vec<(f64, f64)>, Refusal> {
    if values.len() > VALUES_MAX {
        return invalid(format!("{} values of {name} are more than {VALUES_MAX}", values.len()));
    }
    let counts = if counts.is_empty() { vec![1.0; values.len()] } else { counts };
    if counts.len() != values.len() || counts.iter().any(|count| *count <= 0.0) {
        return invalid(format!("Counts of {name} are not those of its Values"));
    }
    let distinct: BTreeSet<u64> = values.iter().map(|it| it.to_bits()).collect();
    if distinct.len() != values.len() {
        return invalid(format!("a value of {name} is there twice"));
    }
    Ok(values.into_iter().zip(counts).collect())
}

fn reckoned(values: &[(f64, f64)]) -> [f64; 4] {
    let all = || values.iter().map(|(value, _)| *value);
    [
        values.iter().map(|(_, count)| count).sum(),
        values.iter().map(|(value, count)| value * count).sum(),
        all().fold(f64::INFINITY, f64::min),
        all().fold(f64::NEG_INFINITY, f64::max),
    ]
}

/// The dimensions of a datum, an alarm or a widget.
///
/// # Errors
/// CloudWatch would refuse them.
pub fn dimensions(list: Vec<Value>) -> Result<Dimensions, Refusal> {
    if list.len() > DIMENSIONS_MAX {
        return invalid(format!("{} dimensions are more than {DIMENSIONS_MAX}", list.len()));
    }
    let mut found = Dimensions::new();
    for it in list {
        let mut fields = Fields::of("Dimension", it)?;
        let (name, value) = (fields.text("Name")?, fields.text("Value")?);
        let (name, value) = (fields.required("Name", name)?, fields.required("Value", value)?);
        fields.end()?;
        check_word("dimension", &name, 255)?;
        check_word("dimension's value", &value, 1024)?;
        if name.starts_with(':') {
            return invalid(format!("dimension {name:?} begins with a colon"));
        }
        if found.insert(name.clone(), value).is_some() {
            return invalid(format!("dimension {name:?} is there twice"));
        }
    }
    Ok(found)
}

/// ASCII without control characters, and not blank.
fn check_word(what: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    let fits = (1..=bytes_max).contains(&text.len()) && text.chars().all(|it| it == ' ' || it.is_ascii_graphic());
    if fits && !text.trim().is_empty() { Ok(()) } else { invalid(format!("{what} {text:?}")) }
}
