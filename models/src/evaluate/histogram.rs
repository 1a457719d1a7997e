//! AUC in bounded memory: positives and negatives counted by logit.
//!
//! 16,384 bins of width 0.002 over logits of ±16.384, which holds every probability clipped to
//! `[1e-7, 1 - 1e-7]`. A pair of one positive and one negative in the same bin counts half. With
//! `P⁻(b)`, `P⁺(b)` the counts of bin `b`, `AUC = Σ_b P⁺(b) (Σ_{c<b} P⁻(c) + P⁻(b) / 2) / (P⁺ P⁻)`.
//! Bins come in pages of 128, made when the first example falls into them.

use serde::{Deserialize, Serialize};

const BINS: usize = 1 << 14;
const PAGE: usize = 128;
const WIDTH: f64 = 0.002;

/// Negatives and positives of one bin.
type Counts = [u64; 2];

/// Counts of both classes by logit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Sparse", try_from = "Sparse")]
pub struct Histogram {
    pages: Vec<Option<Box<[Counts; PAGE]>>>,
}

/// What is stored: the bins that are not empty, as `(bin, negatives, positives)`.
#[derive(Serialize, Deserialize)]
struct Sparse(Vec<(u16, u64, u64)>);

impl Default for Histogram {
    fn default() -> Self {
        Self { pages: vec![None; BINS / PAGE] }
    }
}

impl Histogram {
    /// Counts one example. Logits beyond the ends, infinities too, fall into the outermost bins.
    pub(super) fn record(&mut self, label: bool, logit: f64) {
        let bin = (logit / WIDTH).floor() + (BINS / 2) as f64;
        self.add(bin.clamp(0.0, (BINS - 1) as f64) as usize, usize::from(label), 1);
    }

    fn add(&mut self, bin: usize, class: usize, count: u64) {
        let page = self.pages[bin / PAGE].get_or_insert_with(|| Box::new([[0; 2]; PAGE]));
        page[bin % PAGE][class] += count;
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.pages.iter_mut().zip(&other.pages) {
            let Some(theirs) = theirs else { continue };
            let mine = mine.get_or_insert_with(|| Box::new([[0; 2]; PAGE]));
            for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                mine[0] += theirs[0];
                mine[1] += theirs[1];
            }
        }
    }

    /// Forgets all counts and keeps the memory.
    pub(super) fn clear(&mut self) {
        for page in self.pages.iter_mut().flatten() {
            page.fill([0; 2]);
        }
    }

    /// Returns the area under the ROC curve; `None` unless both classes occur.
    pub fn auc(&self) -> Option<f64> {
        let (mut below, mut positives, mut twice) = (0u128, 0u128, 0u128);
        for [negative, positive] in self.pages.iter().flatten().flat_map(|page| page.iter()) {
            let (negative, positive) = (u128::from(*negative), u128::from(*positive));
            twice += positive * (2 * below + negative);
            below += negative;
            positives += positive;
        }
        let pairs = below * positives;
        (pairs > 0).then(|| twice as f64 / 2.0 / pairs as f64)
    }

    fn bins(&self) -> impl Iterator<Item = (usize, Counts)> {
        let pages = self.pages.iter().enumerate();
        pages
            .filter_map(|(i, page)| page.as_ref().map(|page| (i, page)))
            .flat_map(|(i, page)| page.iter().enumerate().map(move |(j, &c)| (i * PAGE + j, c)))
            .filter(|&(_, counts)| counts != [0; 2])
    }
}

impl From<Histogram> for Sparse {
    fn from(histogram: Histogram) -> Self {
        Self(histogram.bins().map(|(bin, [n, p])| (bin as u16, n, p)).collect())
    }
}

impl TryFrom<Sparse> for Histogram {
    type Error = String;

    fn try_from(sparse: Sparse) -> Result<Self, String> {
        let mut histogram = Self::default();
        for (bin, negatives, positives) in sparse.0 {
            let bin = usize::from(bin);
            if bin >= BINS {
                return Err(format!(
                    "expected histogram bins below {BINS}, found {bin}: the evaluation state is \
                     from another version and must be started anew"
                ));
            }
            histogram.add(bin, 0, negatives);
            histogram.add(bin, 1, positives);
        }
        Ok(histogram)
    }
}
