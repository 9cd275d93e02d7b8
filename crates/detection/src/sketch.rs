//! How many different ones there were, in a few octets.

/// A HyperLogLog of `M` registers: off by about 1.04 / sqrt(M). Sketches of the same hash function can be
/// joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch<const M: usize>([u8; M]);

impl<const M: usize> Default for Sketch<M> {
    fn default() -> Self {
        Self([0; M])
    }
}

impl<const M: usize> Sketch<M> {
    /// Adds one by its hash.
    #[inline]
    pub fn add(&mut self, hash: u64) {
        // the low bits choose the register, the others its value
        let index = (hash as usize) & M.wrapping_sub(1);
        let rank = (hash | 0xffff).leading_zeros().wrapping_add(1) as u8;
        if let Some(register) = self.0.get_mut(index) {
            *register = (*register).max(rank);
        }
    }

    /// Adds all of another one.
    pub fn join(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own = (*own).max(*other);
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    /// How many different ones were added, about.
    #[must_use]
    pub fn estimate(&self) -> f32 {
        let m = M as f32;
        let empty = self.0.iter().filter(|register| **register == 0).count();
        let sum: f32 = self
            .0
            .iter()
            .map(|register| 0.5_f32.powi(i32::from(*register)))
            .sum();
        let raw = alpha(m) * m * m / sum;
        if raw < 2.5 * m && empty > 0 {
            return m * (m / empty as f32).ln();
        }
        raw
    }
}

fn alpha(m: f32) -> f32 {
    if m < 128.0 {
        0.709
    } else {
        0.7213 / (1.0 + 1.079 / m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n)
    }

    #[test]
    fn the_estimate_is_near_from_none_to_a_million() {
        for many in [0_u64, 1, 10, 100, 1_000, 10_000, 1_000_000] {
            let mut whole = Sketch::<1024>::default();
            let mut small = Sketch::<64>::default();
            for n in 0..many {
                for _ in 0..2 {
                    whole.add(hash(n));
                    small.add(hash(n));
                }
            }
            let near = |estimate: f32, part: f32| {
                (estimate - many as f32).abs() <= part * many as f32 + 0.5
            };
            assert!(near(whole.estimate(), 0.1), "{many}: {}", whole.estimate());
            assert!(near(small.estimate(), 0.4), "{many}: {}", small.estimate());
        }
    }

    #[test]
    fn joining_counts_each_once() {
        let (mut a, mut b) = (Sketch::<1024>::default(), Sketch::<1024>::default());
        for n in 0..3000 {
            a.add(hash(n));
            b.add(hash(n + 1000));
        }
        a.join(&b);
        assert!((a.estimate() - 4000.0).abs() < 400.0, "{}", a.estimate());
    }
}
