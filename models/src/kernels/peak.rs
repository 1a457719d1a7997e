//! The processor's own limit, to measure products against.

use super::lanes::{Kernel, Lanes};
use super::path::Proof;

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
    let (operations, total) = Proof::current().run(Spin(rounds));
    std::hint::black_box(total);
    operations
}
