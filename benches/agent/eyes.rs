//! When a file is seen on the hosts: from the close of a file at the source to its name, size and time in each copy.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::random::Random;

/// How often to look where no event says so.
const BLINK: Duration = Duration::from_millis(20);

/// What is later than this is told when it happens, with what it was.
const LATE_SECONDS: f64 = 0.1;

/// Watches the copies.
pub struct Eyes {
    inotify: OwnedFd,
    copies: Vec<PathBuf>,
    /// The copy that a watch belongs to.
    owners: HashMap<i32, usize>,
}

/// What tells that a file has come.
type Mark = (u64, i64, i64);

fn mark(path: &Path) -> Option<Mark> {
    let seen = fs::symlink_metadata(path).ok()?;
    Some((seen.size(), seen.mtime(), seen.mtime_nsec()))
}

impl Eyes {
    /// Watch these directories in each copy.
    pub fn open(copies: Vec<PathBuf>, directories: &[PathBuf]) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let mut owners = HashMap::new();
        for (number, copy) in copies.iter().enumerate() {
            for directory in directories {
                let path = copy.join(directory);
                let watch = inotify::add_watch(&inotify, &path, wanted)
                    .with_context(|| format!("cannot watch {}", path.display()))?;
                owners.insert(watch, number);
            }
        }
        Ok(Self { inotify, copies, owners })
    }

    /// The copies in which something happened.
    fn drain(&self) -> Result<Vec<usize>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => found.extend(self.owners.get(&event.wd())),
                Err(Errno::AGAIN) => return Ok(found),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// When the file `name`, which bears `wanted`, is seen in each copy, in seconds since `closed`. After `patience`
    /// it is given up.
    fn see(&self, name: &Path, wanted: Mark, closed: Instant, patience: Duration) -> Result<Vec<Option<f64>>> {
        let mut seen = vec![None; self.copies.len()];
        let mut look: Vec<usize> = (0..self.copies.len()).collect();
        loop {
            for number in look {
                if seen[number].is_none() && mark(&self.copies[number].join(name)) == Some(wanted) {
                    seen[number] = Some(closed.elapsed().as_secs_f64());
                }
            }
            if seen.iter().all(Option::is_some) || closed.elapsed() > patience {
                return Ok(seen);
            }
            let time = Timespec { tv_sec: 0, tv_nsec: BLINK.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&time)) {
                Ok(0) => look = (0..self.copies.len()).collect(),
                Ok(_) => look = self.drain()?,
                Err(Errno::INTR) => look = Vec::new(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Writes one file after the other.
pub struct Writer {
    source: PathBuf,
    directories: Vec<PathBuf>,
    random: Random,
    known: Vec<PathBuf>,
    /// What is late is told.
    pub tells: bool,
    count: u64,
}

impl Writer {
    /// Into these directories of `source`.
    pub fn new(source: PathBuf, directories: &[PathBuf], seed: u64) -> Self {
        let directories = directories.to_vec();
        Self { source, directories, random: Random::new(seed), known: Vec::new(), tells: true, count: 0 }
    }

    /// Rest for 30 to 150 ms.
    pub fn rest(&mut self) {
        std::thread::sleep(Duration::from_millis(30 + self.random.below(120)));
    }

    /// Write a new file, or two times in five an old one anew, and say when it is seen.
    pub fn sample(&mut self, eyes: &Eyes, patience: Duration) -> Result<Vec<Option<f64>>> {
        self.count += 1;
        let is_old = !self.known.is_empty() && self.random.below(5) < 2;
        let name = if is_old {
            self.random.pick(&self.known).clone()
        } else {
            let name = self.random.pick(&self.directories).join(format!("new-{:06}", self.count));
            self.known.push(name.clone());
            name
        };
        // One in five is large enough for a delta.
        let bytes =
            if self.random.below(5) == 0 { 40_000 + self.random.below(160_000) } else { 200 + self.random.below(8000) };
        let mut content = vec![0; usize::try_from(bytes)?];
        self.random.fill(&mut content);
        let path = self.source.join(&name);
        // What is left of earlier files is no news.
        eyes.drain()?;
        let mut file = File::create(&path)?;
        file.write_all(&content)?;
        drop(file);
        let closed = Instant::now();
        let seen = eyes.see(&name, mark(&path).context("a file that was just written")?, closed, patience)?;
        let last = seen.iter().map(|seen| seen.unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
        if self.tells && last > LATE_SECONDS {
            let what = if is_old { "overwritten" } else { "new" };
            eprintln!("  late: {last:.3} s, file {}, {what}, {bytes} bytes", self.count);
        }
        for (copy, _) in eyes.copies.iter().zip(&seen).filter(|(_, seen)| seen.is_some()) {
            let same = fs::read(copy.join(&name)).is_ok_and(|there| there == content);
            ensure!(same, "{}: another content than at the source", copy.join(&name).display());
        }
        Ok(seen)
    }
}
