//! The demo's writers: processes of this same program, one of them killed in the middle.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidelog_core::env::SharedEnv;

/// The demo's topic.
pub const TOPIC: &str = "demo";
/// How long one writer may take in all.
const PATIENCE: Duration = Duration::from_secs(300);

/// One run of a writer.
pub struct Writer {
    child: Child,
    /// Where it writes down its acks.
    pub acks: PathBuf,
    /// Where it keeps its counts.
    pub counts: PathBuf,
}

/// An acked line.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// Line number, from 1.
    pub line: u64,
    /// Where it is.
    pub partition: u32,
    /// Where it is.
    pub offset: u64,
}

impl Writer {
    /// Starts one. The same `number` twice is the same writer, started again.
    pub fn start(store: &Path, file: &Path, number: usize, run: usize, folder: &Path) -> io::Result<Self> {
        let acks = folder.join(format!("writer-{number}.run-{run}.acks.ndjson"));
        let counts = folder.join(format!("writer-{number}.run-{run}.counts.json"));
        let child = Command::new(std::env::current_exe()?)
            .arg("--store")
            .arg(store)
            .args(["produce", TOPIC])
            .arg(file)
            .args(["--producer-id", &format!("writer-{number}")])
            .arg("--acks-out")
            .arg(&acks)
            .arg("--counts-out")
            .arg(&counts)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child, acks, counts })
    }

    /// Waits until some of its lines are acked. `false`: it ended before.
    pub async fn first_acks(&mut self, env: &SharedEnv) -> io::Result<bool> {
        let deadline = env.monotonic() + PATIENCE;
        while env.monotonic() < deadline {
            if std::fs::metadata(&self.acks).is_ok_and(|found| found.len() > 0) {
                return Ok(true);
            }
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            env.sleep(Duration::from_millis(1)).await;
        }
        Err(io::Error::other("a writer got no ack"))
    }

    /// SIGKILL: it gets no chance to do anything more.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Waits for its end; answers whether it succeeded, and what it said.
    pub async fn finish(&mut self, env: &SharedEnv) -> io::Result<(bool, String)> {
        let deadline = env.monotonic() + PATIENCE;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if env.monotonic() >= deadline => break self.kill()?,
                None => env.sleep(Duration::from_millis(2)).await,
            }
        };
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        Ok((status.success(), said))
    }

    /// What it was told is in the log. A last line that the kill cut off does not count.
    pub fn acks(&self) -> io::Result<Vec<Ack>> {
        let mut acks = Vec::new();
        for line in BufReader::new(File::open(&self.acks)?).lines() {
            let Ok(ack) = serde_json::from_str::<Value>(&line?) else { continue };
            let number = |name: &str| ack[name].as_u64();
            if let (Some(line), Some(partition), Some(offset)) =
                (number("line"), number("partition"), number("offset"))
            {
                acks.push(Ack { line, partition: partition as u32, offset });
            }
        }
        Ok(acks)
    }

    /// Its requests, as far as it got.
    pub fn counts(&self) -> Value {
        let text = std::fs::read_to_string(&self.counts).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody is left behind when the demo fails half way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
