//! The demo's input: this machine's own log files, copied so that nobody changes them under the check.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidelog_core::text::{Line, Lines};

/// Longer lines are left out: no log has them, and they would only be about sizes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How deep folders are searched.
const DEPTH_MAX: usize = 6;
/// Lines that stay together when they are dealt out.
const BLOCK: u64 = 1_000;
/// Programs that have a lot to say on any machine.
const PROGRAMS: [&[&str]; 4] =
    [&["journalctl", "--no-pager"], &["find", "/", "-xdev", "-ls"], &["ls", "-lR", "/usr"], &["dpkg", "-l"]];

/// What was gathered.
pub struct Gathered {
    /// One file a writer. The first has half of all.
    pub files: Vec<PathBuf>,
    /// Lines in all.
    pub lines: u64,
    /// Where they come from, in words.
    pub from: Vec<String>,
}

struct Deal {
    out: Vec<BufWriter<File>>,
    lines: u64,
    most: u64,
}

impl Deal {
    /// Deals out what `from` has, up to the limit. Answers how many lines.
    fn take(&mut self, from: impl Read) -> io::Result<u64> {
        let mut lines = Lines::new(BufReader::with_capacity(128 << 10, from), LINE_BYTES_MAX);
        let before = self.lines;
        while self.lines < self.most {
            let line = match lines.next_line()? {
                None => break,
                Some(Line::TooLong(_)) => continue,
                Some(Line::Bytes(line)) => line,
            };
            let (block, others) = (self.lines / BLOCK, self.out.len() as u64 - 1);
            let writer = if block.is_multiple_of(2) || others == 0 { 0 } else { 1 + (block / 2) % others };
            let out = &mut self.out[writer as usize];
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            self.lines += 1;
        }
        Ok(self.lines - before)
    }
}

/// Gathers at least `least` lines (and at most a quarter more) into files under `folder`.
pub fn gather(folder: &Path, writers: usize, least: u64) -> io::Result<Gathered> {
    let mut make = fs::DirBuilder::new();
    make.recursive(true);
    // Logs may be for their owner's eyes only, and so are their copies.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
    make.create(folder)?;
    let files: Vec<PathBuf> =
        (1..=writers).map(|number| folder.join(format!("writer-{number}.log"))).collect();
    let out = files.iter().map(|path| Ok(BufWriter::new(File::create(path)?))).collect::<io::Result<_>>()?;
    let mut deal = Deal { out, lines: 0, most: least + least / 4 };
    let mut from = Vec::new();
    let mut found = Vec::new();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    search(Path::new("/var/log"), DEPTH_MAX, false, &mut found);
    home.iter().for_each(|home| search(home, DEPTH_MAX, true, &mut found));
    let mut count = 0;
    for path in found {
        // A log that may not be read is somebody else's.
        let Ok(file) = File::open(&path) else { continue };
        count += u64::from(deal.take(file).is_ok_and(|lines| lines > 0));
    }
    if count > 0 {
        from.push(format!("{} lines of {count} log files", deal.lines));
    }
    // Programs run until there is enough; on a small machine more than once.
    for round in 0..50 {
        for program in PROGRAMS {
            if deal.lines >= least {
                break;
            }
            let lines = run(program, &mut deal)?;
            if lines > 0 && round == 0 {
                from.push(format!("{lines} lines of `{}`", program.join(" ")));
            }
        }
    }
    for out in &mut deal.out {
        out.flush()?;
    }
    if deal.lines < least {
        let words = format!("only {} of {least} lines found on this machine", deal.lines);
        return Err(io::Error::other(words));
    }
    Ok(Gathered { files, lines: deal.lines, from })
}

/// Plain text files under `folder`, in order; in a home only those that are named as logs.
fn search(folder: &Path, depth: usize, named: bool, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() && depth > 1 {
            search(&path, depth - 1, named, found);
        } else if kind.is_file() && is_text(&path) && (!named || path.extension().is_some_and(|e| e == "log"))
        {
            found.push(path);
        }
    }
}

fn is_text(path: &Path) -> bool {
    let packed = path
        .extension()
        .is_some_and(|end| ["gz", "xz", "bz2", "zst", "journal"].iter().any(|known| end == *known));
    let Some(file) = (!packed).then(|| File::open(path).ok()).flatten() else { return false };
    let mut reader = BufReader::with_capacity(1_024, file);
    reader.fill_buf().is_ok_and(|start| !start.is_empty() && !start.contains(&0))
}

fn run(program: &[&str], deal: &mut Deal) -> io::Result<u64> {
    let child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    // Not every machine has every program.
    let Ok(mut child) = child else { return Ok(0) };
    let lines = child.stdout.take().map_or(Ok(0), |out| deal.take(out))?;
    // It may still be talking.
    let _ = child.kill();
    child.wait()?;
    Ok(lines)
}
