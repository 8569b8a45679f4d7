//! The histogram that the kernel programs count into: logarithmic buckets, four to
//! an octave, so a value is known within 25 %.

/// Buckets of a histogram; the last one also takes everything above its bound.
/// A power of two, so that the programs can bound an index by a mask.
pub const BUCKETS: usize = 128;

/// The bucket of a value.
#[inline]
#[must_use]
pub const fn bucket(value: u64) -> usize {
    if value < 4 {
        #[expect(clippy::cast_possible_truncation, reason = "below 4")]
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() as usize;
    let quarter = ((value >> (exponent - 2)) & 3) as usize;
    let index = (exponent - 1) * 4 + quarter;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The smallest value of a bucket.
#[must_use]
pub const fn lower_bound(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let exponent = bucket / 4 + 1;
    (4 + (bucket % 4) as u64) << (exponent - 2)
}
