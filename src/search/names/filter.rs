//! What tells that a table does not have a name, without a look at the table.

use super::index::Index;

/// How many bits of a word a name sets.
const BIT_COUNT: u32 = 3;
/// How many names share a word.
const NAMES_PER_WORD: usize = 5;

/// A Bloom filter whose bits for one name lie in one word: it takes one access to memory.
///
/// With 13 bits for each name it fits the second cache for half a million names and the third one
/// for many millions, and about one of 50 names that the table does not have passes.
#[derive(Clone)]
pub(super) struct Filter {
    words: Box<[u64]>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { words: [0].into() }
    }
}

impl Filter {
    /// The filter of all names in an index.
    pub fn of(index: &Index, name_count: usize) -> Self {
        let mut words: Box<[u64]> = vec![0; name_count / NAMES_PER_WORD + 1].into();
        for slot in index.used() {
            words[word_of(slot.hash, words.len())] |= bits_of(slot.hash);
        }
        Self { words }
    }

    pub fn heap_bytes(&self) -> usize {
        size_of_val::<[u64]>(&self.words)
    }

    /// The word that has the bits of a hash.
    #[inline]
    pub fn word(&self, hash: u32) -> u64 {
        self.words[word_of(hash, self.words.len())]
    }

    /// Whether there may be a name with this hash, whose word this is.
    #[inline]
    pub fn admits(word: u64, hash: u32) -> bool {
        let bits = bits_of(hash);
        word & bits == bits
    }
}

#[inline]
fn word_of(hash: u32, word_count: usize) -> usize {
    ((u64::from(hash) * word_count as u64) >> 32) as usize
}

/// The high bits of a hash choose the word, so the bits within it are those of a product.
#[inline]
fn bits_of(hash: u32) -> u64 {
    let product = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..BIT_COUNT).fold(0, |bits, number| bits | 1 << (product >> (58 - 6 * number) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::names::index::Slot;

    #[test]
    fn all_names_pass_and_few_others_do() {
        let scrambled = |number: u32| number.wrapping_mul(0x9e37_79b1) ^ number >> 7;
        let admits = |filter: &Filter, number| {
            let hash = scrambled(number);
            Filter::admits(filter.word(hash), hash)
        };
        for count in [1, 1_000, 100_000, 1_000_000] {
            let mut index = Index::default();
            (0..count).for_each(|at| index.insert(Slot { hash: scrambled(at), at }));
            let filter = Filter::of(&index, count as usize);
            assert!((0..count).all(|number| admits(&filter, number)));
            let others = (count..count + 100_000).filter(|at| admits(&filter, *at));
            let passed = others.count();
            assert!(passed < 4_000, "{passed} of 100,000 others, {count} names");
        }
    }
}
