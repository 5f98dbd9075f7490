//! What is looked at in every answer, before the SDK parses it: its length, its CRC-32, its `Date`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

use super::sdk::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
};
use super::sdk::config::{ConfigBag, Intercept, RuntimeComponents};
use super::sdk::error::BoxError;
use super::sdk::primitives::{DateTime, DateTimeFormat};
use crate::limits::TABLE_ANSWER_BYTES_MAX;

const NEVER: i64 = i64::MIN;

/// Watches the answer to one request.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    date_ms: Arc<AtomicI64>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { date_ms: Arc::new(AtomicI64::new(NEVER)) }
    }

    /// The store's time. `Date` is cut to seconds, so one's own clock is taken where it lies in that second.
    pub(super) fn store_time_ms(&self, now_ms: i64) -> Option<i64> {
        let date_ms = self.date_ms.load(Ordering::Relaxed);
        (date_ms != NEVER).then(|| now_ms.clamp(date_ms, date_ms.saturating_add(999)))
    }
}

/// Whether `bytes` have the CRC-32 that DynamoDB sends in `x-amz-crc32`.
fn check_crc(declared: Option<&str>, bytes: &[u8]) -> Result<(), BoxError> {
    let Some(declared) = declared else { return Ok(()) };
    let found = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes);
    match declared.trim().parse::<u64>() {
        Ok(declared) if declared == found => Ok(()),
        _ => Err(format!("the answer's CRC-32 is {found}, declared was {declared:.20}").into()),
    }
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "tidelog"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let date = response.headers().get("date");
        if let Some(date) = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok()) {
            self.date_ms.store(date.secs().saturating_mul(1_000), Ordering::Relaxed);
        }
        let length = response.headers().get("content-length").and_then(|length| length.parse::<u64>().ok());
        if let Some(length) = length.filter(|length| *length > TABLE_ANSWER_BYTES_MAX as u64) {
            return Err(format!("the answer has {length} bytes, limit {TABLE_ANSWER_BYTES_MAX}").into());
        }
        // Nobody is held to the length they declare.
        let body = response.body_mut();
        let inner = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(inner, TABLE_ANSWER_BYTES_MAX));
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        match response.body().bytes() {
            Some(bytes) => check_crc(response.headers().get("x-amz-crc32"), bytes),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_corrects_a_clock_that_is_outside_its_second() {
        let watch = Watch::new();
        assert_eq!(watch.store_time_ms(5), None);
        watch.date_ms.store(7_000, Ordering::Relaxed);
        let times = [6_500, 7_000, 7_500, 7_999, 9_000].map(|now| watch.store_time_ms(now).unwrap());
        assert_eq!(times, [7_000, 7_000, 7_500, 7_999, 7_999]);
    }

    #[test]
    fn a_crc_is_looked_at() {
        // The check value of CRC-32/ISO-HDLC.
        assert!(check_crc(Some("3421780262"), b"123456789").is_ok());
        assert!(check_crc(None, b"123456789").is_ok());
        for declared in ["3421780263", "", "-1", "x"] {
            assert!(check_crc(Some(declared), b"123456789").is_err(), "{declared:?}");
        }
    }
}
