//! A server process that cannot outlive the process that started it.
//!
//! A shell stands between: it starts the server in a process group of its own and holds the reading end of a pipe whose
//! writing end only the test's process has. When that ends, killed or not, the pipe closes, and the shell kills the group.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Absent;

const GUARD: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{ cat <&3 >/dev/null; kill -KILL 0; } &
wait "$server"
"#;
/// LocalStack on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(90);

/// A running server. Dropped, it is killed with all its children.
#[derive(Debug)]
pub struct Server {
    guard: Child,
    port: u16,
    log: TempDir,
    data: Option<TempDir>,
}

impl Server {
    /// Starts `program` in `folder`, and waits until it answers HTTP on `port`.
    pub(crate) fn start(
        program: &str,
        args: &[String],
        folder: &Path,
        variables: &[(&str, String)],
        port: u16,
    ) -> Result<Self, Absent> {
        let words = |error: std::io::Error| format!("{program}: {error}");
        let log = tempfile::tempdir().map_err(words)?;
        let out = std::fs::File::create(log.path().join("log")).map_err(words)?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard", program])
            .args(args)
            .current_dir(folder)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(out.try_clone().map_err(words)?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .map_err(words)?;
        let mut server = Self { guard, port, log, data: None };
        server.wait_until_up().map_err(|error| format!("{program}: {error}; it said:\n{}", server.log()))?;
        Ok(server)
    }

    pub(crate) fn owning(mut self, data: TempDir) -> Self {
        self.data = Some(data);
        self
    }

    #[allow(clippy::disallowed_methods, reason = "a real process is waited for")]
    fn wait_until_up(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.guard.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("it ended with {status}"));
            }
            if self.answers() {
                return Ok(());
            }
            if began.elapsed() > UP_WITHIN {
                return Err(format!("it does not answer within {UP_WITHIN:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether anything that speaks HTTP is there.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let address = ([127, 0, 0, 1], self.port).into();
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut start = [0; 5];
            stream.read_exact(&mut start)?;
            Ok(start == *b"HTTP/")
        };
        ask().unwrap_or(false)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it wrote to its output, at most the last 4,000 bytes.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4_000)..]).into_owned()
    }

    /// The process group of the server: signals to it reach it and its children.
    pub fn group(&self) -> u32 {
        self.guard.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closes the pipe; the guard's watcher kills the group, the guard included.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
