//! Logs: as text for people, as JSON, or to the journal where systemd has connected standard error to it. Whatever they
//! name, one event is one line that moves no cursor.

use std::io::{self, Write};

use clap::ValueEnum;
use rustix::fs::fstat;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Global;
use super::render::shown;

/// How logs look.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// `stays`: a command that does says what it does, and not only what fails.
pub(super) fn start(global: &Global, stays: bool) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) if stays => LevelFilter::INFO,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let logger = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    // A journal that cannot be spoken to takes standard error as it is.
    let journal = if global.log_format.is_none() { journal() } else { None };
    match (global.log_format, journal) {
        (_, Some(journal)) => tracing_subscriber::registry().with(journal).with(level).init(),
        (Some(LogFormat::Json), None) => logger.with_writer(io::stderr).json().init(),
        (_, None) => logger.with_writer(|| Plain).with_ansi(false).without_time().init(),
    }
}

/// The journal, if that is what standard error is connected to: only then what is written elsewhere ends up with it.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let own = fstat(io::stderr()).ok()?;
    let is_journal = stream == format!("{}:{}", own.st_dev, own.st_ino);
    is_journal.then(tracing_journald::layer)?.ok()
}

/// Standard error for events, each written at once.
struct Plain;

impl Write for Plain {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = shown(text.strip_suffix('\n').unwrap_or(&text)) + "\n";
        io::stderr().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
