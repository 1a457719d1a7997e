//! Columns of numbers as little-endian bytes.

use super::FormatError;
use crate::table::ShardImage;

/// A number of fixed size.
pub(super) trait Number: Copy {
    fn put(self, out: &mut Vec<u8>);
}

macro_rules! number {
    ($($kind:ty)*) => {
        $(impl Number for $kind {
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

number!(f32 u32 u64 u8);

pub(super) fn put<N: Number>(out: &mut Vec<u8>, values: &[N]) {
    out.reserve(size_of_val(values));
    values.iter().for_each(|value| value.put(out));
}

/// Appends a shard: whether it is whole, how many keys, removed keys, cells of the filter and unreported keys there are, then all columns.
pub(super) fn encode(image: &ShardImage, out: &mut Vec<u8>) {
    out.push(image.whole.into());
    let ShardImage { keys, removed, filter, unreported, .. } = image;
    let sizes = [keys.len(), removed.len(), filter.len(), unreported.len()];
    put(out, &sizes.map(|size| size as u64));
    put(out, removed);
    put(out, &image.keys);
    put(out, &image.rows);
    put(out, &image.accumulators);
    put(out, &image.counts);
    put(out, &image.last_used);
    put(out, &image.filter);
    put(out, &image.unreported);
    put(out, &[image.filter_additions, image.swept]);
    put(out, &image.totals);
}

/// Reads a shard whose rows have `width` numbers.
pub(super) fn decode(bytes: &[u8], width: usize) -> Result<ShardImage, FormatError> {
    let mut source = Source::new(bytes, "rows");
    let whole = source.take(1, u8::from_le_bytes)?[0] == 1;
    let sizes = source.take(4, u64::from_le_bytes)?;
    let size = |k: usize| usize::try_from(sizes[k]).unwrap_or(usize::MAX);
    let (keys, removed, filter, unreported) = (size(0), size(1), size(2), size(3));
    let image = ShardImage {
        whole,
        removed: source.take(removed, u64::from_le_bytes)?,
        keys: source.take(keys, u64::from_le_bytes)?,
        rows: source.take(keys.saturating_mul(width), f32::from_le_bytes)?,
        accumulators: source.take(keys, f32::from_le_bytes)?,
        counts: source.take(keys, u32::from_le_bytes)?,
        last_used: source.take(keys, u32::from_le_bytes)?,
        filter: source.take(filter, u8::from_le_bytes)?,
        unreported: source.take(unreported, u64::from_le_bytes)?,
        filter_additions: source.take(1, u32::from_le_bytes)?[0],
        swept: source.take(1, u32::from_le_bytes)?[0],
        totals: std::array::from_fn(|_| 0),
    };
    let totals = source.take(3, u64::from_le_bytes)?;
    source.end()?;
    Ok(ShardImage { totals: [totals[0], totals[1], totals[2]], ..image })
}

/// Bytes that are read from the front.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    block: &'static str,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8], block: &'static str) -> Self {
        Self { bytes, block }
    }

    /// Exactly these many floats, and nothing after them.
    pub(super) fn floats(mut self, count: usize) -> Result<Vec<f32>, FormatError> {
        let values = self.take(count, f32::from_le_bytes)?;
        self.end()?;
        Ok(values)
    }

    fn take<N, const SIZE: usize>(
        &mut self,
        count: usize,
        from: fn([u8; SIZE]) -> N,
    ) -> Result<Vec<N>, FormatError> {
        let length = count.saturating_mul(SIZE);
        let Some((mine, rest)) = self.bytes.split_at_checked(length) else {
            let found = self.bytes.len();
            return Err(self.damaged(format!("expected {length} more bytes, found {found}")));
        };
        self.bytes = rest;
        let (numbers, _) = mine.as_chunks::<SIZE>();
        Ok(numbers.iter().map(|&bytes| from(bytes)).collect())
    }

    fn end(&self) -> Result<(), FormatError> {
        match self.bytes.len() {
            0 => Ok(()),
            more => Err(self.damaged(format!("{more} bytes more than expected"))),
        }
    }

    fn damaged(&self, problem: String) -> FormatError {
        FormatError::Damaged { block: self.block.into(), problem }
    }
}
