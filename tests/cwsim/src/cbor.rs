//! CBOR as the AWS SDK writes and reads it (smithy.protocols#rpcv2Cbor), as a tree of values.

use std::collections::BTreeMap;

use minicbor::data::{Tag, Type};
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};

/// The tag of seconds since 1970 (RFC 8949, 3.4.2).
const TAG_TIMESTAMP: u64 = 1;
/// How deep values may lie in each other.
const DEPTH_MAX: usize = 16;

/// A map with names.
pub type Map = BTreeMap<String, Value>;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// true or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Double(f64),
    /// Seconds since 1970.
    Timestamp(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Names and values.
    Map(Map),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Reads one value; nothing may follow it.
///
/// # Errors
/// It is no CBOR, or such as no Smithy client writes.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let mut decoder = Decoder::new(bytes);
    let value = read(&mut decoder, 0)?;
    if decoder.position() == bytes.len() { Ok(value) } else { Err(Error::message("bytes follow the value")) }
}

fn read(decoder: &mut Decoder<'_>, depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::message("too deep"));
    }
    Ok(match decoder.datatype()? {
        Type::Bool => Value::Bool(decoder.bool()?),
        Type::F16 => Value::Double(decoder.f16()?.into()),
        Type::F32 => Value::Double(decoder.f32()?.into()),
        Type::F64 => Value::Double(decoder.f64()?),
        Type::String => Value::Text(decoder.str()?.to_owned()),
        Type::Tag => {
            if decoder.tag()? != Tag::new(TAG_TIMESTAMP) {
                return Err(Error::message("an unknown tag"));
            }
            match read(decoder, depth + 1)? {
                Value::Integer(seconds) => Value::Timestamp(seconds as f64),
                Value::Double(seconds) => Value::Timestamp(seconds),
                _ => return Err(Error::message("a timestamp that is no number")),
            }
        }
        Type::Array | Type::ArrayIndef => {
            let mut left = decoder.array()?;
            let mut list = Vec::new();
            while goes_on(decoder, &mut left)? {
                list.push(read(decoder, depth + 1)?);
            }
            Value::List(list)
        }
        Type::Map | Type::MapIndef => {
            let mut left = decoder.map()?;
            let mut map = Map::new();
            while goes_on(decoder, &mut left)? {
                let name = decoder.str()?.to_owned();
                if map.insert(name, read(decoder, depth + 1)?).is_some() {
                    return Err(Error::message("a name that is there twice"));
                }
            }
            Value::Map(map)
        }
        _ => Value::Integer(decoder.i64()?),
    })
}

/// Whether one more item follows in a list or map, of known length or of unknown.
fn goes_on(decoder: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, Error> {
    match left {
        Some(0) => Ok(false),
        Some(count) => {
            *count -= 1;
            Ok(true)
        }
        None if decoder.datatype()? == Type::Break => {
            decoder.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}

/// Writes a value.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder, value);
    encoder.into_writer()
}

fn write(encoder: &mut Encoder<Vec<u8>>, value: &Value) {
    let written = match value {
        Value::Bool(it) => encoder.bool(*it),
        Value::Integer(it) => encoder.i64(*it),
        Value::Double(it) => encoder.f64(*it),
        Value::Timestamp(it) => encoder.tag(Tag::new(TAG_TIMESTAMP)).and_then(|encoder| encoder.f64(*it)),
        Value::Text(it) => encoder.str(it),
        Value::List(list) => encoder.array(list.len() as u64),
        Value::Map(map) => encoder.map(map.len() as u64),
    };
    written.expect("a vector takes every byte");
    match value {
        Value::List(list) => list.iter().for_each(|it| write(encoder, it)),
        Value::Map(map) => {
            for (name, it) in map {
                write(encoder, &Value::from(name.as_str()));
                write(encoder, it);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let map = Map::from([
            ("text".to_owned(), Value::from("ä")),
            ("numbers".to_owned(), Value::List(vec![Value::Integer(-7), Value::Double(0.5), Value::Timestamp(12.25)])),
            ("yes".to_owned(), Value::Bool(true)),
        ]);
        assert_eq!(decode(&encode(&Value::Map(map.clone()))).expect("it is CBOR"), Value::Map(map));
    }

    #[test]
    fn lists_and_maps_of_unknown_length_are_read() {
        // {_ "a": [_ 1, 2]}
        let bytes = [0xbf, 0x61, b'a', 0x9f, 0x01, 0x02, 0xff, 0xff];
        let list = Value::List(vec![Value::Integer(1), Value::Integer(2)]);
        assert_eq!(decode(&bytes).expect("it is CBOR"), Value::Map(Map::from([("a".to_owned(), list)])));
    }

    #[test]
    fn what_is_no_cbor_is_refused() {
        for bytes in [&[][..], &[0xbf, 0x61], &[0x01, 0x02], &[0xa2, 0x61, b'a', 1, 0x61, b'a', 2], &[0xc2, 0x01]] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
