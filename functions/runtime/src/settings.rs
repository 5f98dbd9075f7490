//! Environment variables → settings. They come from a template's parameters, so each is checked, and a wrong one is named.
//!
//! | variable | meaning | unless set |
//! |---|---|---|
//! | `TIDELOG_STORE` | the store's URL | must be set |
//! | `TIDELOG_INIT` | `true`: a log that is not there is made | `false` |
//! | `TIDELOG_AUTO_CREATE_PARTITIONS` | unknown topics are made with so many partitions; 0: they are refused | `0` |
//! | `TIDELOG_OTLP_TOPIC` | topic of OTLP requests without `x-tidelog-topic` | none: those are refused |
//! | `TIDELOG_LOG_LEVEL` | `off`, `error`, `warn`, `info`, `debug` | `info` |
//! | `TIDELOG_METRICS_NAMESPACE` | CloudWatch namespace of the metrics; empty: none are written | `Tidelog` |
//! | `AWS_LAMBDA_FUNCTION_MEMORY_SIZE` | MiB; Lambda sets it | 1024 |

use tidelog_core::store::StoreUrl;
use tidelog_core::{limits, topic};
use tracing_subscriber::filter::LevelFilter;

/// Settings of a function. Data only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// URL of the store.
    pub store: String,
    /// Whether a log that is not there is made.
    pub init: bool,
    /// Partitions of a topic that is made because somebody wrote to it; 0: none is made.
    pub auto_create_partitions: u32,
    /// Topic of OTLP requests that name none.
    pub otlp_topic: Option<String>,
    /// Which events are logged.
    pub log_level: LevelFilter,
    /// CloudWatch namespace of the metrics; empty: none.
    pub metrics_namespace: String,
    /// Memory of the function, MiB.
    pub memory_mib: u64,
}

/// A variable that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its name.
    pub variable: &'static str,
    /// Why, and what is allowed. Quotes the value.
    pub reason: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.variable, self.reason)
    }
}

impl Settings {
    /// For a store, with everything else as it is unless set, and no metrics: for tests and the development server.
    pub fn of(store: &str) -> Self {
        Self {
            store: store.to_owned(),
            init: true,
            auto_create_partitions: 0,
            otlp_topic: None,
            log_level: LevelFilter::WARN,
            metrics_namespace: String::new(),
            memory_mib: MEMORY_MIB,
        }
    }

    /// From the environment; `look` gives a variable's value.
    pub fn read(look: impl Fn(&str) -> Option<String>) -> Result<Self, Wrong> {
        let get = |variable: &'static str| look(variable).map(|value| value.trim().to_owned());
        let given = |variable| get(variable).filter(|value| !value.is_empty());
        Ok(Self {
            store: store(given("TIDELOG_STORE"))?,
            init: switch("TIDELOG_INIT", given("TIDELOG_INIT"))?,
            auto_create_partitions: number(
                "TIDELOG_AUTO_CREATE_PARTITIONS",
                given("TIDELOG_AUTO_CREATE_PARTITIONS"),
                0,
                (0, u64::from(limits::PARTITIONS_PER_TOPIC_MAX)),
            )? as u32,
            otlp_topic: otlp_topic(given("TIDELOG_OTLP_TOPIC"))?,
            log_level: log_level(given("TIDELOG_LOG_LEVEL"))?,
            metrics_namespace: namespace(get("TIDELOG_METRICS_NAMESPACE"))?,
            memory_mib: number(
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                given("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
                MEMORY_MIB,
                (64, 1 << 20),
            )?,
        })
    }

    /// A share of the memory, in bytes.
    fn share(&self, of: u64, min: usize, max: usize) -> usize {
        let bytes = self.memory_mib.saturating_mul(1 << 20) / of;
        usize::try_from(bytes).unwrap_or(usize::MAX).clamp(min, max)
    }

    /// Largest body after it is unpacked: a sixteenth of the memory. It is there as bytes, as records and as rows.
    pub fn unpacked_bytes_max(&self) -> usize {
        self.share(16, limits::RECORD_BYTES_DEFAULT, limits::HTTP_UNPACKED_BYTES_MAX)
    }

    /// Bytes that a producer may hold unacknowledged: an eighth.
    pub fn buffer_bytes(&self) -> usize {
        self.share(8, 2 * limits::RECORD_BYTES_MAX, limits::BUFFER_BYTES_DEFAULT)
    }

    /// Bytes of decoded segments that are kept: a sixteenth.
    pub fn cache_bytes(&self) -> usize {
        self.share(16, limits::RECORD_BYTES_DEFAULT, limits::CACHE_BYTES_DEFAULT as usize)
    }
}

const MEMORY_MIB: u64 = 1_024;

fn wrong<T>(variable: &'static str, reason: String) -> Result<T, Wrong> {
    Err(Wrong { variable, reason })
}

fn store(value: Option<String>) -> Result<String, Wrong> {
    let variable = "TIDELOG_STORE";
    let Some(url) = value else {
        return wrong(
            variable,
            "is not set: give the store's URL, such as s3://bucket/prefix?table=NAME".into(),
        );
    };
    match url.parse::<StoreUrl>() {
        Ok(_) => Ok(url),
        Err(error) => wrong(variable, format!("is no store: {error}")),
    }
}

fn switch(variable: &'static str, value: Option<String>) -> Result<bool, Wrong> {
    match value.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => wrong(variable, format!("is {other:?}: must be true or false")),
    }
}

fn number(
    variable: &'static str,
    value: Option<String>,
    default: u64,
    (min, max): (u64, u64),
) -> Result<u64, Wrong> {
    let Some(text) = value else { return Ok(default) };
    match crate::request::whole(&text).filter(|number| (min..=max).contains(number)) {
        Some(number) => Ok(number),
        None => wrong(variable, format!("is {text:?}: must be a whole number from {min} to {max}")),
    }
}

fn otlp_topic(value: Option<String>) -> Result<Option<String>, Wrong> {
    match value.as_deref().map(topic::check_name) {
        Some(Err(error)) => wrong("TIDELOG_OTLP_TOPIC", error.to_string()),
        _ => Ok(value),
    }
}

fn log_level(value: Option<String>) -> Result<LevelFilter, Wrong> {
    match value.as_deref().unwrap_or("info") {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        other => wrong("TIDELOG_LOG_LEVEL", format!("is {other:?}: must be off, error, warn, info or debug")),
    }
}

/// CloudWatch's rules for a namespace: 1 to 255 of these.
fn namespace(value: Option<String>) -> Result<String, Wrong> {
    let Some(name) = value else { return Ok("Tidelog".to_owned()) };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/#:".contains(c);
    match name.len() <= 255
        && name.chars().all(allowed)
        && !name.starts_with("AWS/")
        && !name.starts_with(':')
    {
        true => Ok(name),
        false => {
            let allowed =
                "must be at most 255 of a-z A-Z 0-9 . _ - / # :, and not begin with AWS/ or a colon";
            wrong("TIDELOG_METRICS_NAMESPACE", format!("is {name:?}: {allowed}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Wrong> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Settings::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn little_needs_to_be_set() {
        let settings = read(&[("TIDELOG_STORE", " ./folder "), ("TIDELOG_OTLP_TOPIC", "")]).unwrap();
        assert_eq!(
            (&*settings.store, settings.init, settings.auto_create_partitions),
            ("./folder", false, 0)
        );
        assert_eq!((settings.otlp_topic, settings.memory_mib), (None, 1_024));
        assert_eq!(settings.metrics_namespace, "Tidelog");
    }

    #[test]
    fn hostile_parameters_are_named() {
        for (variable, value) in [
            ("TIDELOG_STORE", ""),
            ("TIDELOG_STORE", "ftp://x"),
            ("TIDELOG_STORE", "./x?era=-1"),
            ("TIDELOG_INIT", "yes"),
            ("TIDELOG_AUTO_CREATE_PARTITIONS", "-1"),
            ("TIDELOG_AUTO_CREATE_PARTITIONS", "10001"),
            ("TIDELOG_AUTO_CREATE_PARTITIONS", "1e3"),
            ("TIDELOG_OTLP_TOPIC", "a/b"),
            ("TIDELOG_OTLP_TOPIC", ".."),
            ("TIDELOG_LOG_LEVEL", "loud"),
            ("TIDELOG_METRICS_NAMESPACE", "a b"),
            ("TIDELOG_METRICS_NAMESPACE", "AWS/Lambda"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "many"),
        ] {
            let wrong = read(&[(variable, value), ("TIDELOG_STORE", "memory:")]).unwrap_err();
            assert_eq!(wrong.variable, variable, "{value}");
            assert!(wrong.to_string().starts_with(variable));
        }
    }

    #[test]
    fn what_is_held_follows_the_memory() {
        let of = |memory_mib| Settings { memory_mib, ..Settings::of("memory:") };
        assert_eq!(of(128).unpacked_bytes_max(), 8 << 20);
        assert_eq!(of(10_240).unpacked_bytes_max(), limits::HTTP_UNPACKED_BYTES_MAX);
        assert_eq!((of(128).buffer_bytes(), of(10_240).buffer_bytes()), (16 << 20, 64 << 20));
    }
}
