//! Lambda's Runtime API, as much of it as a function asks for, and a function's process. For tests here and `bench/functions`.
#![allow(dead_code, reason = "each of them uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    event: Option<String>,
    answer: Option<Value>,
    invocations: u64,
}

/// `GET …/invocation/next` waits for an event, `POST …/response` takes its answer.
pub struct RuntimeApi {
    address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl RuntimeApi {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<(Mutex<State>, Condvar)>::default();
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), serving.clone());
                // Ends with the connection: the process on the other side is killed, as a rule.
                std::thread::spawn(move || serve(stream, &shared).is_some());
            }
        });
        Self { address, shared }
    }

    /// Waits until a function has taken the event.
    pub fn offer(&self, event: &Value) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        (state.event, state.answer) = (Some(event.to_string()), None);
        changed.notify_all();
        drop(wait(state, changed, |state| state.event.is_none()));
    }

    /// The answer to the event that was offered, if it has come.
    pub fn take_answer(&self) -> Option<Value> {
        self.shared.0.lock().unwrap().answer.take()
    }

    /// Offers an event and waits for its answer.
    pub fn invoke(&self, event: &Value) -> Value {
        self.offer(event);
        self.answer()
    }

    /// Waits for the answer to the event that was offered.
    pub fn answer(&self) -> Value {
        let (state, changed) = &*self.shared;
        wait(state.lock().unwrap(), changed, |state| state.answer.is_some()).answer.take().unwrap()
    }
}

fn wait<'a>(
    mut state: MutexGuard<'a, State>,
    changed: &Condvar,
    until: impl Fn(&State) -> bool,
) -> MutexGuard<'a, State> {
    while !until(&state) {
        let (next, waited) = changed.wait_timeout(state, PATIENCE).unwrap();
        assert!(!waited.timed_out(), "the function does not answer");
        state = next;
    }
    state
}

fn serve(stream: TcpStream, (state, changed): &(Mutex<State>, Condvar)) -> Option<()> {
    let mut to = stream.try_clone().ok()?;
    let mut from = BufReader::new(stream);
    loop {
        let (first, body) = read(&mut from)?;
        if !first.starts_with("GET") {
            let text = String::from_utf8(body).unwrap();
            let answer = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{first}: {text}"));
            let mut state = state.lock().unwrap();
            // An error of the function is an answer without a status.
            state.answer = Some(answer);
            changed.notify_all();
            drop(state);
            to.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").ok()?;
            continue;
        }
        let (event, number) = {
            let mut state = state.lock().unwrap();
            while state.event.is_none() {
                // Who waits here may have been killed, and must not take an event from who came after.
                state = changed.wait_timeout(state, Duration::from_millis(5)).unwrap().0;
                if state.event.is_none() && is_gone(&to) {
                    return None;
                }
            }
            if is_gone(&to) {
                return None;
            }
            let event = state.event.take()?;
            state.invocations += 1;
            changed.notify_all();
            (event, state.invocations)
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let (deadline, length) = (now + 30_000, event.len());
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             lambda-runtime-aws-request-id: {number:08x}-0000-4000-8000-000000000000\r\n\
             lambda-runtime-deadline-ms: {deadline}\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:000000000000:function:function\r\n\
             lambda-runtime-trace-id: Root=1-00000000-000000000000000000000000\r\n\r\n"
        );
        to.write_all(&[head.as_bytes(), event.as_bytes()].concat()).ok()?;
    }
}

/// Whether the other side closed the connection; nothing is sent by it while it waits.
fn is_gone(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match peeked {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// A request's first line and body. `None`: the connection ended.
fn read(from: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut first, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let lower = line.trim().to_ascii_lowercase();
        if first.is_empty() {
            first = line.trim().to_owned();
        } else if lower.is_empty() {
            break;
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if lower.starts_with("transfer-encoding:") {
            chunked = true;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    while chunked {
        let mut size = String::new();
        from.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        from.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    Some((first, body))
}

/// An event of a Function URL with a text body, of type `text/plain` unless said otherwise.
pub fn event(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let mut all: BTreeMap<&str, &str> = [("content-type", "text/plain"), ("host", "x.lambda-url")].into();
    all.extend(headers.iter().copied());
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": all,
        "requestContext": {"http": {"method": method, "path": path, "protocol": "HTTP/1.1"}, "requestId": "r"},
        "body": body, "isBase64Encoded": false,
    })
}

/// A function's process.
pub struct Function(Child);

impl Function {
    pub fn start(binary: &str, api: &RuntimeApi, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary);
        command.env("AWS_LAMBDA_RUNTIME_API", api.address.to_string());
        command.env("AWS_LAMBDA_FUNCTION_NAME", "function").env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST");
        command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it, and tells what it wrote.
    pub fn stop(mut self) -> (String, String) {
        // The last line is written before the answer is sent.
        self.0.kill().unwrap();
        let output =
            std::mem::replace(&mut self.0, Command::new("true").spawn().unwrap()).wait_with_output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Gone already, unless a test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
