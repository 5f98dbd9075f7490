//! Stores that cannot be used as they are: without the right to write, locked, damaged, newer, put back under a running
//! process. Each is an error that says what to do, never a panic or a hang, and nothing acked is lost.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "real processes, real time")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Place, code, err};

/// Nobody, on every Linux.
const NOBODY: u32 = 65_534;

fn table(place: &Place) -> PathBuf {
    place.path("tidelog-data/table.sqlite")
}

/// Moves the log into the database file and removes it, as a process that closes in order does.
fn close_in_order(place: &Place) {
    let conn = rusqlite::Connection::open(table(place)).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    conn.close().unwrap();
    assert!(!place.path("tidelog-data/table.sqlite-wal").exists());
}

/// Ends what hangs.
#[track_caller]
fn finish(mut child: Child, within: Duration) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > within {
            child.kill().unwrap();
            panic!("it hangs: not done after {within:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn run(place: &Place, args: &[&str]) -> Output {
    finish(place.command(args).spawn().unwrap(), Duration::from_secs(60))
}

/// A user who may read the store in a place, but not write it.
struct Reader<'a> {
    place: &'a Place,
    binary: PathBuf,
    root: bool,
}

impl<'a> Reader<'a> {
    fn new(place: &'a Place) -> Self {
        let root = fs::metadata(place.path(".")).unwrap().uid() == 0;
        // Where cargo builds need not be open to everybody.
        let binary = place.path("tidelog");
        fs::copy(env!("CARGO_BIN_EXE_tidelog"), &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
        Self { place, binary, root }
    }

    /// Takes the right to write from everybody but root, or gives it back to the owner.
    fn lock(&self, locked: bool) {
        let bits = if locked { 0o555 } else { 0o755 };
        change(&self.place.path("tidelog-data"), bits);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.place.path(".")).env_remove("TIDELOG_STORE").args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args).spawn().unwrap(), Duration::from_secs(60))
    }
}

fn change(path: &Path, bits: u32) {
    let folder = path.is_dir();
    // Children first when locking, the folder first when opening: either way each can be reached.
    let set = || {
        let bits = if folder { bits } else { bits & 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    };
    if bits & 0o200 != 0 {
        set();
    }
    if folder {
        fs::read_dir(path).unwrap().for_each(|entry| change(&entry.unwrap().path(), bits));
    }
    if bits & 0o200 == 0 {
        set();
    }
}

#[test]
fn a_store_that_may_not_be_written_can_be_read() {
    let place = Place::new(1);
    place.write("in.txt", "one\ntwo\n");
    place.ok(&["produce", "t", "in.txt", "--inline-bytes-max", "0"]);
    place.ok(&["produce", "t", "in.txt"]);
    let reader = Reader::new(&place);
    for closed in [false, true] {
        if closed {
            close_in_order(&place);
        }
        reader.lock(true);
        let before = fs::read(table(&place)).unwrap();
        let consumed = reader.run(&["consume", "t", "--until", "end"]);
        assert_eq!((code(&consumed), err(&consumed)), (0, String::new()), "closed in order: {closed}");
        assert_eq!(consumed.stdout, b"one\ntwo\none\ntwo\n");
        for args in [&["verify"][..], &["topic", "describe", "t"], &["group", "list"], &["inspect", "ledger"]]
        {
            let output = reader.run(args);
            assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
        }
        for args in [
            &["produce", "t", "in.txt"][..],
            &["init"],
            &["topic", "delete", "t"],
            &["consume", "t", "--until", "end", "--group", "g"],
        ] {
            let output = reader.run(args);
            let said = err(&output);
            assert_eq!(code(&output), 1, "{args:?}: {said}");
            assert!(said.contains("tidelog-data") && said.contains("cannot be written"), "{args:?}: {said}");
        }
        assert_eq!(fs::read(table(&place)).unwrap(), before);
        reader.lock(false);
    }
    // A log without its index, as in a copy that left it out. Whoever has it open keeps the last writer from tidying it up,
    // which a process that ends sometimes does in time.
    let keeper = rusqlite::Connection::open(table(&place)).unwrap();
    keeper.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).unwrap();
    place.ok(&["produce", "t", "in.txt"]);
    fs::remove_file(place.path("tidelog-data/table.sqlite-shm")).unwrap();
    reader.lock(true);
    let output = reader.run(&["consume", "t", "--until", "end"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("as a user who may write it"), "{}", err(&output));
    change(&table(&place), 0);
    let output = reader.run(&["consume", "t", "--until", "end"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("tidelog-data/table.sqlite"), "{}", err(&output));
    reader.lock(false);
    drop(keeper);
}

/// A line, or a panic after half a minute.
fn next_line(from: &std::sync::mpsc::Receiver<String>) -> String {
    from.recv_timeout(Duration::from_secs(30)).expect("a line in time")
}

fn lines_of(from: impl std::io::Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

#[test]
fn a_reader_without_the_right_to_write_follows_a_writer() {
    let place = Place::new(1);
    close_in_order(&place);
    let reader = Reader::new(&place);
    if !reader.root {
        println!("the writer is this user too: nobody is without the right to write");
        return;
    }
    let mut follower = reader.command(&["consume", "t"]).spawn().unwrap();
    let seen = lines_of(follower.stdout.take().unwrap());
    // Begun on a store at rest; each writer opens it, and some close it in order.
    for round in 0..4 {
        place.run_with(&["produce", "t"], format!("{round}\n").as_bytes());
        assert_eq!(next_line(&seen), round.to_string());
        if round % 2 == 0 {
            close_in_order(&place);
        }
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_lock_is_waited_for_and_then_named() {
    let place = Place::new(1);
    place.write("in.txt", "x\n");
    let holder = rusqlite::Connection::open(table(&place)).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let child = place.command(&["produce", "t", "in.txt"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    holder.execute_batch("ROLLBACK").unwrap();
    let output = finish(child, Duration::from_secs(20));
    assert_eq!(code(&output), 0, "a second is waited for: {}", err(&output));
    // Longer than anybody waits; readers do not care.
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = run(&place, &["produce", "t", "in.txt"]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(err(&output).contains("try again later") && err(&output).contains("locked"), "{}", err(&output));
    assert_eq!(place.ok(&["consume", "t", "--until", "end"]), b"x\n");
    holder.execute_batch("ROLLBACK").unwrap();
    // Somebody who wants the file alone.
    drop(holder);
    let holder = rusqlite::Connection::open(table(&place)).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    for args in [&["produce", "t", "in.txt"][..], &["consume", "t", "--until", "end"]] {
        let output = run(&place, args);
        assert_eq!(code(&output), 3, "{args:?}: {}", err(&output));
        assert!(err(&output).contains("locked by another process"), "{args:?}: {}", err(&output));
    }
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    place.ok(&["produce", "t", "in.txt"]);
    assert_eq!(place.ok(&["consume", "t", "--until", "end"]), b"x\nx\n");
}

/// With a name, lines are tried for two minutes, then given up with what to do; and again, when it is free.
#[test]
#[ignore = "takes two minutes: ./test --nightly locked"]
fn a_lock_of_minutes_ends_with_try_again() {
    let place = Place::new(1);
    place.write("in.txt", "x\n");
    let produce = ["produce", "t", "in.txt", "--producer-id", "p"];
    let holder = rusqlite::Connection::open(table(&place)).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = finish(place.command(&produce).spawn().unwrap(), Duration::from_secs(240));
    println!("{}", err(&output));
    assert_eq!(code(&output), 3, "{}", err(&output));
    holder.execute_batch("ROLLBACK").unwrap();
    place.ok(&produce);
    assert_eq!(place.ok(&["consume", "t", "--until", "end"]), b"x\n");
}

/// Runs `args` on the store with `bytes` as its database; the answer is right, or says what is wrong.
#[track_caller]
fn try_damaged(place: &Place, bytes: &[u8], args: &[&str], right: &[u8], what: &str) -> i32 {
    for left in ["-wal", "-shm"] {
        let _ = fs::remove_file(place.path(&format!("tidelog-data/table.sqlite{left}")));
    }
    fs::write(table(place), bytes).unwrap();
    let output = finish(place.command(args).spawn().unwrap(), Duration::from_secs(60));
    let said = err(&output);
    assert!(!said.contains("panicked"), "{what}: {said}");
    match code(&output) {
        // A commit whose key is damaged is not there for SQLite: the log ends before it, and what is left is right.
        0 => assert!(right.starts_with(&output.stdout), "{what}: other records"),
        1 | 3 | 4 => assert!(said.len() > 20, "{what}: exit {} says nothing: {said}", code(&output)),
        other => panic!("{what}: exit {other}: {said}"),
    }
    code(&output)
}

#[test]
fn a_damaged_database_is_named_and_never_a_panic() {
    let place = Place::new(2);
    let lines: String = (0..40).map(|n| format!("line {n}\n")).collect();
    place.write("in.txt", &lines);
    for _ in 0..12 {
        place.ok(&["produce", "t", "in.txt"]);
    }
    close_in_order(&place);
    let consume = ["consume", "t", "--until", "end", "--partition", "0"];
    let right = place.ok(&consume);
    let whole = fs::read(table(&place)).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages >= 3, "{pages} pages");
    let mut codes = std::collections::BTreeMap::new();
    let mut attempt = |bytes: &[u8], args: &[&str], what: String| {
        *codes.entry(try_damaged(&place, bytes, args, &right, &what)).or_insert(0) += 1;
    };
    for page in 0..pages {
        for value in [0, 0xa5] {
            let mut bytes = whole.clone();
            bytes[page * 4096..(page + 1) * 4096].fill(value);
            attempt(&bytes, &consume, format!("page {page} full of {value}"));
            attempt(&bytes, &["produce", "t", "in.txt"], format!("page {page} full of {value}, producing"));
        }
        for length in [page * 4096, page * 4096 + 1, page * 4096 + 2048] {
            attempt(&whole[..length], &consume, format!("cut to {length} bytes"));
            attempt(
                &whole[..length],
                &["produce", "t", "in.txt"],
                format!("cut to {length} bytes, producing"),
            );
        }
    }
    // The header whole, and of the rest a byte here and there.
    for at in (0..100).chain((100..whole.len()).step_by(1 + whole.len() / 200)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        attempt(&bytes, &consume, format!("byte {at} flipped"));
    }
    attempt(b"GIF89a, not a database at all, but longer than a header is: ", &consume, "a picture".into());
    println!("exit codes: {codes:?}");
    assert!(codes.get(&4).is_some_and(|named| *named > 20), "{codes:?}");
    // Nothing was made out of it that the whole file does not bear.
    assert_eq!(try_damaged(&place, &whole, &consume, &right, "whole"), 0);
    assert_eq!(try_damaged(&place, b"", &consume, &right, "empty"), 1);
}

#[test]
fn a_newer_store_says_upgrade() {
    let place = Place::new(1);
    place.write("in.txt", "x\n");
    let conn = rusqlite::Connection::open(table(&place)).unwrap();
    conn.pragma_update(None, "user_version", 2).unwrap();
    drop(conn);
    for args in [&["produce", "t", "in.txt"][..], &["consume", "t", "--until", "end"], &["verify"]] {
        let output = run(&place, args);
        assert_eq!(code(&output), 3, "{args:?}: {}", err(&output));
        assert!(err(&output).contains("upgrade this binary"), "{args:?}: {}", err(&output));
    }
}

/// A producer fed by this test, and a consumer, both running.
struct Running {
    producer: Child,
    consumer: Child,
    acks: PathBuf,
    seen: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(place: &Place) -> Self {
        let producer = ["produce", "t", "--acks-out", "acks"];
        let producer = place.command(&producer).stdin(Stdio::piped()).spawn().unwrap();
        let mut consumer = place.command(&["consume", "t"]).spawn().unwrap();
        let seen = lines_of(consumer.stdout.take().unwrap());
        Self { producer, consumer, acks: place.path("acks"), seen }
    }

    fn say(&mut self, line: &str) -> std::io::Result<()> {
        let to = self.producer.stdin.as_mut().unwrap();
        to.write_all(format!("{line}\n").as_bytes()).and_then(|()| to.flush())
    }

    fn acked(&self) -> usize {
        fs::read_to_string(&self.acks).unwrap_or_default().lines().count()
    }

    /// Both stop by themselves, and name what happened. The producer is fed on.
    fn stop_with(mut self, words: &str) -> usize {
        let began = Instant::now();
        while self.producer.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(40) {
            let _ = self.say("fed");
            std::thread::sleep(Duration::from_millis(200));
        }
        let acked = self.acked();
        drop(self.producer.stdin.take());
        for (who, child) in [("producer", self.producer), ("consumer", self.consumer)] {
            let output = finish(child, Duration::from_secs(30));
            // What was on its way is of unknown outcome, which is 3.
            assert!([3, 4].contains(&code(&output)), "{who}: exit {}: {}", code(&output), err(&output));
            assert!(err(&output).contains(words), "{who}: {}", err(&output));
        }
        acked
    }
}

#[test]
fn a_database_put_back_under_running_processes_stops_them() {
    let place = Place::new(1);
    let mut running = Running::start(&place);
    for round in 0..3 {
        running.say(&round.to_string()).unwrap();
        assert_eq!(next_line(&running.seen), round.to_string());
    }
    // A copy, as a person takes it with the store at rest.
    let copy = place.path("copy.sqlite");
    let conn = rusqlite::Connection::open(table(&place)).unwrap();
    conn.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    for round in 3..6 {
        running.say(&round.to_string()).unwrap();
        assert_eq!(next_line(&running.seen), round.to_string());
    }
    let acked = running.acked();
    fs::rename(&copy, table(&place)).unwrap();
    assert_eq!(running.stop_with("replaced or removed"), acked, "nothing is acked into a file that is gone");
}

#[test]
fn rows_taken_back_under_running_processes_stop_them() {
    let place = Place::new(1);
    let mut running = Running::start(&place);
    for round in 0..6 {
        running.say(&round.to_string()).unwrap();
        assert_eq!(next_line(&running.seen), round.to_string());
    }
    let conn = rusqlite::Connection::open(table(&place)).unwrap();
    conn.execute("DELETE FROM items WHERE sk > (SELECT max(sk) - 3 FROM items)", []).unwrap();
    // Both look every ten seconds.
    std::thread::sleep(Duration::from_secs(11));
    running.stop_with("the table went back");
}
