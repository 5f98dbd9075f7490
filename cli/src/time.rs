//! TIME and positions, as every command takes them.

use std::time::Duration;

use tidelog_core::Position;
use tidelog_core::env::SharedEnv;

/// Whole numbers from here on are epoch milliseconds (3 March 1973), below they are offsets.
pub const EPOCH_MS_MIN: u64 = 100_000_000_000;

/// RFC 3339, epoch milliseconds, or a time before now (`-90s`, `-30m`, `-1h`, `-2d`), as µs since 1970.
pub fn parse_time(text: &str, env: &SharedEnv) -> Result<i64, String> {
    if let Some(ago) = text.strip_prefix('-') {
        let now_us = env.now_ms().saturating_mul(1_000);
        let ago = duration_us(ago)
            .ok_or_else(|| format!("{text} is no time before now: use a number and s, m, h or d"))?;
        return Ok(now_us.saturating_sub(ago).max(0));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let us = text.parse::<i64>().ok().and_then(|ms| ms.checked_mul(1_000));
        return us.ok_or_else(|| format!("{text} ms is out of range"));
    }
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map(|time| time.as_microsecond()).map_err(|_| {
        format!("{text:?} is no time: use 2026-01-31T12:00:00Z, epoch milliseconds, or -90s, -30m, -1h, -2d")
    })
}

/// A pause: `30s`, `10m`, `1h`, `1d`, and not 0.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let us = duration_us(text).and_then(|us| u64::try_from(us).ok()).filter(|us| *us > 0);
    us.map(Duration::from_micros)
        .ok_or_else(|| format!("{text:?} is no pause: use a number above 0 and s, m, h or d"))
}

fn duration_us(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(seconds * 1_000_000)
}

/// `start`, `end`, an offset or a time.
pub fn parse_position(text: &str) -> Result<Position, String> {
    match text {
        "start" => return Ok(Position::Start),
        "end" => return Ok(Position::End),
        _ => {}
    }
    if let Ok(number) = text.parse::<u64>()
        && number < EPOCH_MS_MIN
    {
        return Ok(Position::Offset(number));
    }
    let time = parse_time(text, &tidelog_core::env::SystemEnv::shared());
    time.map(Position::Time).map_err(|error| format!("neither start, end nor an offset, and {error}"))
}

/// Epoch milliseconds as RFC 3339.
pub fn show_ms(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        let env = tidelog_core::env::SystemEnv::shared();
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z", &env), Ok(1_500_000));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00", &env), Ok(0));
        assert_eq!(parse_time("1700000000000", &env), Ok(1_700_000_000_000_000));
        let ago = env.now_ms() * 1_000 - parse_time("-2h", &env).unwrap();
        assert!((ago - 7_200_000_000).abs() < 10_000_000, "{ago}");
        for wrong in [
            "",
            "-",
            "-h",
            "-1",
            "-1w",
            "-+1h",
            "-99999999999999999999d",
            "yesterday",
            "99999999999999999999",
            "-1é",
        ] {
            assert!(parse_time(wrong, &env).is_err(), "{wrong}");
        }
    }

    #[test]
    fn small_numbers_are_offsets() {
        assert_eq!(parse_position("start"), Ok(Position::Start));
        assert_eq!(parse_position("0"), Ok(Position::Offset(0)));
        assert_eq!(parse_position("99999999999"), Ok(Position::Offset(99_999_999_999)));
        assert_eq!(parse_position("1700000000000"), Ok(Position::Time(1_700_000_000_000_000)));
        assert!(parse_position("begin").unwrap_err().contains("start, end"));
    }
}
