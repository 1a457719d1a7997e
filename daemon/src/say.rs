//! What is said to people and to other programs, whether or not they still listen.

use std::io::{self, ErrorKind, Write};

/// Writes a text to standard output. That nobody reads it any more (`sluiced print-config … | head -1`) is no error, and keeps nothing
/// from being done.
///
/// # Errors
/// When it cannot be written for another reason, such as a full disk.
pub fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a text to standard error, if there still is anybody: behind a terminal that was closed there is not.
pub fn note(text: &str) {
    let mut out = io::stderr().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
