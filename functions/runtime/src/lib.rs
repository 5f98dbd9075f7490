//! What the Lambda functions share. `main` of each is wiring; its handlers are plain async functions from a [`Request`]
//! to a [`Response`], so that tests and the development server call them without Lambda.
//!
//! ```text
//! Runtime API ─▶ event ─▶ Request ─▶ App: opens the log once, thaws ─▶ handlers ─▶ Response ─▶ event ─▶ Runtime API
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`] | environment variables → settings, or a clear error |
//! | [`event`] | the events of Function URLs (payload format 2.0) |
//! | [`request`], [`response`], [`problem`] | requests, answers, errors by HTTP's codes |
//! | [`encoding`] | packed bodies, bounded before and after they are unpacked |
//! | [`deadline`] | the time that an invocation has left |
//! | [`time`] | times as they stand in URLs and headers |
//! | [`app`] | what lives from one invocation to the next |
//! | [`lambda`] | the loop |
//! | [`telemetry`] | logs in JSON, metrics in CloudWatch's embedded format |

pub mod app;
pub mod deadline;
pub mod encoding;
pub mod event;
pub mod lambda;
pub mod problem;
pub mod request;
pub mod response;
pub mod settings;
pub mod telemetry;
pub mod time;

pub use app::{App, Service};
pub use deadline::Deadline;
pub use problem::Problem;
pub use request::{Query, Request};
pub use response::Response;
pub use settings::Settings;
