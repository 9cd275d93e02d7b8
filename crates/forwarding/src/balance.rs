//! Choice of an upstream within a pool.

use crate::config::Balancing;
use crate::forwarder::UpstreamIndex;

/// The upstreams of one pool as a worker sees them now.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) balancing: Balancing,
    pub(crate) candidates: Vec<Candidate>,
}

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) index: UpstreamIndex,
    /// Place among the pool's members.
    pub(crate) member: usize,
    /// Weight in thousandths, less than the configured one in the slow start. Not 0.
    pub(crate) weight: u32,
    pub(crate) standing: Standing,
    /// Its own number for [`Balancing::ConsistentHash`].
    pub(crate) key: u64,
    /// Its credit in [`Balancing::RoundRobin`].
    pub(crate) credit: i64,
}

/// Whether an upstream may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Yes.
    Good,
    /// Only when no good one is left.
    Suspect,
    /// No.
    Out,
}

/// What comes of choosing an upstream that has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Upstream(UpstreamIndex),
    /// There are upstreams, all at their limits.
    Full,
    /// No upstream can be used.
    Nobody,
}

impl Rotation {
    /// Chooses an upstream. Those in `exclude` only when no other is left, and suspects only when
    /// no good one is. `name_key` is the place of the name asked for; `load` tells what is
    /// outstanding.
    pub(crate) fn choose(
        &mut self,
        name_key: u64,
        random: u64,
        exclude: &[UpstreamIndex],
        load: impl Fn(UpstreamIndex) -> u32,
    ) -> Option<UpstreamIndex> {
        let excluded = |candidate: &Candidate| exclude.contains(&candidate.index);
        for standing in [Standing::Good, Standing::Suspect] {
            let found = self.among(
                name_key,
                random,
                |it| it.standing == standing && !excluded(it),
                &load,
            );
            if found.is_some() {
                return found;
            }
        }
        if exclude.is_empty() {
            return None;
        }
        let good = self.among(name_key, random, |it| it.standing == Standing::Good, &load);
        good.or_else(|| {
            self.among(
                name_key,
                random,
                |it| it.standing == Standing::Suspect,
                &load,
            )
        })
    }

    /// Chooses an upstream that has room, as [`Self::choose`] does; one of `exclude` if no other has.
    /// Suspects are not asked because the good ones are full.
    pub(crate) fn choose_with_room(
        &mut self,
        name_key: u64,
        random: u64,
        exclude: &[UpstreamIndex],
        load: impl Fn(UpstreamIndex) -> u32,
        room: impl Fn(UpstreamIndex) -> bool,
    ) -> Choice {
        for standing in [Standing::Good, Standing::Suspect] {
            if exclude.is_empty() {
                // nearly always the one that would be chosen anyhow has room
                let found = self.among(name_key, random, |it| it.standing == standing, &load);
                match found {
                    Some(found) if room(found) => return Choice::Upstream(found),
                    Some(_) => {}
                    None => continue,
                }
            }
            let may = |it: &Candidate| it.standing == standing && room(it.index);
            let others = |it: &Candidate| may(it) && !exclude.contains(&it.index);
            let mut found = self.among(name_key, random, others, &load);
            if found.is_none() && !exclude.is_empty() {
                found = self.among(name_key, random, may, &load);
            }
            if let Some(found) = found {
                return Choice::Upstream(found);
            }
            if self.candidates.iter().any(|it| it.standing == standing) {
                return Choice::Full;
            }
        }
        Choice::Nobody
    }

    /// Whether a good upstream other than `index` is there.
    pub(crate) fn has_alternative(&self, index: UpstreamIndex) -> bool {
        self.candidates
            .iter()
            .any(|candidate| candidate.standing == Standing::Good && candidate.index != index)
    }

    fn among(
        &mut self,
        name_key: u64,
        random: u64,
        may: impl Fn(&Candidate) -> bool,
        load: impl Fn(UpstreamIndex) -> u32,
    ) -> Option<UpstreamIndex> {
        match self.balancing {
            Balancing::LeastOutstanding => {
                least_outstanding(self.candidates.iter().filter(|it| may(it)), random, load)
            }
            Balancing::WeightedRandom => {
                by_lot(self.candidates.iter().filter(|it| may(it)), random)
            }
            Balancing::RoundRobin => in_turn(&mut self.candidates, may),
            Balancing::ConsistentHash => {
                by_name(self.candidates.iter().filter(|it| may(it)), name_key)
            }
            Balancing::Ordered => self.candidates.iter().find(|it| may(it)).map(|it| it.index),
        }
    }
}

/// The least outstanding in relation to the weight. Ties, which are the rule when there is little
/// to do, are broken by a lot in proportion to the weights.
fn least_outstanding<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
    random: u64,
    load: impl Fn(UpstreamIndex) -> u32,
) -> Option<UpstreamIndex> {
    let mut best: Option<(&Candidate, u32)> = None;
    let mut tied_weight = 0_u64;
    let mut lot = random;
    for candidate in candidates {
        let load = load(candidate.index);
        // load / weight, compared without dividing
        let order = best.map_or(std::cmp::Ordering::Less, |(best, least)| {
            let mine = u64::from(load).saturating_mul(best.weight.into());
            mine.cmp(&u64::from(least).saturating_mul(candidate.weight.into()))
        });
        match order {
            std::cmp::Ordering::Less => {
                best = Some((candidate, load));
                tied_weight = candidate.weight.into();
            }
            std::cmp::Ordering::Equal => {
                tied_weight = tied_weight.saturating_add(candidate.weight.into());
                lot = mix(lot);
                if below(lot, tied_weight) < u64::from(candidate.weight) {
                    best = Some((candidate, load));
                }
            }
            std::cmp::Ordering::Greater => {}
        }
    }
    best.map(|(candidate, _)| candidate.index)
}

fn by_lot<'a>(
    candidates: impl Iterator<Item = &'a Candidate> + Clone,
    random: u64,
) -> Option<UpstreamIndex> {
    let total = candidates
        .clone()
        .map(|it| u64::from(it.weight))
        .fold(0, u64::saturating_add);
    let mut point = below(random, total);
    let mut chosen = None;
    for candidate in candidates {
        chosen = Some(candidate.index);
        let Some(rest) = point.checked_sub(candidate.weight.into()) else {
            break;
        };
        point = rest;
    }
    chosen
}

/// Smooth weighted round robin: everyone earns its weight, the richest serves and pays the sum.
fn in_turn(
    candidates: &mut [Candidate],
    may: impl Fn(&Candidate) -> bool,
) -> Option<UpstreamIndex> {
    let mut total = 0_i64;
    let mut richest: Option<&mut Candidate> = None;
    for candidate in candidates.iter_mut().filter(|it| may(it)) {
        total = total.saturating_add(candidate.weight.into());
        candidate.credit = candidate.credit.saturating_add(candidate.weight.into());
        if richest
            .as_ref()
            .is_none_or(|richest| candidate.credit > richest.credit)
        {
            richest = Some(candidate);
        }
    }
    let chosen = richest?;
    chosen.credit = chosen.credit.saturating_sub(total);
    Some(chosen.index)
}

/// Weighted rendezvous hashing: each candidate draws a number for the name, and the best draw in
/// relation to the weight wins. The draws of the others do not change when one comes, goes or is
/// weighted anew, so only its own share of the names moves.
fn by_name<'a>(
    candidates: impl Iterator<Item = &'a Candidate> + Clone,
    name_key: u64,
) -> Option<UpstreamIndex> {
    let draw = |candidate: &Candidate| mix(name_key ^ candidate.key);
    let mut weights = candidates.clone().map(|it| it.weight);
    let first = weights.next()?;
    if weights.all(|weight| weight == first) {
        // with equal weights the draws decide by themselves, without logarithms
        return candidates.max_by_key(|it| draw(it)).map(|it| it.index);
    }
    let cost = |candidate: &Candidate| {
        // in (0, 1]
        let uniform = ((draw(candidate) >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(candidate.weight)
    };
    candidates
        .map(|it| (cost(it), it.index))
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, index)| index)
}

/// A number below `bound` (0 for 0) from 64 random bits, without a division.
const fn below(random: u64, bound: u64) -> u64 {
    ((random as u128).saturating_mul(bound as u128) >> 64) as u64
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output's.
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn rotation(balancing: Balancing, weights: &[u32]) -> Rotation {
        let candidate = |(member, weight): (usize, &u32)| Candidate {
            index: UpstreamIndex(member as u16),
            member,
            weight: weight * 1000,
            standing: Standing::Good,
            key: mix(member as u64 + 77),
            credit: 0,
        };
        Rotation {
            balancing,
            candidates: weights.iter().enumerate().map(candidate).collect(),
        }
    }

    /// How often each upstream is chosen in `rounds`, and the choices.
    fn tally(
        rotation: &mut Rotation,
        rounds: u64,
        load: impl Fn(UpstreamIndex) -> u32,
    ) -> (Vec<f64>, Vec<usize>) {
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = vec![0.0; rotation.candidates.len()];
        let mut choices = Vec::new();
        for name in 0..rounds {
            let chosen = rotation
                .choose(mix(name), rng.next_u64(), &[], &load)
                .unwrap();
            counts[usize::from(chosen.0)] += 1.0 / rounds as f64;
            choices.push(chosen.0.into());
        }
        (counts, choices)
    }

    fn assert_shares(shares: &[f64], expected: &[f64]) {
        for (share, expected) in shares.iter().zip(expected) {
            assert!(
                (share - expected).abs() < 0.02,
                "{shares:?} instead of {expected:?}"
            );
        }
    }

    #[test]
    fn weights_are_kept_to_by_lot_by_turn_by_name_and_when_idle() {
        for balancing in [
            Balancing::WeightedRandom,
            Balancing::RoundRobin,
            Balancing::ConsistentHash,
            Balancing::LeastOutstanding,
        ] {
            for (weights, expected) in [
                (&[1, 1, 2], [0.25, 0.25, 0.5]),
                (&[1, 1, 1], [1. / 3., 1. / 3., 1. / 3.]),
            ] {
                let (shares, _) = tally(&mut rotation(balancing, weights), 20_000, |_| 0);
                assert_shares(&shares, &expected);
            }
        }
    }

    #[test]
    fn least_outstanding_looks_at_load_in_relation_to_weight() {
        let mut rotation = rotation(Balancing::LeastOutstanding, &[1, 4, 1]);
        let (shares, _) = tally(&mut rotation, 1000, |index| [2, 7, 3][usize::from(index.0)]);
        assert_shares(&shares, &[0., 1., 0.]);
        let (shares, _) = tally(&mut rotation, 20_000, |index| {
            [2, 8, 3][usize::from(index.0)]
        });
        assert_shares(&shares, &[0.2, 0.8, 0.]);
    }

    #[test]
    fn what_is_full_is_passed_over_and_suspects_do_not_help_out() {
        for balancing in [
            Balancing::LeastOutstanding,
            Balancing::WeightedRandom,
            Balancing::RoundRobin,
            Balancing::ConsistentHash,
            Balancing::Ordered,
        ] {
            let mut rotation = rotation(balancing, &[1, 1, 1]);
            rotation.candidates[2].standing = Standing::Suspect;
            let mut choose = |full: &[u16]| {
                rotation.choose_with_room(3, 5, &[], |_| 0, |index| !full.contains(&index.0))
            };
            assert_eq!(choose(&[0]), Choice::Upstream(UpstreamIndex(1)));
            assert_eq!(choose(&[1]), Choice::Upstream(UpstreamIndex(0)));
            assert_eq!(choose(&[0, 1]), Choice::Full);
            for candidate in &mut rotation.candidates {
                candidate.standing = Standing::Out;
            }
            let choice = rotation.choose_with_room(3, 5, &[], |_| 0, |_| true);
            assert_eq!(choice, Choice::Nobody);
        }
    }

    #[test]
    fn round_robin_interleaves() {
        let (_, choices) = tally(&mut rotation(Balancing::RoundRobin, &[2, 1, 1]), 8, |_| 0);
        assert_eq!(choices, [0, 1, 2, 0, 0, 1, 2, 0]);
    }

    #[test]
    fn ordered_takes_the_first_that_can_be_used() {
        let mut rotation = rotation(Balancing::Ordered, &[1, 9, 9]);
        let choose = |rotation: &mut Rotation, exclude: &[UpstreamIndex]| {
            rotation.choose(0, 0, exclude, |_| 0).map(|index| index.0)
        };
        assert_eq!(choose(&mut rotation, &[]), Some(0));
        assert_eq!(choose(&mut rotation, &[UpstreamIndex(0)]), Some(1));
        rotation.candidates[0].standing = Standing::Suspect;
        assert_eq!(choose(&mut rotation, &[]), Some(1));
        rotation.candidates[1].standing = Standing::Out;
        assert_eq!(choose(&mut rotation, &[]), Some(2));
        // a suspect before one that was tried already
        assert_eq!(choose(&mut rotation, &[UpstreamIndex(2)]), Some(0));
        rotation.candidates[2].standing = Standing::Out;
        assert_eq!(choose(&mut rotation, &[]), Some(0));
        rotation.candidates[0].standing = Standing::Out;
        assert_eq!(choose(&mut rotation, &[]), None);
    }

    #[test]
    fn only_the_names_of_the_upstream_that_goes_move() {
        for weights in [[1, 1, 1, 1], [1, 2, 3, 4]] {
            let mut rotation = rotation(Balancing::ConsistentHash, &weights);
            let (_, before) = tally(&mut rotation, 10_000, |_| 0);
            rotation.candidates[2].standing = Standing::Out;
            let (_, after) = tally(&mut rotation, 10_000, |_| 0);
            for (before, after) in before.iter().zip(&after) {
                assert!(before == after || *before == 2);
                assert_ne!(*after, 2);
            }
            // with less weight it keeps a part of its own names, and the others keep all of theirs
            rotation.candidates[2].standing = Standing::Good;
            rotation.candidates[2].weight /= 4;
            let (shares, after) = tally(&mut rotation, 10_000, |_| 0);
            assert!(shares[2] > 0.02);
            for (before, after) in before.iter().zip(&after) {
                assert!(before == after || *before == 2);
            }
        }
    }
}
