//! Milliseconds, sorted, and their shares.

/// Milliseconds, the shortest first.
pub(super) struct Times(Vec<f64>);

impl Times {
    pub(super) fn sorted(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// Returns the smallest time that a share of all does not exceed.
    pub(super) fn at(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_times_are_times_that_were_measured() {
        let times = Times::sorted((1..=200).rev().map(f64::from).collect());
        assert_eq!((times.at(0.5), times.at(0.99), times.at(1.0)), (100.0, 198.0, 200.0));
        assert!(Times::sorted(Vec::new()).at(0.5).is_nan());
    }
}
