//! Finding a byte, eight at a time. Names are short: calling a library costs more than this.

/// Where `byte` stands first.
#[inline]
pub(super) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for (number, word) in words.enumerate() {
        if let Some(at) = find_in_word(byte, word.try_into().expect("eight bytes")) {
            return Some(8 * number + at);
        }
    }
    // The last eight bytes, of which some were looked at.
    if let (Some(last), false) = (bytes.last_chunk(), rest.is_empty()) {
        return Some(bytes.len() - 8 + find_in_word(byte, *last)?);
    }
    rest.iter().position(|one| *one == byte)
}

#[inline]
fn find_in_word(byte: u8, word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let word = u64::from_le_bytes(word) ^ u64::from_ne_bytes([byte; 8]);
    // The lowest of the marked bytes is the first that was looked for, whatever stands above it.
    let marks = word.wrapping_sub(ONES) & !word & ONES << 7;
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::find;

    fn any_byte() -> impl Strategy<Value = u8> {
        prop_oneof![Just(0), Just(1), Just(0x80), any::<u8>()]
    }

    proptest! {
        #[test]
        fn the_first_one_is_found(
            bytes in prop::collection::vec(any_byte(), 0..40),
            byte in any_byte(),
        ) {
            prop_assert_eq!(find(byte, &bytes), bytes.iter().position(|one| *one == byte));
        }
    }
}
