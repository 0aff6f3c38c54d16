//! Answers: status, headers and body, S3's errors, and the little XML that they need.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// An answer before it is shaped and sent.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: Vec<(HeaderName, String)>,
    /// Body in chunks.
    pub body: Vec<Bytes>,
}

/// An error of S3: code, status and message.
#[derive(Clone, Copy, Debug)]
pub struct Refusal(pub u16, pub &'static str, pub &'static str);

/// No such key.
pub const NO_SUCH_KEY: Refusal = Refusal(404, "NoSuchKey", "The specified key does not exist.");
/// No such bucket.
pub const NO_SUCH_BUCKET: Refusal = Refusal(404, "NoSuchBucket", "The specified bucket does not exist");
/// No such upload.
pub const NO_SUCH_UPLOAD: Refusal = Refusal(404, "NoSuchUpload", "The specified upload does not exist.");
/// A condition does not hold.
pub const PRECONDITION_FAILED: Refusal =
    Refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
/// Not allowed.
pub const ACCESS_DENIED: Refusal = Refusal(403, "AccessDenied", "Access Denied");
/// The session token has expired.
pub const EXPIRED_TOKEN: Refusal = Refusal(400, "ExpiredToken", "The provided token has expired.");
/// The access key is none, or is none any more.
pub const UNKNOWN_KEY: Refusal =
    Refusal(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.");
/// The object needs a key that the request does not bring.
pub const CUSTOMER_ENCRYPTED: Refusal = Refusal(
    400,
    "InvalidRequest",
    "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve \
     the object.",
);
/// The request is dated too far off.
pub const TIME_TOO_SKEWED: Refusal =
    Refusal(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.");
/// Too many requests.
pub const SLOW_DOWN: Refusal = Refusal(503, "SlowDown", "Please reduce your request rate.");
/// Our fault.
pub const INTERNAL_ERROR: Refusal =
    Refusal(500, "InternalError", "We encountered an internal error. Please try again.");
/// A range behind the end.
pub const INVALID_RANGE: Refusal = Refusal(416, "InvalidRange", "The requested range is not satisfiable");
/// The object is archived.
pub const INVALID_OBJECT_STATE: Refusal =
    Refusal(403, "InvalidObjectState", "The operation is not valid for the object's storage class");
/// A checksum does not match.
pub const BAD_DIGEST: Refusal =
    Refusal(400, "BadDigest", "The CRC64NVME you specified did not match the calculated checksum.");
/// Nothing that we know.
pub const NOT_IMPLEMENTED: Refusal =
    Refusal(501, "NotImplemented", "A header or query you provided is not implemented.");
/// XML or arguments that make no sense.
pub const MALFORMED: Refusal = Refusal(400, "MalformedXML", "The XML you provided was not well-formed");
/// Over 1024 bytes.
pub const KEY_TOO_LONG: Refusal = Refusal(400, "KeyTooLongError", "Your key is too long");

impl Answer {
    /// An empty answer.
    pub fn of(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("statuses are constants");
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// An answer in XML.
    pub fn xml(text: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}");
        Self { body: vec![body.into()], ..Self::of(200) }.with("content-type", "application/xml")
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// Length of the body in bytes.
    pub fn body_len(&self) -> u64 {
        self.body.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// Status and headers as an HTTP answer with a body.
    pub fn into_response<B>(self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            // Metadata may hold what no header can; the real one refuses it earlier.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal(status, code, message): Refusal) -> Self {
        let text = format!("<Error><Code>{code}</Code><Message>{message}</Message><RequestId>sim</RequestId></Error>");
        Self { status: StatusCode::from_u16(status).expect("statuses are constants"), ..Self::xml(&text) }
    }
}

/// Text inside XML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // S3 does the same with what XML 1.0 has no place for; clients that care ask for encoding-type=url.
            letter if letter < ' ' && letter != '\n' && letter != '\t' => {
                out.push_str(&format!("&#x{:x};", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out
}

/// The texts of all elements of a name, unescaped, in order. The XML of S3's requests is flat enough for that.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some(start) = rest.find(&open) {
        let inner = &rest[start + open.len()..];
        let Some(end) = inner.find(&close) else { break };
        found.push(unescaped(&inner[..end]));
        rest = &inner[end..];
    }
    found
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find(';') else { break };
        let entity = &rest[at + 1..at + end];
        let number = entity.strip_prefix("#x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let number = number.or_else(|| entity.strip_prefix('#').and_then(|digits| digits.parse().ok()));
        match entity {
            "amp" => out.push('&'),
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            _ => out.extend(number.and_then(char::from_u32)),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_is_read_again() {
        let text = "a&b<c>\"d\"\r🦀";
        assert_eq!(elements(&format!("<K>{}</K>", escaped(text)), "K"), [text]);
        assert_eq!(elements("<K>a&#x41;&#66;</K><K/>", "K"), ["aAB"]);
    }
}
