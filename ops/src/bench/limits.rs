//! What the machine allows: multiply-adds, memory bandwidth, random row reads. Each is the best of several short runs.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sluice_models::kernels::{Path, current, prefer_huge_pages, prefetch, spin_multiply_adds_on};

use super::report::{Report, Row};

const GROUP: &str = "limits";
/// Runs over large arrays, of which the best counts.
const RUNS: usize = 8;
/// Length of one run of multiply-adds, shorter than the slices of a busy system, and of all of them.
const SPIN: Duration = Duration::from_millis(4);
const SPINS: Duration = Duration::from_millis(400);
/// Rounds of multiply-adds between two looks at the clock.
const ROUNDS: u64 = 10_000;
/// Numbers in each array of the bandwidth loops: 128 MB, four times the 32 MB that a large cache holds.
const NUMBERS: usize = 32 << 20;
/// Numbers of the part of an array that one run takes: every part is out of the caches again when its turn comes.
const PART: usize = 2 << 20;
/// Rows of 64 bytes, half a gigabyte: more than caches and the translations of huge pages cover.
const ROWS: usize = 8 << 20;
/// Random reads of the whole array, and of one run.
const READS: usize = 4 << 20;
const SOME_READS: usize = 1 << 16;
/// How far ahead of its read a row is asked for.
const AHEAD: usize = 16;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// The path in force.
    pub(super) path: Path,
    /// GFLOP/s of the path in force, on one thread and on two.
    pub(super) peak: [f64; 2],
    /// The same for every path that the processor has.
    pub(super) peaks: Vec<(Path, [f64; 2])>,
    /// GB/s of copying: bytes read and written, one thread.
    pub(super) copy: f64,
    /// GB/s of `a = b + s c`: bytes read and written, one thread.
    pub(super) triad: f64,
    /// Million random reads of 64-byte rows a second, one thread, as the processor overlaps them by itself.
    pub(super) rows: f64,
    /// The same with each row asked for ahead.
    pub(super) rows_prefetched: f64,
}

/// One row of a table, in a cache line of its own.
#[derive(Clone)]
#[repr(align(64))]
struct Line([f32; 16]);

impl Limits {
    /// Measures, in some seconds.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn measure() -> Result<Self> {
        let path = current();
        let mut peaks = Vec::new();
        for other in Path::ALL.into_iter().filter(|path| path.is_available()) {
            peaks.push((other, [peak(other, 1)?, peak(other, 2)?]));
        }
        let own = peaks.iter().find(|(other, _)| *other == path);
        let own = own.map(|(_, peak)| *peak).ok_or_else(|| anyhow!("{path} was not measured"))?;
        let (copy, triad) = bandwidth();
        let (rows, rows_prefetched) = random_rows();
        Ok(Self { path, peak: own, peaks, copy, triad, rows, rows_prefetched })
    }

    /// Adds the rows that stand first.
    pub(super) fn report(&self, report: &mut Report) -> Result<()> {
        for (path, peak) in &self.peaks {
            let force = if *path == self.path { ", in force" } else { "" };
            for (threads, peak) in ["1 thread", "2 threads"].iter().zip(peak) {
                let name = format!("multiply-adds, {path}{force}, {threads}");
                report.push(Row::new(GROUP, name, *peak, "GFLOP/s"));
            }
        }
        for (name, value, unit) in [
            ("memory, copy", self.copy, "GB/s"),
            ("memory, triad", self.triad, "GB/s"),
            ("random reads of 64 bytes", self.rows, "M/s"),
            ("random reads of 64 bytes, prefetched", self.rows_prefetched, "M/s"),
        ] {
            report.push(Row::new(GROUP, name, value, unit));
        }
        report.show()
    }
}

/// Returns GFLOP/s of a path in a bare loop, summed over `threads`.
///
/// # Errors
/// When the processor lacks the path, or a thread panics.
fn peak(path: Path, threads: usize) -> Result<f64> {
    let barrier = Barrier::new(threads);
    let spin = || {
        barrier.wait();
        let (begun, mut operations) = (Instant::now(), 0);
        while begun.elapsed() < SPIN {
            operations += spin_multiply_adds_on(path, ROUNDS)?;
        }
        Ok(operations as f64 / begun.elapsed().as_secs_f64() / 1e9)
    };
    let (mut best, begun) = (0.0_f64, Instant::now());
    while begun.elapsed() < SPINS {
        let sum = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(spin)).collect();
            let rates = running
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
            rates.sum::<Result<f64>>()
        })?;
        best = best.max(sum);
    }
    Ok(best)
}

/// Seconds that `call` took.
fn timed(call: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    call();
    begun.elapsed().as_secs_f64()
}

fn bandwidth() -> (f64, f64) {
    let array = |value: f32| {
        let mut numbers = Vec::with_capacity(NUMBERS);
        prefer_huge_pages(numbers.spare_capacity_mut());
        numbers.resize(NUMBERS, value);
        numbers
    };
    let (mut a, b, c) = (array(0.0), array(1.0), array(2.0));
    let factor = black_box(0.5);
    let (mut copy, mut triad) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let parts = a.chunks_mut(PART).zip(b.chunks(PART));
        copy = parts.map(|(a, b)| timed(|| black_box(a).copy_from_slice(b))).fold(copy, f64::min);
        let parts = a.chunks_mut(PART).zip(b.chunks(PART)).zip(c.chunks(PART));
        let parts = parts.map(|((a, b), c)| {
            timed(|| {
                for ((a, b), c) in black_box(a).iter_mut().zip(b).zip(c) {
                    *a = b + factor * c;
                }
            })
        });
        triad = parts.fold(triad, f64::min);
    }
    let bytes = (PART * size_of::<f32>()) as f64;
    (2.0 * bytes / copy / 1e9, 3.0 * bytes / triad / 1e9)
}

fn random_rows() -> (f64, f64) {
    let mut rows = Vec::with_capacity(ROWS);
    prefer_huge_pages(rows.spare_capacity_mut());
    rows.resize(ROWS, Line([1.0; 16]));
    let mut state = 1_u64;
    let places: Vec<u32> = (0..READS)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u32 % ROWS as u32
        })
        .collect();
    let read = |places: &[u32], ahead: Option<usize>| {
        let mut sums = [0.0_f32; 16];
        for (k, place) in places.iter().enumerate() {
            if let Some(next) = ahead.and_then(|ahead| places.get(k + ahead)) {
                prefetch(&rows, *next as usize);
            }
            for (sum, x) in sums.iter_mut().zip(rows[*place as usize].0) {
                *sum += x;
            }
        }
        black_box(sums);
    };
    // Each part reads rows that none has read shortly before.
    let rate = |ahead| {
        let parts = places.chunks(SOME_READS).map(|part| timed(|| read(part, ahead)));
        SOME_READS as f64 / parts.fold(f64::INFINITY, f64::min) / 1e6
    };
    (rate(None), rate(Some(AHEAD)))
}
