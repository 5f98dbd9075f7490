//! A request, as plain as it can be.

use std::collections::BTreeMap;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tidelog_core::limits;

use crate::{Deadline, Problem};

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// As in the URL: not decoded.
    pub path: String,
    /// As in the URL, without the `?`.
    pub query: String,
    /// Names in lower case. Repeated headers are joined by commas, as Lambda does it.
    pub headers: BTreeMap<String, String>,
    /// As it came: perhaps packed (see [`crate::encoding`]).
    pub body: Bytes,
    /// When the answer must be there.
    pub deadline: Deadline,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The path's segments, decoded; a slash at the end counts for nothing.
    pub fn segments(&self) -> Result<Vec<String>, Problem> {
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        let path = path.strip_suffix('/').unwrap_or(path);
        path.split('/').map(|segment| decode("path", segment)).collect()
    }

    /// The query's parameters; any other name than these is refused, since what it meant would be lost.
    pub fn query(&self, known: &[&str]) -> Result<Query, Problem> {
        if self.query.len() > limits::HTTP_QUERY_BYTES_MAX {
            let size = self.query.len() as u64;
            return Err(Problem::too_large("query", Some(size), limits::HTTP_QUERY_BYTES_MAX));
        }
        let mut found = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text: &str| decode("query", &text.replace('+', " "));
            let (name, value) = (plain(name)?, plain(value)?);
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::invalid("query", format!("unknown parameter {name:?}; known: {known}")));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(Problem::invalid(name, "it is given twice"));
            }
        }
        Ok(Query(found))
    }
}

/// Decodes `%xx`. Refuses what is not UTF-8, or not hexadecimal.
fn decode(field: &str, text: &str) -> Result<String, Problem> {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let broken = |(at, byte): (usize, &u8)| *byte == b'%' && !(hex(at + 1) && hex(at + 2));
    if bytes.iter().enumerate().any(broken) {
        return Err(Problem::invalid(field, "a % is not followed by two hexadecimal digits"));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| Problem::invalid(field, "it is not UTF-8"))?.into_owned())
}

/// A query's parameters.
#[derive(Debug, Clone, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A whole number in a range; `default` if it is not given.
    pub fn number(&self, name: &'static str, default: u64, min: u64, max: u64) -> Result<u64, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = whole(text).filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| {
            Problem::invalid(name, format!("{text:?} must be a whole number from {min} to {max}"))
        })
    }
}

/// Digits only: no sign, no space.
pub fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use tidelog_core::env::SystemEnv;

    use super::*;

    fn request(path: &str, query: &str) -> Request {
        let deadline = Deadline::after_ms(SystemEnv::shared(), 1_000);
        let (path, query) = (path.to_owned(), query.to_owned());
        Request { method: "GET".into(), path, query, headers: BTreeMap::new(), body: Bytes::new(), deadline }
    }

    #[test]
    fn paths_are_decoded_by_segment() {
        let segments = |path| request(path, "").segments();
        assert_eq!(segments("/v1/groups/a%2Fb%20c").unwrap(), ["v1", "groups", "a/b c"]);
        assert_eq!(segments("/v1/topics/").unwrap(), ["v1", "topics"]);
        assert_eq!(segments("/").unwrap(), [""]);
        for wrong in ["/%", "/%2", "/%zz", "/%ff", "/a%é0"] {
            assert_eq!(segments(wrong).unwrap_err().status, 400, "{wrong}");
        }
    }

    #[test]
    fn queries_say_what_is_wrong() {
        let query = |text| request("/", text).query(&["key", "n"]);
        assert_eq!(query("key=a%26b+c&&n=").unwrap().get("key"), Some("a&b c"));
        for (text, wanted) in [
            ("kye=1", "unknown parameter \"kye\"; known: key, n"),
            ("key=1&key=2", "given twice"),
            ("key=%f", "two hexadecimal digits"),
            ("key=%ff", "not UTF-8"),
        ] {
            let problem = query(text).unwrap_err();
            assert!(problem.status == 400 && problem.message.contains(wanted), "{text}: {}", problem.message);
        }
        assert_eq!(request("/", &"x".repeat(20_000)).query(&[]).unwrap_err().status, 413);
        for wrong in ["n=-1", "n=+1", "n=", "n=11", "n=1e1", "n=99999999999999999999"] {
            assert_eq!(query(wrong).unwrap().number("n", 5, 1, 10).unwrap_err().status, 400, "{wrong}");
        }
        assert_eq!(query("").unwrap().number("n", 5, 1, 10).unwrap(), 5);
    }
}
