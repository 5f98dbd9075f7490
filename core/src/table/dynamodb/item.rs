//! Items as DynamoDB holds them. FORMAT.md has the table.
//!
//! Whatever comes back is checked as if a stranger had put it there: each attribute must be there and of its type, and
//! what was not asked for is damage. Attributes that nobody here knows are left alone.

use std::collections::HashMap;

use bytes::Bytes;

use super::sdk::primitives::Blob;
use super::sdk::types::AttributeValue;
use crate::table::{Item, TableError};

/// An item's attributes, by name.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// The key of an item.
pub(super) fn key_of(pk: &str, sk: u64) -> Attributes {
    HashMap::from([("pk".to_owned(), AttributeValue::S(pk.to_owned())), ("sk".to_owned(), number(sk))])
}

pub(super) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn id_of(id: u128) -> AttributeValue {
    AttributeValue::B(Blob::new(id.to_be_bytes()))
}

/// An item as attributes.
pub(super) fn attributes_of(pk: &str, item: &Item) -> Attributes {
    let mut attributes = key_of(pk, item.sk);
    attributes.insert("id".to_owned(), id_of(item.id));
    attributes.insert("time_ms".to_owned(), number(item.time_ms));
    attributes.insert("hint".to_owned(), AttributeValue::S(item.hint.clone()));
    if let Some(body) = &item.body {
        attributes.insert("body".to_owned(), AttributeValue::B(Blob::new(body.to_vec())));
    }
    attributes
}

/// Attributes as an item, which must lie under `pk`.
pub(super) fn item_of(pk: &str, mut attributes: Attributes) -> Result<Item, TableError> {
    let there = string(&mut attributes, "pk")?;
    if there != pk {
        return Err(TableError::Damaged(format!("attribute pk is {there:?}, asked for was {pk:?}")));
    }
    let sk: u64 = parsed(&mut attributes, "sk", "a whole number from 0")?;
    let about = |error: TableError| match error {
        TableError::Damaged(what) => TableError::Damaged(format!("item {pk} · {sk}: {what}")),
        other => other,
    };
    rest(sk, &mut attributes).map_err(about)
}

fn rest(sk: u64, attributes: &mut Attributes) -> Result<Item, TableError> {
    let id = binary(attributes, "id")?.ok_or_else(|| wrong("id", "absent"))?;
    let id = <[u8; 16]>::try_from(id.as_slice())
        .map_err(|_| wrong("id", &format!("{} bytes long, not 16", id.len())))?;
    Ok(Item {
        sk,
        id: u128::from_be_bytes(id),
        time_ms: parsed(attributes, "time_ms", "a whole number")?,
        body: binary(attributes, "body")?.map(Bytes::from),
        hint: string(attributes, "hint")?,
    })
}

fn wrong(name: &str, how: &str) -> TableError {
    TableError::Damaged(format!("attribute {name} is {how}"))
}

fn type_of(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "a string",
        AttributeValue::N(_) => "a number",
        AttributeValue::B(_) => "binary",
        AttributeValue::Null(_) => "null",
        _ => "of a type that tidelog does not write",
    }
}

fn string(attributes: &mut Attributes, name: &str) -> Result<String, TableError> {
    match attributes.remove(name) {
        Some(AttributeValue::S(value)) => Ok(value),
        Some(other) => Err(wrong(name, &format!("{}, not a string", type_of(&other)))),
        None => Err(wrong(name, "absent")),
    }
}

fn parsed<T: std::str::FromStr>(
    attributes: &mut Attributes,
    name: &str,
    what: &str,
) -> Result<T, TableError> {
    match attributes.remove(name) {
        // DynamoDB's numbers have up to 38 digits, a point and an exponent.
        Some(AttributeValue::N(value)) => {
            value.parse().map_err(|_| wrong(name, &format!("{value:.50}, not {what}")))
        }
        Some(other) => Err(wrong(name, &format!("{}, not a number", type_of(&other)))),
        None => Err(wrong(name, "absent")),
    }
}

fn binary(attributes: &mut Attributes, name: &str) -> Result<Option<Vec<u8>>, TableError> {
    match attributes.remove(name) {
        Some(AttributeValue::B(value)) => Ok(Some(value.into_inner())),
        Some(other) => Err(wrong(name, &format!("{}, not binary", type_of(&other)))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        let body = Some(Bytes::from_static(b"body"));
        Item { sk: 7, id: 9, time_ms: -5, body, hint: "Append".to_owned() }
    }

    #[test]
    fn there_and_back() {
        let stub = Item { body: None, ..item() };
        let empty = Item { body: Some(Bytes::new()), hint: String::new(), ..item() };
        for item in [item(), stub, empty] {
            assert_eq!(item_of("p", attributes_of("p", &item)).unwrap(), item);
        }
    }

    #[test]
    fn hostile_items_are_damage_that_names_the_attribute() {
        let s = |text: &str| Some(AttributeValue::S(text.to_owned()));
        let n = |text: &str| Some(AttributeValue::N(text.to_owned()));
        let b = |bytes: &[u8]| Some(AttributeValue::B(Blob::new(bytes.to_vec())));
        let null = Some(AttributeValue::Null(true));
        for (name, value) in [
            ("pk", None),
            ("pk", s("other")),
            ("pk", n("1")),
            ("sk", None),
            ("sk", s("7")),
            ("sk", n("-1")),
            ("sk", n("1.5")),
            ("sk", n("1E3")),
            ("sk", n("99999999999999999999999999999999999999")),
            ("id", None),
            ("id", s("x")),
            ("id", b(&[0; 15])),
            ("id", b(&[0; 17])),
            ("time_ms", None),
            ("time_ms", s("5")),
            ("time_ms", n("1e400")),
            ("body", s("text")),
            ("body", n("1")),
            ("body", null.clone()),
            ("hint", None),
            ("hint", Some(AttributeValue::Ss(vec!["Append".to_owned()]))),
            ("hint", null),
        ] {
            let mut attributes = attributes_of("p", &item());
            match value.clone() {
                Some(value) => attributes.insert(name.to_owned(), value),
                None => attributes.remove(name),
            };
            let error = item_of("p", attributes).unwrap_err();
            let named =
                matches!(&error, TableError::Damaged(what) if what.contains(&format!("attribute {name} ")));
            assert!(named, "{name} = {value:?}: {error}");
        }
    }

    #[test]
    fn an_attribute_of_a_later_version_is_no_damage() {
        let mut attributes = attributes_of("p", &item());
        attributes.insert("later".to_owned(), AttributeValue::Bool(true));
        assert_eq!(item_of("p", attributes).unwrap(), item());
    }
}
