//! PutDashboard and GetDashboard (API reference; "Dashboard body structure and syntax"). Pure.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::cbor::{Map, Value};
use crate::fields::{Fields, Refusal, invalid};

/// Bodies by name.
pub type Dashboards = BTreeMap<String, String>;

const WIDGETS_MAX: usize = 500;

/// Checks a dashboard and keeps it.
///
/// # Errors
/// CloudWatch would refuse it.
pub fn put(dashboards: &mut Dashboards, input: Value) -> Result<Value, Refusal> {
    let mut fields = Fields::of("PutDashboard", input)?;
    let (name, body) = (fields.text("DashboardName")?, fields.text("DashboardBody")?);
    let (name, body) = (fields.required("DashboardName", name)?, fields.required("DashboardBody", body)?);
    fields.end()?;
    let letter = |it: char| it.is_ascii_alphanumeric() || "-_".contains(it);
    if !(1..=255).contains(&name.len()) || !name.chars().all(letter) {
        return invalid(format!("dashboard name {name:?}"));
    }
    check(&body).map_err(|line| Refusal { code: "InvalidParameterInput", line })?;
    dashboards.insert(name, body);
    Ok(Value::Map(Map::from([("DashboardValidationMessages".to_owned(), Value::List(Vec::new()))])))
}

/// The dashboard that was asked for.
///
/// # Errors
/// There is none.
pub fn get(dashboards: &Dashboards, input: Value) -> Result<Value, Refusal> {
    let mut fields = Fields::of("GetDashboard", input)?;
    let name = fields.text("DashboardName")?;
    let name = fields.required("DashboardName", name)?;
    fields.end()?;
    let Some(body) = dashboards.get(&name) else {
        return Err(Refusal { code: "ResourceNotFound", line: format!("Dashboard {name} does not exist") });
    };
    let arn = format!("arn:aws:cloudwatch::123456789012:dashboard/{name}");
    let members = [("DashboardArn", arn), ("DashboardBody", body.clone()), ("DashboardName", name)];
    Ok(Value::Map(members.into_iter().map(|(name, it)| (name.to_owned(), Value::Text(it))).collect()))
}

fn check(body: &str) -> Result<(), String> {
    let body: Json = serde_json::from_str(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let widgets = body["widgets"].as_array().ok_or("there are no widgets")?;
    if widgets.len() > WIDGETS_MAX {
        return Err(format!("{} widgets are more than {WIDGETS_MAX}", widgets.len()));
    }
    let mut taken: Vec<[u64; 4]> = Vec::new();
    for widget in widgets {
        let number = |name: &str| widget[name].as_u64().ok_or_else(|| format!("{name} of a widget"));
        let [x, y, width, height] = [number("x")?, number("y")?, number("width")?, number("height")?];
        if x > 23 || !(1..=24).contains(&width) || !(1..=1000).contains(&height) || x + width > 24 {
            return Err(format!("place of a widget: {x} {y} {width} {height}"));
        }
        if taken.iter().any(|[u, v, w, h]| x < u + w && *u < x + width && y < v + h && *v < y + height) {
            return Err(format!("a widget at {x} {y} lies over another one"));
        }
        taken.push([x, y, width, height]);
        match widget["type"].as_str() {
            Some("metric") => metric(&widget["properties"])?,
            Some("text") if widget["properties"]["markdown"].is_string() => {}
            other => return Err(format!("type {other:?} of a widget")),
        }
    }
    Ok(())
}

fn metric(properties: &Json) -> Result<(), String> {
    if properties["region"].as_str().is_none_or(str::is_empty) {
        return Err("a widget needs its region".into());
    }
    let metrics = properties["metrics"].as_array().filter(|it| !it.is_empty()).ok_or("a widget without metrics")?;
    for line in metrics {
        let words = line.as_array().ok_or("a metric is a list")?;
        let (names, options) = match words.split_last() {
            Some((last, names)) if last.is_object() => (names, Some(last)),
            _ => (&words[..], None),
        };
        // An expression has options alone; a metric has a namespace, a name, and pairs of dimensions.
        let is_expression = names.is_empty() && options.is_some_and(|it| it["expression"].is_string());
        let is_metric = names.len() >= 2 && names.len() % 2 == 0 && names.iter().all(Json::is_string);
        if !is_expression && !is_metric {
            return Err(format!("metric {line}"));
        }
    }
    let view = properties["view"].as_str().unwrap_or("timeSeries");
    if !matches!(view, "timeSeries" | "singleValue" | "bar" | "pie" | "table" | "gauge") {
        return Err(format!("view {view:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, body: &Json) -> Result<Value, Refusal> {
        let members = [("DashboardName", name.to_owned()), ("DashboardBody", body.to_string())];
        let input = members.into_iter().map(|(name, it)| (name.to_owned(), Value::Text(it))).collect();
        put(&mut Dashboards::new(), Value::Map(input))
    }

    fn body() -> Json {
        serde_json::json!({ "widgets": [{
            "type": "metric", "x": 0, "y": 0, "width": 12, "height": 6,
            "properties": { "region": "us-east-1", "metrics": [["n", "m", "d", "v", { "stat": "p99" }]] },
        }] })
    }

    #[test]
    fn a_dashboard_is_taken_and_what_is_beyond_the_rules_is_not() {
        assert!(of("a-b_1", &body()).is_ok());
        assert!(of("a/b", &body()).is_err());
        for (pointer, value) in [
            ("/widgets/0/x", serde_json::json!(20)),
            ("/widgets/0/width", serde_json::json!(25)),
            ("/widgets/0/type", serde_json::json!("metrics")),
            ("/widgets/0/properties/region", serde_json::json!("")),
            ("/widgets/0/properties/metrics/0", serde_json::json!(["n", "m", "d"])),
            ("/widgets", serde_json::json!({})),
        ] {
            let mut bad = body();
            *bad.pointer_mut(pointer).expect("it is there") = value;
            assert!(of("a", &bad).is_err(), "{pointer}");
        }
        let mut twice = body();
        let widget = twice["widgets"][0].clone();
        twice["widgets"].as_array_mut().expect("a list").push(widget);
        assert!(of("a", &twice).is_err(), "one lies over the other");
    }
}
