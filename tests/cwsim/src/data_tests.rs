//! Every limit refuses what is just beyond it, and takes what is just within.

use crate::cbor::{Map, Value};
use crate::data::{DATA_MAX, Point, read};
use crate::fields::Refusal;

const NOW: f64 = 1_800_000_000.0;

fn map<const N: usize>(members: [(&str, Value); N]) -> Map {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn datum() -> Map {
    map([("MetricName", "m".into()), ("Value", Value::Double(1.0))])
}

fn with(name: &str, value: Value) -> Map {
    let mut datum = datum();
    datum.insert(name.to_owned(), value);
    datum
}

fn put(data: Vec<Map>) -> Result<Vec<Point>, Refusal> {
    let data = Value::List(data.into_iter().map(Value::Map).collect());
    read(Value::Map(map([("Namespace", "n".into()), ("MetricData", data)])), NOW)
}

fn distribution(values: &[f64], counts: &[f64]) -> Map {
    let list = |it: &[f64]| Value::List(it.iter().map(|it| Value::Double(*it)).collect());
    map([("MetricName", "m".into()), ("Values", list(values)), ("Counts", list(counts))])
}

fn dimension(name: &str, value: &str) -> Value {
    Value::Map(map([("Name", name.into()), ("Value", value.into())]))
}

#[test]
fn a_plain_datum_is_taken() {
    let points = put(vec![datum()]).expect("it is good");
    assert_eq!((points[0].sum, points[0].sample_count, points[0].resolution), (1.0, 1.0, 60));
}

#[test]
fn a_thousand_metrics_are_taken_and_one_more_is_not() {
    assert!(put(vec![datum(); DATA_MAX]).is_ok());
    assert!(put(vec![datum(); DATA_MAX + 1]).is_err());
    assert!(put(vec![]).is_err());
}

#[test]
fn a_hundred_and_fifty_values_are_taken_and_one_more_is_not() {
    let values: Vec<f64> = (0..151).map(f64::from).collect();
    assert!(put(vec![distribution(&values[..150], &[1.0; 150])]).is_ok());
    assert!(put(vec![distribution(&values, &[1.0; 151])]).is_err());
}

#[test]
fn values_need_counts_of_their_own() {
    for (values, counts) in
        [(&[1.0, 2.0][..], &[1.0][..]), (&[1.0, 1.0], &[1.0, 1.0]), (&[1.0], &[0.0]), (&[f64::NAN], &[1.0])]
    {
        assert!(put(vec![distribution(values, counts)]).is_err(), "{values:?} {counts:?}");
    }
}

#[test]
fn timestamps_are_two_weeks_old_or_two_hours_ahead_at_most() {
    for (seconds, is_taken) in [(-1_209_600.0, true), (-1_209_601.0, false), (7200.0, true), (7201.0, false)] {
        let found = put(vec![with("Timestamp", Value::Timestamp(NOW + seconds))]);
        assert_eq!(found.is_ok(), is_taken, "{seconds}");
    }
    assert!(put(vec![with("Timestamp", Value::Double(NOW))]).is_err(), "a number is no timestamp");
}

#[test]
fn resolution_is_one_or_sixty() {
    for (seconds, is_taken) in [(1, true), (60, true), (0, false), (10, false)] {
        assert_eq!(put(vec![with("StorageResolution", Value::Integer(seconds))]).is_ok(), is_taken, "{seconds}");
    }
}

#[test]
fn dimensions_are_thirty_and_each_once_and_printable() {
    let many = |count: usize| Value::List((0..count).map(|n| dimension(&format!("d{n}"), "v")).collect());
    assert!(put(vec![with("Dimensions", many(30))]).is_ok());
    assert!(put(vec![with("Dimensions", many(31))]).is_err());
    for (name, value) in [("", "v"), ("d", ""), (":d", "v"), ("d", "ü"), ("d", " "), ("d", "a\nb")] {
        assert!(
            put(vec![with("Dimensions", Value::List(vec![dimension(name, value)]))]).is_err(),
            "{name:?} {value:?}"
        );
    }
    let twice = Value::List(vec![dimension("d", "1"), dimension("d", "2")]);
    assert!(put(vec![with("Dimensions", twice)]).is_err());
}

#[test]
fn statistics_must_be_those_of_the_values() {
    let set = |count: f64, sum: f64, minimum: f64, maximum: f64| {
        let double = Value::Double;
        let set = map([
            ("SampleCount", double(count)),
            ("Sum", double(sum)),
            ("Minimum", double(minimum)),
            ("Maximum", double(maximum)),
        ]);
        let mut datum = distribution(&[1.0, 3.0], &[2.0, 1.0]);
        datum.insert("StatisticValues".to_owned(), Value::Map(set));
        put(vec![datum])
    };
    assert!(set(3.0, 5.1, 0.9, 3.2).is_ok());
    assert!(set(4.0, 5.1, 0.9, 3.2).is_err(), "another count");
    assert!(set(3.0, 5.1, 1.1, 3.2).is_err(), "a value below the least");
    assert!(set(3.0, 99.0, 0.9, 3.2).is_err(), "a sum that cannot be");
}

#[test]
fn a_value_excludes_values_and_units_are_known_and_members_too() {
    assert!(put(vec![with("Values", Value::List(vec![Value::Double(1.0)]))]).is_err());
    assert!(put(vec![with("Unit", "Furlongs".into())]).is_err());
    assert!(put(vec![with("Vlaue", Value::Double(1.0))]).is_err());
    assert!(put(vec![map([("MetricName", "m".into())])]).is_err(), "no value at all");
    assert!(put(vec![with("Value", Value::Double(f64::INFINITY))]).is_err());
}
