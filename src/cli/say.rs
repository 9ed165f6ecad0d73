//! What is printed. `println!` panics where nobody reads any more, as in `rfleet push | head -1`.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Prints to standard output. Who has closed it has seen enough; that it fails otherwise is told.
pub(super) fn out(text: Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_fmt(text).and_then(|()| stdout.flush());
    if let Err(error) = printed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        err(format_args!("rfleet: standard output cannot be written: {error}\n"));
    }
}

/// Prints to standard error. Where that fails nobody is left to be told.
pub(super) fn err(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
