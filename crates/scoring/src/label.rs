//! Features of a label: which octets it has, and how evenly.

use crate::config::{Alphabet, Millibits};

/// Kinds of octets that occur in a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

const DIGIT: u8 = 1;
const HEX_LETTER: u8 = 2;
const LETTER: u8 = 4;
const HYPHEN: u8 = 8;
const UNDERSCORE: u8 = 16;
const OTHER: u8 = 32;

const KIND: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut octet = 0_u8;
    loop {
        let kind = match octet {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX_LETTER,
            b'g'..=b'z' => LETTER,
            b'-' => HYPHEN,
            b'_' => UNDERSCORE,
            _ => OTHER,
        };
        #[allow(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler; 256 entries for an octet"
        )]
        {
            table[octet as usize] = kind;
        }
        if octet == u8::MAX {
            break table;
        }
        octet = octet.wrapping_add(1);
    }
};

impl Kinds {
    /// The kinds in a label that is folded to lower case.
    #[inline]
    pub(crate) fn of(label: &[u8]) -> Self {
        Self(label.iter().fold(0, |kinds, octet| {
            kinds | KIND.get(usize::from(*octet)).copied().unwrap_or(OTHER)
        }))
    }

    /// Whether all octets are of the alphabet, and there is one.
    pub(crate) const fn only(self, alphabet: Alphabet) -> bool {
        let allowed = match alphabet {
            Alphabet::Digits => DIGIT,
            Alphabet::Alpha => HEX_LETTER | LETTER,
            Alphabet::Hex => DIGIT | HEX_LETTER,
            Alphabet::Alnum => DIGIT | HEX_LETTER | LETTER,
            Alphabet::Ldh => DIGIT | HEX_LETTER | LETTER | HYPHEN,
        };
        self.0 != 0 && self.0 & !allowed == 0
    }

    /// Whether there are octets that neither host names nor service labels have.
    pub(crate) const fn binary(self) -> bool {
        self.0 & OTHER != 0
    }
}

/// n · log2 n for 0 to 63, in units of 2^-16.
const N_LOG_N: [u32; 64] = {
    let mut table = [0_u32; 64];
    let mut n = 1_u32;
    while n < 64 {
        #[allow(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler; n is below 64"
        )]
        {
            table[n as usize] = n.wrapping_mul(log2(n));
        }
        n = n.wrapping_add(1);
    }
    table
};

/// log2 of 1 to 63 in units of 2^-16: repeated squaring, one bit at a time.
const fn log2(n: u32) -> u32 {
    let whole = n.ilog2();
    let mut mantissa = (n as u64) << 32_u32.wrapping_sub(whole);
    let mut result = whole << 16;
    let mut bit = 1_u32 << 15;
    while bit > 0 {
        mantissa = ((mantissa as u128).wrapping_mul(mantissa as u128) >> 32) as u64;
        if mantissa >= 2 << 32 {
            mantissa >>= 1;
            result |= bit;
        }
        bit >>= 1;
    }
    result
}

/// Shannon entropy of a label's octets, in thousandths of a bit an octet. Integers only, so that
/// every machine judges alike.
#[inline]
pub(crate) fn entropy(label: &[u8]) -> Millibits {
    let mut counts = [0_u8; 256];
    let mut sum = 0_u32;
    let n_log_n = |n: u8| N_LOG_N.get(usize::from(n)).copied().unwrap_or_default();
    for octet in label {
        if let Some(count) = counts.get_mut(usize::from(*octet)) {
            let next = count.saturating_add(1);
            sum = sum
                .wrapping_add(n_log_n(next))
                .wrapping_sub(n_log_n(*count));
            *count = next;
        }
    }
    let len = label.len() as u32;
    let spread = u64::from(n_log_n(len as u8).saturating_sub(sum));
    Millibits(
        spread
            .saturating_mul(1000)
            .checked_div(u64::from(len) << 16)
            .unwrap_or_default() as u32,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entropies_that_are_known() {
        assert_eq!(entropy(b""), Millibits(0));
        assert_eq!(entropy(b"aaaa"), Millibits(0));
        assert_eq!(entropy(b"abab"), Millibits(1000));
        assert_eq!(entropy(b"abcdabcd"), Millibits(2000));
        assert_eq!(entropy(b"abcdefghijklmnop"), Millibits(4000));
    }

    proptest! {
        #[test]
        fn entropy_is_that_of_the_textbook(label in proptest::collection::vec(0_u8..20, 1..64)) {
            let mut counts = [0.0_f64; 256];
            for octet in &label {
                counts[usize::from(*octet)] += 1.0;
            }
            let len = label.len() as f64;
            let exact: f64 = counts.iter().filter(|c| **c > 0.0).map(|c| -(c / len) * (c / len).log2()).sum();
            prop_assert!((f64::from(entropy(&label).0) / 1000.0 - exact).abs() < 0.002);
        }
    }

    #[test]
    fn alphabets_hold_what_they_say() {
        for (label, alphabets) in [
            (
                "123",
                vec![
                    Alphabet::Digits,
                    Alphabet::Hex,
                    Alphabet::Alnum,
                    Alphabet::Ldh,
                ],
            ),
            (
                "abc",
                vec![
                    Alphabet::Alpha,
                    Alphabet::Hex,
                    Alphabet::Alnum,
                    Alphabet::Ldh,
                ],
            ),
            ("xyz", vec![Alphabet::Alpha, Alphabet::Alnum, Alphabet::Ldh]),
            ("a1", vec![Alphabet::Hex, Alphabet::Alnum, Alphabet::Ldh]),
            ("x-1", vec![Alphabet::Ldh]),
            ("_x", vec![]),
            ("", vec![]),
        ] {
            for alphabet in [
                Alphabet::Digits,
                Alphabet::Alpha,
                Alphabet::Hex,
                Alphabet::Alnum,
                Alphabet::Ldh,
            ] {
                assert_eq!(
                    Kinds::of(label.as_bytes()).only(alphabet),
                    alphabets.contains(&alphabet),
                    "{label} {alphabet:?}"
                );
            }
        }
    }
}
