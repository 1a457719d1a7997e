//! How the producers of this world choose a partition by a key.
//!
//! Each takes a hash of the key's bytes modulo the number of partitions. Two producers that use different ones put the records of one key
//! into different partitions.

/// A rule by which producers choose the partition of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Java's, Kafka Streams', franz-go's and kafkajs' default; librdkafka's `murmur2` and `murmur2_random`.
    Murmur2,
    /// CRC-32: librdkafka's default (C, Python, Go, .NET, kcat), `consistent_random`.
    Crc32,
    /// FNV-1a: Sarama's default; librdkafka's `fnv1a` and `fnv1a_random`.
    Fnv1a,
}

impl Partitioner {
    /// All rules, in order.
    pub const ALL: [Self; 3] = [Self::Murmur2, Self::Crc32, Self::Fnv1a];

    /// Returns its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Murmur2 => "murmur2 (Java's default)",
            Self::Crc32 => "CRC-32 (librdkafka's default: C, Python, Go, .NET, kcat)",
            Self::Fnv1a => "FNV-1a (Sarama's default)",
        }
    }

    /// Returns the partition of a key among so many; 0 where there is none.
    pub fn partition(self, key: &[u8], partitions: u32) -> u32 {
        let positive = |hash: u32| (hash & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0);
        match self {
            Self::Murmur2 => positive(murmur2(key)),
            Self::Crc32 => crc32fast::hash(key).checked_rem(partitions).unwrap_or(0),
            // Sarama takes the remainder of the signed hash and then its absolute value.
            Self::Fnv1a => {
                let signed = i64::from(fnv1a(key).cast_signed());
                let rest = signed.checked_rem(i64::from(partitions)).unwrap_or(0);
                u32::try_from(rest.unsigned_abs()).unwrap_or(0)
            }
        }
    }
}

/// MurmurHash2 with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let (chunks, rest) = data.as_chunks::<4>();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(*chunk).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    for (index, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// FNV-1a over 32 bits.
fn fnv1a(data: &[u8]) -> u32 {
    data.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_original_programs() {
        // The vectors of Java's UtilsTest, and of librdkafka's tests.
        for (key, hash) in [
            ("foobar", -790_332_482_i32),
            ("21", -973_932_308),
            ("a-little-bit-long-string", -985_981_536),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(
            (fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")),
            (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968)
        );
    }
}
