//! The instruction set that the kernels run on: the best one that the processor has, unless
//! another is selected at start.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::lanes::{Kernel, Lanes};
use super::scalar::Scalar;

/// An instruction set.
///
/// Two paths agree within rounding; one path with the same input gives the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// No special instructions: any processor.
    Scalar,
    /// Eight lanes, AVX2 with FMA.
    Avx2,
    /// Sixteen lanes, AVX-512 (F, BW, DQ, VL, VNNI).
    Avx512,
}

impl Path {
    /// All paths, the slowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        Proof::of(self).is_some()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// Why a path cannot be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The name is none of the three.
    #[error("expected scalar, avx2 or avx512, found {0:?}")]
    Unknown(String),
    /// The processor lacks the instructions.
    #[error("this processor has no {0}: the best it can run is {best}", best = best())]
    Unavailable(Path),
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(name: &str) -> Result<Self, PathError> {
        let found = Self::ALL.into_iter().find(|path| path.to_string() == name);
        found.ok_or_else(|| PathError::Unknown(name.to_owned()))
    }
}

/// Makes all kernels of this process run on `path` from now on. Meant for the start of a program:
/// results before and after differ by rounding.
///
/// # Errors
/// [`PathError::Unavailable`] when the processor lacks the instructions; nothing changes then.
pub fn select(path: Path) -> Result<(), PathError> {
    Proof::of(path).ok_or(PathError::Unavailable(path))?;
    CURRENT.store(path as u8, Ordering::Relaxed);
    Ok(())
}

/// Returns the path that the kernels run on.
pub fn current() -> Path {
    match Proof::current() {
        Proof::Scalar(_) => Path::Scalar,
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(_) => Path::Avx2,
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(_) => Path::Avx512,
    }
}

/// Returns the fastest path that this processor can run.
pub fn best() -> Path {
    let available = Path::ALL.into_iter().rev().find(|path| path.is_available());
    available.unwrap_or(Path::Scalar)
}

const UNDECIDED: u8 = u8::MAX;
const SCALAR: u8 = Path::Scalar as u8;
#[cfg(target_arch = "x86_64")]
const AVX2: u8 = Path::Avx2 as u8;
#[cfg(target_arch = "x86_64")]
const AVX512: u8 = Path::Avx512 as u8;

/// The path in force. Holds only paths that were detected in this process.
static CURRENT: AtomicU8 = AtomicU8::new(UNDECIDED);

/// The proof of one instruction set or another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Proof {
    /// The proof of a path, where the processor has it.
    pub(super) fn of(path: Path) -> Option<Self> {
        match path {
            Path::Scalar => Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => Avx512::detect().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            Path::Avx2 | Path::Avx512 => None,
        }
    }

    /// The proof of the path in force.
    #[inline]
    pub(super) fn current() -> Self {
        match CURRENT.load(Ordering::Relaxed) {
            SCALAR => Self::Scalar(Scalar),
            // SAFETY: `CURRENT` holds only detected paths.
            #[cfg(target_arch = "x86_64")]
            AVX2 => Self::Avx2(unsafe { Avx2::proven() }),
            // SAFETY: `CURRENT` holds only detected paths.
            #[cfg(target_arch = "x86_64")]
            AVX512 => Self::Avx512(unsafe { Avx512::proven() }),
            _ => Self::decide(),
        }
    }

    #[cold]
    fn decide() -> Self {
        let best = best();
        // A selection that came in between stands.
        match CURRENT.compare_exchange(UNDECIDED, best as u8, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => Self::of(best).unwrap_or(Self::Scalar(Scalar)),
            Err(_) => Self::current(),
        }
    }

    /// Runs a kernel with this instruction set.
    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(lanes) => lanes.run(kernel),
        }
    }

    /// Every instruction set that this processor has.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        Path::ALL.into_iter().filter_map(Self::of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for path in Path::ALL {
            assert_eq!(path.to_string().parse(), Ok(path));
        }
        let error = "sse".parse::<Path>().unwrap_err();
        assert_eq!(error.to_string(), "expected scalar, avx2 or avx512, found \"sse\"");
    }

    #[test]
    fn the_path_in_force_is_the_best_one() {
        assert_eq!(current(), best());
        assert!(select(best()).is_ok());
        assert!(Path::Scalar.is_available());
    }
}
