//! Loops over packed columns, written so that the compiler makes vectors of them: a block is compared as a whole, and only a block with a hit
//! is looked at one by one.

/// How many bytes a block of a byte column has.
const BYTES: usize = 32;
/// How many numbers a block of a u32 column has.
const NUMBERS: usize = 16;

/// Returns the place of a number in a column of little-endian u32.
pub(super) fn find_number(column: &[u8], wanted: u32) -> Option<usize> {
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let blocks = column.chunks_exact(4 * NUMBERS);
    let rest = blocks.remainder();
    let after = (column.len() - rest.len()) / 4;
    for (i, block) in blocks.enumerate() {
        let hit = block.chunks_exact(4).fold(false, |hit, bytes| hit | (number(bytes) == wanted));
        if hit {
            let place = block.chunks_exact(4).position(|bytes| number(bytes) == wanted)?;
            return Some(i * NUMBERS + place);
        }
    }
    rest.chunks_exact(4).position(|bytes| number(bytes) == wanted).map(|place| after + place)
}

/// Calls `visit` with the places of a byte in a column, last first, until it returns false. Returns whether it never did.
pub(super) fn visit_back(column: &[u8], wanted: u8, mut visit: impl FnMut(usize) -> bool) -> bool {
    let mut end = column.len();
    for block in column.rchunks(BYTES) {
        let start = end - block.len();
        let hit = block.iter().fold(false, |hit, &byte| hit | (byte == wanted));
        if hit {
            for (i, &byte) in block.iter().enumerate().rev() {
                if byte == wanted && !visit(start + i) {
                    return false;
                }
            }
        }
        end = start;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_wherever_it_stands() {
        for length in 0..70u32 {
            let column: Vec<u8> = (0..length).flat_map(|i| (i * 7).to_le_bytes()).collect();
            for wanted in 0..500 {
                let place = (0..length).position(|i| i * 7 == wanted);
                assert_eq!(find_number(&column, wanted), place, "{wanted} of {length}");
            }
        }
    }

    #[test]
    fn bytes_are_visited_from_the_last() {
        for length in 0..100usize {
            let column: Vec<u8> = (0..length).map(|i| (i * i % 5) as u8).collect();
            for wanted in 0..6 {
                let mut found = Vec::new();
                assert!(visit_back(&column, wanted, |place| {
                    found.push(place);
                    true
                }));
                let all = (0..length).rev().filter(|&i| column[i] == wanted);
                assert_eq!(found, all.collect::<Vec<_>>());
            }
        }
        let mut count = 0;
        let whole = visit_back(&[1; 50], 1, |_| {
            count += 1;
            count < 3
        });
        assert_eq!((whole, count), (false, 3));
    }
}
