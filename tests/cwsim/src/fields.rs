//! The members of a request, each of its right type. Who asked for some can demand that there are no others.

use crate::cbor::{Map, Value};

/// Why a request is refused: the code that CloudWatch answers, and a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As in `InvalidParameterValue`.
    pub code: &'static str,
    /// What is wrong.
    pub line: String,
}

/// Refuses a value.
pub fn invalid<T>(line: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code: "InvalidParameterValue", line: line.into() })
}

/// Members that were not asked for yet.
#[derive(Debug)]
pub struct Fields {
    place: String,
    left: Map,
}

impl Fields {
    /// The members of a map.
    pub fn of(place: impl Into<String>, value: Value) -> Result<Self, Refusal> {
        let place = place.into();
        match value {
            Value::Map(left) => Ok(Self { place, left }),
            other => invalid(format!("{place} is no structure: {other:?}")),
        }
    }

    /// A member that must be there.
    pub fn required<T>(&self, name: &str, it: Option<T>) -> Result<T, Refusal> {
        let line = format!("the parameter {}.{name} is required", self.place);
        it.ok_or(Refusal { code: "MissingParameter", line })
    }

    /// Text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => self.mistyped(name, "text", &other),
        }
    }

    /// A finite number that CloudWatch can hold: up to 2^360 (API reference, MetricDatum).
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(it) => self.as_number(name, &it).map(Some),
        }
    }

    fn as_number(&self, name: &str, it: &Value) -> Result<f64, Refusal> {
        match it {
            Value::Double(it) if it.is_finite() && it.abs() <= 2_f64.powi(360) => Ok(*it),
            other => self.mistyped(name, "a number within 2^360", other),
        }
    }

    /// A whole number.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Integer(it)) => Ok(Some(it)),
            Some(other) => self.mistyped(name, "a whole number", &other),
        }
    }

    /// true or false.
    pub fn bool(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Bool(it)) => Ok(Some(it)),
            Some(other) => self.mistyped(name, "true or false", &other),
        }
    }

    /// Seconds since 1970.
    pub fn timestamp(&mut self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Timestamp(it)) if it.is_finite() => Ok(Some(it)),
            Some(other) => self.mistyped(name, "a timestamp", &other),
        }
    }

    /// A list; empty if it is not there.
    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, Refusal> {
        match self.left.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::List(list)) => Ok(list),
            Some(other) => self.mistyped(name, "a list", &other),
        }
    }

    /// A list of numbers; empty if it is not there.
    pub fn numbers(&mut self, name: &str) -> Result<Vec<f64>, Refusal> {
        let list = self.list(name)?;
        list.iter().map(|it| self.as_number(name, it)).collect()
    }

    /// A list of texts; empty if it is not there.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        let list = self.list(name)?;
        let as_text = |it| match it {
            Value::Text(text) => Ok(text),
            other => self.mistyped(name, "text", &other),
        };
        list.into_iter().map(as_text).collect()
    }

    /// A structure.
    pub fn structure(&mut self, name: &str) -> Result<Option<Self>, Refusal> {
        let place = format!("{}.{name}", self.place);
        self.left.remove(name).map(|it| Self::of(place, it)).transpose()
    }

    /// Nothing else may be there.
    pub fn end(self) -> Result<(), Refusal> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => invalid(format!("{}.{name} is unknown", self.place)),
        }
    }

    fn mistyped<T>(&self, name: &str, wanted: &str, found: &Value) -> Result<T, Refusal> {
        invalid(format!("{}.{name} is not {wanted}: {found:?}", self.place))
    }
}
