//! Times as they stand in URLs, headers and documents.

use tidelog_core::record::check_timestamp;

use crate::request::whole;

/// Milliseconds since 1970, or RFC 3339, as microseconds since 1970.
pub fn parse_us(text: &str) -> Result<i64, String> {
    let us = match whole(text) {
        Some(ms) => i64::try_from(ms).ok().and_then(|ms| ms.checked_mul(1_000)),
        None => text.parse::<jiff::Timestamp>().ok().map(|time| time.as_microsecond()),
    };
    let wrong = || format!("{text:?} is no time: use milliseconds since 1970, or 2026-01-31T12:00:00Z");
    let us = us.ok_or_else(wrong)?;
    check_timestamp(us).map_err(|error| error.to_string())?;
    Ok(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse_us("1700000000000"), Ok(1_700_000_000_000_000));
        assert_eq!(parse_us("1970-01-01T01:00:00.5+01:00"), Ok(500_000));
        for wrong in
            ["", "-1", "now", "1.5", "99999999999999999999", "9999999999999999", "1969-12-31T00:00:00Z"]
        {
            assert!(parse_us(wrong).is_err(), "{wrong}");
        }
    }
}
