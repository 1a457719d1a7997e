//! The processor's own limit, to measure products against.

use super::lanes::{Kernel, Lanes};
use super::path::{Path, PathError, Proof};

/// Independent chains: enough to hide the latency of two multiply-adds a cycle.
const CHAINS: usize = 12;

struct Spin(u64);

impl Kernel for Spin {
    type Output = (u64, f32);

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> (u64, f32) {
        let mut sums = [lanes.splat(1.0); CHAINS];
        let (a, b) = (lanes.splat(std::hint::black_box(0.999_9)), lanes.splat(1e-4));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = lanes.mul_add(*sum, a, b);
            }
        }
        let total = sums.into_iter().map(|sum| lanes.sum(sum)).sum();
        (self.0 * 2 * (CHAINS * L::WIDTH) as u64, total)
    }
}

/// Runs multiply-adds on registers alone and returns how many floating-point operations that were:
/// divided by the time taken they are the peak of the path in force.
pub fn spin_multiply_adds(rounds: u64) -> u64 {
    spin(Proof::current(), rounds)
}

/// Like [`spin_multiply_adds`] on a path that need not be the one in force.
///
/// # Errors
/// [`PathError::Unavailable`] when the processor lacks the instructions.
pub fn spin_multiply_adds_on(path: Path, rounds: u64) -> Result<u64, PathError> {
    let proof = Proof::of(path).ok_or(PathError::Unavailable(path))?;
    Ok(spin(proof, rounds))
}

fn spin(proof: Proof, rounds: u64) -> u64 {
    let (operations, total) = proof.run(Spin(rounds));
    std::hint::black_box(total);
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_lanes() {
        for (path, lanes) in [(Path::Scalar, 8), (Path::Avx2, 8), (Path::Avx512, 16)] {
            let counted = spin_multiply_adds_on(path, 5);
            let expected = path.is_available().then_some(5 * 2 * CHAINS as u64 * lanes);
            assert_eq!(counted.ok(), expected, "{path}");
        }
    }
}
