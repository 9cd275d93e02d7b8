//! What a query counts for, as two numbers.
//!
//! A query of a second is counted in a dozen ways. On the packet path that is two steps all the same: one of each of
//! two rows of counters goes up, the one that stands for all that is said of the query. Once a second the rows
//! are made into [`Counts`].

use crate::asked::{Acquaintance, Asked, Fate, Standing};
use crate::window::Counts;

/// What is said of a query, as places in the two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Its fate; whether it is legitimate; whether it came over TCP.
    fate: u8,
    /// Its name; what it is, if it is suspicious; whether its source is new.
    kind: u8,
    /// Nobody known asks.
    pub(crate) stranger: bool,
    /// For a doubtful name.
    pub(crate) doubtful: bool,
}

/// Places of a row.
const ROW: usize = 32;
const LEGITIMATE: u8 = 1 << 3;
const TCP: u8 = 1 << 4;
/// The name: none of these if an answer for it was seen.
const NEW_NAME: u8 = 1;
const DOUBTFUL: u8 = 2;
const COVERED: u8 = 3;
const OF_NAME: u8 = 3;
/// One of these at most.
const IMPERSONATING: u8 = 1 << 2;
const BULKY: u8 = 2 << 2;
const STRANGE: u8 = 3 << 2;
const OF_ASKING: u8 = 3 << 2;
const NEW_SOURCE: u8 = 1 << 4;

impl Class {
    /// Of a query. `bulky`: as [`Asked::is_bulky`], which who counts types knows anyway.
    #[inline]
    pub(crate) const fn of(asked: &Asked, bulky: bool) -> Self {
        let stranger = asked.is_stranger();
        let doubtful = asked.is_doubtful();
        let known = matches!(asked.acquaintance, Acquaintance::Known);
        let covered = matches!(asked.standing, Standing::Covered);
        let name = match (asked.name_seen, doubtful, covered) {
            (true, ..) => 0,
            (false, false, _) => NEW_NAME,
            (false, true, false) => DOUBTFUL,
            (false, true, true) => COVERED,
        };
        let asking = if bulky {
            BULKY
        } else if known && asked.odd_hops {
            IMPERSONATING
        } else if stranger && !doubtful {
            STRANGE
        } else {
            0
        };
        let is_new = stranger && matches!(asked.acquaintance, Acquaintance::New);
        Self {
            fate: asked.fate as u8
                | if asked.is_legitimate() { LEGITIMATE } else { 0 }
                | if asked.tcp { TCP } else { 0 },
            kind: name | asking | if is_new { NEW_SOURCE } else { 0 },
            stranger,
            doubtful,
        }
    }
}

/// The rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    fates: [u32; ROW],
    kinds: [u32; ROW],
}

impl Tally {
    /// Counts a query.
    #[inline]
    pub(crate) fn count(&mut self, class: Class) {
        let rows = [(&mut self.fates, class.fate), (&mut self.kinds, class.kind)];
        for (row, place) in rows {
            if let Some(count) = row.get_mut(usize::from(place) % ROW) {
                *count = count.wrapping_add(1);
            }
        }
    }

    /// Adds what was counted.
    pub(crate) fn add_to(&self, counts: &mut Counts) {
        let add = |to: &mut u32, many: u32, by: bool| {
            *to = to.saturating_add(if by { many } else { 0 });
        };
        for (class, many) in (0_u8..).zip(self.fates) {
            let fate = class & 7;
            let shed = [Fate::Dropped as u8, Fate::Refused as u8].contains(&fate);
            let known = class & LEGITIMATE != 0;
            let challenged = fate == Fate::Challenged as u8;
            add(&mut counts.queries, many, true);
            add(&mut counts.passed, many, fate == Fate::Passed as u8);
            add(&mut counts.denied, many, fate == Fate::Denied as u8);
            add(&mut counts.challenged, many, challenged);
            add(&mut counts.refused, many, fate == Fate::Refused as u8);
            add(&mut counts.dropped, many, fate == Fate::Dropped as u8);
            add(&mut counts.tcp, many, class & TCP != 0);
            add(&mut counts.known, many, known);
            add(&mut counts.known_shed, many, known && shed);
            add(&mut counts.known_challenged, many, known && challenged);
        }
        for (class, many) in (0_u8..).zip(self.kinds) {
            let name = class & OF_NAME;
            let asking = class & OF_ASKING;
            add(&mut counts.new_names, many, name != 0);
            add(&mut counts.doubtful, many, name >= DOUBTFUL);
            add(&mut counts.covered, many, name == COVERED);
            add(&mut counts.odd_hops, many, asking == IMPERSONATING);
            add(&mut counts.bulky, many, asking == BULKY);
            add(&mut counts.strange, many, asking == STRANGE);
            add(&mut counts.new_sources, many, class & NEW_SOURCE != 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::asked::Place;

    fn any_asked() -> impl Strategy<Value = Asked> {
        let acquaintances = [Acquaintance::Known, Acquaintance::Recent, Acquaintance::New];
        let standings = [
            Standing::Exists,
            Standing::Covered,
            Standing::Missing,
            Standing::FailedBefore,
            Standing::Unknown,
        ];
        let fates = [
            Fate::Passed,
            Fate::Denied,
            Fate::Challenged,
            Fate::Refused,
            Fate::Dropped,
        ];
        (
            (0_usize..3, 0_usize..5, 0_usize..5),
            any::<[bool; 4]>(),
            prop_oneof![Just(1_u16), Just(255), Just(48)],
        )
            .prop_map(
                move |((who, name, fate), [verified, odd_hops, name_seen, tcp], qtype)| Asked {
                    source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    source_hash: 1,
                    acquaintance: acquaintances[who],
                    verified,
                    odd_hops,
                    hop_ttl: None,
                    standing: standings[name],
                    name_seen,
                    name_hash: 2,
                    place: Place {
                        zone: None,
                        hash: 3,
                        cut: 0,
                    },
                    qtype,
                    len: 40,
                    tcp,
                    fate: fates[fate],
                },
            )
    }

    proptest! {
        /// Each count is what counting one after the other comes to.
        #[test]
        fn rows_say_what_single_counts_would(queries in proptest::collection::vec(any_asked(), 0..40)) {
            let mut tally = Tally::default();
            let mut wanted = Counts::default();
            for asked in &queries {
                tally.count(Class::of(asked, asked.is_bulky()));
                let up = |count: &mut u32, by: bool| *count += u32::from(by);
                let (stranger, doubtful) = (asked.is_stranger(), asked.is_doubtful());
                let known = asked.is_legitimate();
                wanted.queries += 1;
                match asked.fate {
                    Fate::Passed => wanted.passed += 1,
                    Fate::Denied => wanted.denied += 1,
                    Fate::Challenged => wanted.challenged += 1,
                    Fate::Refused => wanted.refused += 1,
                    Fate::Dropped => wanted.dropped += 1,
                }
                let shed = matches!(asked.fate, Fate::Dropped | Fate::Refused);
                up(&mut wanted.tcp, asked.tcp);
                up(&mut wanted.new_sources, stranger && asked.acquaintance == Acquaintance::New);
                up(&mut wanted.new_names, !asked.name_seen);
                up(&mut wanted.doubtful, doubtful);
                up(&mut wanted.covered, doubtful && asked.standing == Standing::Covered);
                up(&mut wanted.odd_hops, asked.is_impersonating());
                up(&mut wanted.bulky, asked.is_bulky());
                up(&mut wanted.strange, stranger && !doubtful && !asked.is_bulky());
                up(&mut wanted.known, known);
                up(&mut wanted.known_shed, known && shed);
                up(&mut wanted.known_challenged, known && asked.fate == Fate::Challenged);
            }
            let mut counts = Counts::default();
            tally.add_to(&mut counts);
            prop_assert_eq!(counts, wanted);
        }
    }
}
