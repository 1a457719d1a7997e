//! A kind and a CRC-32 in front of every value: `[0][crc, 4 bytes little-endian][value]`.

/// What a value begins with. Another kind is for a store to use ([`super::parts`]).
const WHOLE: u8 = 0;
const CRC: usize = 4;

/// Returns the value behind its kind and checksum.
pub(super) fn frame(value: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(1 + CRC + value.len());
    framed.push(WHOLE);
    framed.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
    framed.extend_from_slice(value);
    framed
}

/// Returns the value, or `None` when it is not what its checksum says.
pub(super) fn unframe(framed: &[u8]) -> Option<&[u8]> {
    let (crc, value) = framed.strip_prefix(&[WHOLE])?.split_first_chunk::<CRC>()?;
    (crc32fast::hash(value) == u32::from_le_bytes(*crc)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let framed = frame(b"a value");
        assert_eq!(unframe(&framed), Some(&b"a value"[..]));
        for bit in 0..framed.len() * 8 {
            let mut damaged = framed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unframe(&damaged), None);
        }
        assert_eq!(unframe(&framed[..4]), None);
    }
}
