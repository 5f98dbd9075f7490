//! One request to the upstream, and what is done to the bytes on their way.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Largest body, either way.
const BODY_BYTES_MAX: usize = 256 << 20;

/// A request or an answer with its whole body.
pub(crate) type Whole<T> = (T, Bytes);

/// The connection to the upstream that belongs to one of a client's.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    address: SocketAddr,
    sender: Arc<Mutex<Option<SendRequest<Full<Bytes>>>>>,
}

impl Upstream {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, sender: Arc::default() }
    }

    /// Passes a request on, and brings its whole answer. An idle connection that was closed meanwhile is made anew.
    pub async fn ask(
        &self,
        parts: &hyper::http::request::Parts,
        body: &Bytes,
    ) -> Result<Whole<hyper::http::response::Parts>, String> {
        let mut sender = self.sender.lock().await;
        let ready = match sender.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            *sender = Some(self.connect().await?);
        }
        let Some(open) = sender.as_mut() else { return Err("not connected".to_owned()) };
        let answer = open.send_request(request(parts, body)).await;
        let answer = match answer {
            Ok(answer) => collect(answer).await,
            Err(error) => Err(error.to_string()),
        };
        if answer.is_err() {
            *sender = None;
        }
        answer
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        _ = stream.set_nodelay(true);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn request(parts: &hyper::http::request::Parts, body: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    // The body is whole by now; hyper writes its length.
    request.headers_mut().remove(TRANSFER_ENCODING);
    request
}

async fn collect(answer: Response<Incoming>) -> Result<Whole<hyper::http::response::Parts>, String> {
    let (mut parts, body) = answer.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    parts.headers.remove(TRANSFER_ENCODING);
    Ok((parts, body.to_bytes()))
}

/// The whole of a client's request.
pub(crate) async fn read(request: Request<Incoming>) -> Result<Whole<hyper::http::request::Parts>, String> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok((parts, body.to_bytes()))
}

/// Turns over the bit `at`, counted round the body.
pub(crate) fn flip(body: &Bytes, at: u64) -> Bytes {
    let mut bytes = body.to_vec();
    if !bytes.is_empty() {
        let at = at % (bytes.len() as u64 * 8);
        bytes[(at / 8) as usize] ^= 1 << (at % 8);
    }
    bytes.into()
}

/// Half of the body, with a length that says so.
pub(crate) fn shorten(parts: &mut hyper::http::response::Parts, body: &Bytes) -> Bytes {
    let half = body.slice(..body.len() / 2);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(half.len()));
    half
}

/// An answer to a range in the words of an answer to the whole.
pub(crate) fn forget_range(parts: &mut hyper::http::response::Parts) {
    if parts.headers.remove(CONTENT_RANGE).is_some() {
        parts.status = StatusCode::OK;
    }
}

/// An error in the words of the protocol: DynamoDB's JSON, where an operation was named, else S3's XML.
pub(crate) fn error(status: u16, code: &str, is_dynamodb: bool) -> Whole<hyper::http::response::Parts> {
    let (kind, body) = match is_dynamodb {
        true => (
            "application/x-amz-json-1.0",
            format!(
                "{{\"__type\":\"com.amazonaws.dynamodb.v20120810#{code}\",\"message\":\"as the proxy was told\"}}"
            ),
        ),
        false => (
            "application/xml",
            format!("<Error><Code>{code}</Code><Message>as the proxy was told</Message></Error>"),
        ),
    };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    (response.into_parts().0, body.into())
}
