//! The first numbers of a row: normal with a given deviation, from a hash of seed and key alone, so
//! that restart, replay and replicas agree.
//!
//! A normal number is the sum of twelve 16-bit uniforms (variance of each `(2³² - 1) / 12`): the
//! sum's deviation is 65,536 and its tails end at six deviations. Unlike the Box-Muller method this
//! is integer arithmetic, the same bits on every machine and with every mathematical library.

/// Fills a row with its first numbers, of mean 0 and deviation `scale`.
pub(super) fn fill(seed: u64, key: u64, scale: f32, row: &mut [f32]) {
    let mut state = mix(seed ^ 0x6a09_e667_f3bc_c909) ^ key;
    for number in row {
        let mut sum = 0;
        for _ in 0..3 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let bits = mix(state);
            sum += (0..4).map(|part| (bits >> (16 * part)) as i32 & 0xffff).sum::<i32>();
        }
        const MEAN: i32 = 12 * 0xffff / 2;
        *number = scale * ((sum - MEAN) as f32 / 65_536.0);
    }
}

/// The output function of SplitMix64 (Steele et al. 2014).
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normal_and_depend_on_seed_and_key_alone() {
        let mut numbers = Vec::new();
        for key in 1..10_001 {
            let mut row = [0.0; 8];
            fill(7, key, 0.5, &mut row);
            numbers.extend(row.map(f64::from));
        }
        let count = numbers.len() as f64;
        let moment =
            |power: i32| numbers.iter().map(|x| (x / 0.5).powi(power)).sum::<f64>() / count;
        assert!(moment(1).abs() < 0.015, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        // A sum of twelve uniforms has kurtosis 2.9.
        assert!((moment(4) - 2.9).abs() < 0.1, "fourth moment {}", moment(4));

        let row = |seed, key| {
            let mut row = [0.0; 4];
            fill(seed, key, 1.0, &mut row);
            row.map(f32::to_bits)
        };
        assert_eq!(row(1, 2), row(1, 2));
        assert_ne!(row(1, 2), row(2, 2));
        assert_ne!(row(1, 2), row(1, 3));
    }
}
