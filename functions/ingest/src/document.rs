//! JSON documents as they lie in a body: arrays are cut into pieces, and pointers (RFC 6901) followed, without building
//! what is not wanted. A small body could otherwise grow to many times its size in memory.

use std::cell::Cell;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tidelog_core::limits;
use tidelog_functions::Problem;

/// The elements of an array; more than [`limits::HTTP_RECORDS_MAX`] are refused before they are kept.
pub fn elements(text: &str) -> Result<Vec<&RawValue>, Problem> {
    let over = Cell::new(false);
    let mut from = serde_json::Deserializer::from_str(text);
    let read = from.deserialize_seq(Elements(&over)).and_then(|found| from.end().map(|()| found));
    read.map_err(|error| not_json(&error, &over))
}

/// The elements of `records`, which must be the object's only member.
pub fn members(text: &str) -> Result<Vec<&RawValue>, Problem> {
    let over = Cell::new(false);
    let mut from = serde_json::Deserializer::from_str(text);
    let read = from.deserialize_map(Members(&over)).and_then(|found| from.end().map(|()| found));
    read.map_err(|error| not_json(&error, &over))
}

fn not_json(error: &serde_json::Error, over: &Cell<bool>) -> Problem {
    match over.get() {
        true => Problem::too_large("records", None, limits::HTTP_RECORDS_MAX),
        false => Problem::invalid("body", format!("not JSON as it must be: {error}")),
    }
}

/// Checks that a text is one JSON value.
pub fn check(text: &[u8]) -> Result<&RawValue, Problem> {
    let text = std::str::from_utf8(text).map_err(|_| Problem::invalid("value", "it is not UTF-8"))?;
    serde_json::from_str(text).map_err(|error| Problem::invalid("value", format!("not JSON: {error}")))
}

struct Elements<'a>(&'a Cell<bool>);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = seq.next_element()? {
            if found.len() == limits::HTTP_RECORDS_MAX {
                self.0.set(true);
                return Err(A::Error::custom("too many elements"));
            }
            found.push(element);
        }
        Ok(found)
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

struct Members<'a>(&'a Cell<bool>);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with `records`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != "records" || found.is_some() {
                let words = "an object must have `records` and nothing else; documents go into an array";
                return Err(A::Error::custom(words));
            }
            found = Some(map.next_value_seed(Elements(self.0))?);
        }
        found.ok_or_else(|| A::Error::custom("an object must have `records`; documents go into an array"))
    }
}

/// A JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// Names of one pointer.
const NAMES_MAX: usize = 32;

impl Pointer {
    /// `/a/b~1c/0`: `~1` is a slash, `~0` a tilde.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(names) = text.strip_prefix('/') else {
            return Err(format!("{text:?} is no JSON pointer: it must begin with a slash"));
        };
        let names: Vec<&str> = names.split('/').take(NAMES_MAX + 1).collect();
        if names.len() > NAMES_MAX {
            return Err(format!("it has more than {NAMES_MAX} names"));
        }
        let plain = |name: &&str| {
            let escapes = name.matches('~').count();
            let known = name.matches("~0").count() + name.matches("~1").count();
            (escapes == known).then(|| name.replace("~1", "/").replace("~0", "~"))
        };
        let names: Option<Vec<String>> = names.iter().map(plain).collect();
        names.map(Self).ok_or_else(|| format!("{text:?} is no JSON pointer: ~ must be followed by 0 or 1"))
    }

    /// What it points to in a document. A null is not there.
    pub fn find<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        let mut at = document;
        for name in &self.0 {
            let mut from = serde_json::Deserializer::from_str(at.get());
            at = from.deserialize_any(Step(name)).ok().flatten()?;
        }
        Some(at).filter(|found| found.get() != "null")
    }
}

/// One name or index down.
struct Step<'a>(&'a str);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object or array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            // Of members with one name the last counts, as elsewhere.
            match name == self.0 {
                true => found = Some(map.next_value()?),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let plain = self.0 == "0" || !self.0.starts_with('0');
        let index = tidelog_functions::request::whole(self.0).filter(|_| plain);
        let (mut at, mut found) = (0, None);
        while let Some(element) = seq.next_element()? {
            if Some(at) == index {
                found = Some(element);
            }
            at += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_find_what_they_name() {
        let document = r#"{"a":{"b/c":[1,{"":"x"}],"n":null},"~":2,"a2":1}"#;
        let document: &RawValue = serde_json::from_str(document).unwrap();
        let find = |text| Pointer::parse(text).unwrap().find(document).map(RawValue::get);
        assert_eq!(find("/a/b~1c/0"), Some("1"));
        assert_eq!(find("/a/b~1c/1/"), Some("\"x\""));
        assert_eq!(find("/~0"), Some("2"));
        for nothing in ["/x", "/a/n", "/a/b~1c/2", "/a/b~1c/00", "/a/b~1c/-", "/~0/a", "/"] {
            assert_eq!(find(nothing), None, "{nothing}");
        }
        for wrong in ["", "a", "/~", "/~2", &"/a".repeat(33)] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
