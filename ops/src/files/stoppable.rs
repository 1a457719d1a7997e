//! Reading that ends when it is asked to stop, even where nothing comes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use sluice_daemon::shutdown::Shutdown;

/// Between two looks whether to stop, while nothing comes.
const GLANCE: Duration = Duration::from_millis(50);
/// A pipe is read in pieces of at most so many bytes, of which so many may wait.
const PIECE: usize = 1 << 16;
const WAITING: usize = 16;

/// The end of a run that was asked to stop: how far it had come.
#[derive(Debug)]
pub struct Stopped(pub String);

impl std::error::Error for Stopped {}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped {}", self.0)
    }
}

fn stopped() -> io::Error {
    io::Error::other("stopped")
}

/// A reader that fails once it is asked to stop: of a file, which always has something to say.
pub(super) struct Stoppable<R> {
    pub(super) reader: R,
    pub(super) stop: Shutdown,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_requested() {
            return Err(stopped());
        }
        self.reader.read(bytes)
    }
}

/// A pipe, read on a thread of its own: opening or reading it may take until someone writes. The thread ends by itself when nobody takes
/// its pieces any more.
pub(super) struct Apart {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
    stop: Shutdown,
}

impl Apart {
    pub(super) fn read(
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
        stop: Shutdown,
    ) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(WAITING);
        let read = move || {
            let ended = open().and_then(|mut file| {
                loop {
                    let mut piece = vec![0; PIECE];
                    match file.read(&mut piece) {
                        Ok(0) => return Ok(()),
                        Ok(read) => piece.truncate(read),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(error),
                    }
                    if sender.send(Ok(piece)).is_err() {
                        return Ok(());
                    }
                }
            });
            if let Err(error) = ended {
                // Where nobody takes pieces any more, nobody wants to know.
                drop(sender.send(Err(error)));
            }
        };
        std::thread::Builder::new().name("reads".into()).spawn(read)?;
        Ok(Self { pieces, piece: Vec::new(), taken: 0, stop })
    }
}

impl Read for Apart {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            if self.stop.is_requested() {
                return Err(stopped());
            }
            match self.pieces.recv_timeout(GLANCE) {
                Ok(piece) => (self.piece, self.taken) = (piece?, 0),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let ready = &self.piece[self.taken..];
        let taken = ready.len().min(bytes.len());
        bytes[..taken].copy_from_slice(&ready[..taken]);
        self.taken += taken;
        Ok(taken)
    }
}
