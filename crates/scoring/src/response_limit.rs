//! Response rate limiting (RRL): how many alike answers a network gets over UDP.
//!
//! Who forges a source address has the answers sent to a victim. What gives that away is on the way
//! out: many answers of the same kind to one network. Such answers are cut back, once for all name
//! servers behind and for the answers that the proxy makes itself. Some of those withheld are
//! *slipped*: an empty answer with TC=1, or BADCOOKIE, so that a real client which shares the
//! network with the victim still gets its answer, over TCP or with its cookie.
//!
//! ```yaml
//! response-limit:
//!   mode: enforce        # or observe, or off
//!   answers: 200/s       # the same name to the same /24 or /56
//!   nxdomain: 500/s      # from the same zone
//!   slip: 2              # every second answer withheld is slipped
//!   exempt: [ 127.0.0.0/8, "::1", 192.0.2.0/24 ]
//! ```
//!
//! An answer counts for its class and for what it is about: one with records, or one without
//! because the name has none of the type, for the name; NXDOMAIN and a referral for the zone; an
//! error for nothing else. So a large resolver that asks for thousands of names a second stays
//! below every limit, and a reflector that asks for one does not. A source whose address is known
//! to be real (TCP, a valid cookie) is never limited and counts for nothing.
//!
//! What is over the limit counts as well, up to `window`: after a flood its target waits that long
//! for the first answer that is not slipped.
//!
//! The memory is fixed: 8 octets for each network and name. When it is full, what is least over its
//! limit is forgotten and begins afresh: more gets through, never less.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use dnscrub_wire::{Name, Rcode, Response};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cells::Cells;
use crate::config::{ConfigError, Memory, Prefix, Rate, Span};
use crate::cookies::Cookie;
use crate::lists::{List, PrefixSet};
use crate::policy::unknown;
use crate::signals::prefix_key;

/// Response rate limiting over UDP, once for all name servers behind: how many alike answers a
/// network gets. It keeps a flood of queries with forged sources from being reflected at a victim.
/// The name servers' own limits should be off; they would count the proxy as one client.
///
/// ```yaml
/// response-limit:
///   answers: 200/s       # for the same name, to the same /24 or /56
///   nxdomain: 500/s      # from the same zone
///   slip: 2              # every second answer withheld becomes TC=1 or BADCOOKIE
///   exempt: [ 127.0.0.0/8, "::1", 192.0.2.0/24 ]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "ResponseLimit")]
pub struct Config {
    /// Whether answers are withheld. `scrubbing.mode: observe` makes `observe` of `enforce`.
    pub mode: Switch,
    /// Prefix length of the IPv4 networks that are told apart, 1 to 32.
    #[schemars(range(min = 1, max = 32))]
    pub v4_prefix: u8,
    /// Prefix length of the IPv6 networks that are told apart, 1 to 128.
    #[schemars(range(min = 1, max = 128))]
    pub v6_prefix: u8,
    /// Answers with records, or with TC=1, for the same name.
    pub answers: Rate,
    /// Answers that the name has no record of the type, for the same name.
    pub no_data: Rate,
    /// Answers that there is no such name, from the same zone. Those that the proxy makes itself
    /// count as of one zone.
    pub nxdomain: Rate,
    /// Referrals to the same zone.
    pub referrals: Rate,
    /// All other answers: REFUSED, SERVFAIL, FORMERR and so on.
    pub errors: Rate,
    /// Answers of all classes and names together.
    pub all: Rate,
    /// How long a network that was quiet may save up for: what a rate allows in this time may
    /// come at once. From "10ms" to "1m".
    pub burst: Span,
    /// How long at most answers stay limited after a flood, because what was over the limit counts
    /// as well. Up to "1h"; "0s" lets the rate through during the flood.
    pub window: Span,
    /// Every so manyth answer withheld is slipped, 1 for each; 0 for none, which takes the answer
    /// from real clients in the victim's network.
    pub slip: u8,
    /// What a slipped answer is.
    pub slip_as: SlipAs,
    /// Networks that are not limited.
    pub exempt: Vec<Prefix>,
    /// Named lists of prefixes that are not limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exempt_lists: Vec<String>,
    /// Memory of the table, per worker.
    pub memory: Memory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Switch::Enforce,
            v4_prefix: 24,
            v6_prefix: 56,
            answers: Rate::per_second(200),
            no_data: Rate::per_second(200),
            nxdomain: Rate::per_second(500),
            referrals: Rate::per_second(200),
            errors: Rate::per_second(500),
            all: Rate::Off,
            burst: Span(Duration::from_secs(1)),
            window: Span(Duration::from_secs(15)),
            slip: 2,
            slip_as: SlipAs::Auto,
            exempt: ["127.0.0.0/8", "::1"]
                .iter()
                .filter_map(|prefix| prefix.parse().ok())
                .collect(),
            exempt_lists: Vec::new(),
            memory: Memory(8 << 20),
        }
    }
}

impl Config {
    /// In the order of [`Over::ALL`].
    const fn rates(&self) -> [Rate; Over::ALL.len()] {
        [
            self.answers,
            self.no_data,
            self.nxdomain,
            self.referrals,
            self.errors,
            self.all,
        ]
    }
}

/// Whether a limit is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Answers over a limit are withheld.
    #[default]
    Enforce,
    /// Answers over a limit are counted, and sent.
    Observe,
    /// Nothing is counted, and no memory is taken.
    Off,
}

/// What a slipped answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SlipAs {
    /// BADCOOKIE for a query with a client cookie where `cookies.secrets-file` is set, so that the
    /// name servers behind know the cookie as well; TC=1 otherwise.
    #[default]
    Auto,
    /// TC=1: the client comes back over TCP.
    Truncate,
    /// BADCOOKIE for every query with a client cookie, TC=1 otherwise.
    Badcookie,
}

/// Classes of answers, each with its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResponseClass {
    /// With records, or truncated.
    Answer,
    /// The name has no record of the type.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// To the servers of a child zone.
    Referral,
    /// Any other rcode.
    Error,
}

impl ResponseClass {
    /// The class of an upstream's response.
    #[must_use]
    pub fn of(response: &Response) -> Self {
        match response.rcode {
            Rcode::NXDOMAIN => Self::NxDomain,
            Rcode::NOERROR if response.is_referral() => Self::Referral,
            Rcode::NOERROR if response.is_nodata() => Self::NoData,
            Rcode::NOERROR => Self::Answer,
            _ => Self::Error,
        }
    }
}

/// A limit that an answer can be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Over {
    /// `answers`.
    Answers,
    /// `no-data`.
    NoData,
    /// `nxdomain`.
    NxDomain,
    /// `referrals`.
    Referrals,
    /// `errors`.
    Errors,
    /// `all`.
    All,
}

impl Over {
    /// Every limit, in the order of its discriminant.
    pub const ALL: [Self; 6] = [
        Self::Answers,
        Self::NoData,
        Self::NxDomain,
        Self::Referrals,
        Self::Errors,
        Self::All,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::NoData => "no-data",
            Self::NxDomain => "nxdomain",
            Self::Referrals => "referrals",
            Self::Errors => "errors",
            Self::All => "all",
        }
    }
}

impl From<ResponseClass> for Over {
    fn from(class: ResponseClass) -> Self {
        match class {
            ResponseClass::Answer => Self::Answers,
            ResponseClass::NoData => Self::NoData,
            ResponseClass::NxDomain => Self::NxDomain,
            ResponseClass::Referral => Self::Referrals,
            ResponseClass::Error => Self::Errors,
        }
    }
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Limited {
    /// It is within its limits, or there are none for it.
    Send,
    /// It is over a limit and is sent all the same, since the limits are in observe mode.
    Observed(Over),
    /// It is not sent.
    Drop(Over),
    /// [`ResponseLimit::slip`] is sent instead.
    Slip(Over),
}

/// What is sent instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// An empty answer with TC=1.
    Truncate,
    /// BADCOOKIE, with a server cookie to come back with.
    BadCookie,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// The client's address. IPv4-mapped IPv6 addresses count as IPv4.
    pub address: IpAddr,
    /// Its address is known not to be forged: it is not limited.
    pub verified: bool,
}

/// The limits, built from the configuration.
#[derive(Debug)]
pub struct ResponseLimit {
    mode: Switch,
    v4: u8,
    v6: u8,
    /// In the order of [`Over::ALL`].
    limits: [Option<Rhythm>; Over::ALL.len()],
    slip: u8,
    slip_as: SlipAs,
    exempt: PrefixSet,
    exempt_lists: Vec<Arc<PrefixSet>>,
    memory: usize,
}

/// What one worker remembers.
#[derive(Debug)]
pub struct State {
    cells: Option<Cells>,
    names: RandomState,
}

impl State {
    /// Octets of the table.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.cells.as_ref().map_or(0, Cells::octets)
    }
}

/// Longest `burst`.
const BURST_MAX: Duration = Duration::from_secs(60);
/// Shortest `burst`.
const BURST_MIN: Duration = Duration::from_millis(10);
/// Longest `window`.
const WINDOW_MAX: Duration = Duration::from_secs(3_600);

/// The slowest rate is one in this time.
const RATE_MIN: Duration = Duration::from_secs(3_600);

impl ResponseLimit {
    /// Builds the limits. `observe` holds back everything, as `mode: observe` does.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn build(
        config: &Config,
        lists: &BTreeMap<String, List>,
        observe: bool,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: String| {
            errors.push(ConfigError {
                path: format!("response-limit.{field}"),
                message,
            });
        };
        for (field, length, longest) in [
            ("v4-prefix", config.v4_prefix, 32),
            ("v6-prefix", config.v6_prefix, 128),
        ] {
            if length == 0 || length > longest {
                wrong(
                    field,
                    format!("found prefix length {length}, expected 1 to {longest}"),
                );
            }
        }
        let (burst, window) = (config.burst.0, config.window.0);
        if !(BURST_MIN..=BURST_MAX).contains(&burst) {
            let found = config.burst;
            wrong("burst", format!("found \"{found}\", expected 10ms to 1m"));
        }
        if window > WINDOW_MAX {
            let found = config.window;
            wrong("window", format!("found \"{found}\", expected 0s to 1h"));
        }
        for (over, rate) in Over::ALL.into_iter().zip(config.rates()) {
            if let Rate::Limit { events, per } = rate
                && per > RATE_MIN.saturating_mul(events)
            {
                wrong(
                    over.label(),
                    format!("found \"{rate}\", expected at least one an hour, or \"off\""),
                );
            }
        }
        let mut exempt_lists = Vec::new();
        for (index, name) in config.exempt_lists.iter().enumerate() {
            let field = format!("exempt-lists[{index}]");
            match lists.get(name) {
                Some(List::Prefixes(prefixes)) => exempt_lists.push(Arc::clone(prefixes)),
                Some(List::Names(_)) => wrong(
                    &field,
                    format!(
                        "found list \"{name}\", which holds names; expected a list of prefixes"
                    ),
                ),
                None => wrong(
                    &field,
                    unknown("list", name, lists.keys().map(String::as_str)),
                ),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let limits = config.rates().map(|rate| Rhythm::new(rate, burst, window));
        let idle = config.mode == Switch::Off || limits.iter().all(Option::is_none);
        Ok(Self {
            mode: match config.mode {
                _ if idle => Switch::Off,
                Switch::Enforce if observe => Switch::Observe,
                mode => mode,
            },
            v4: config.v4_prefix,
            v6: config.v6_prefix,
            limits,
            slip: config.slip,
            slip_as: config.slip_as,
            exempt: PrefixSet::new(config.exempt.iter().map(|prefix| prefix.0)),
            exempt_lists,
            memory: if idle { 0 } else { config.memory.0.max(64) },
        })
    }

    /// An empty memory. The seed must be unpredictable: it keeps senders from choosing names that
    /// collide.
    #[must_use]
    pub fn state(&self, seed: [u64; 4]) -> State {
        let [a, b, c, d] = seed;
        State {
            cells: (self.memory > 0).then(|| Cells::new(self.memory, seed)),
            // other keys than the table's own hash
            names: RandomState::with_seeds(d, c, b, a),
        }
    }

    /// Whether the source is exempt from all limits.
    #[must_use]
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.contains(address) || self.exempt_lists.iter().any(|list| list.contains(address))
    }

    /// The prefixes of all sources that are exempt.
    pub fn exempt_prefixes(&self) -> impl Iterator<Item = IpNet> {
        let lists = self.exempt_lists.iter().map(|list| &**list);
        let all = std::iter::once(&self.exempt).chain(lists);
        all.flat_map(PrefixSet::prefixes)
    }

    /// Whether a memory made for earlier limits serves these as well.
    #[must_use]
    pub fn fits(&self, state: &State) -> bool {
        let wanted = (self.memory > 0).then(|| (self.memory / 64).max(1).saturating_mul(64));
        state.cells.as_ref().map(Cells::octets) == wanted
    }

    /// Counts an upstream's response, a view of `packet`, that is about to be sent over UDP at
    /// `now` (nanoseconds), and says what becomes of it. Never allocates.
    #[inline]
    pub fn account_response(
        &self,
        state: &mut State,
        to: Receiver,
        response: &Response,
        packet: &[u8],
        now: u64,
    ) -> Limited {
        let address = to.address.to_canonical();
        if !self.applies(to, address) {
            return Limited::Send;
        }
        let class = ResponseClass::of(response);
        let asked = response
            .question(packet)
            .split_last_chunk::<4>()
            .map_or(&[][..], |(name, _)| name);
        match class {
            ResponseClass::Answer | ResponseClass::NoData => {
                self.count(state, address, class, asked, now)
            }
            ResponseClass::NxDomain | ResponseClass::Referral => {
                let zone = response.authority_owner(packet);
                // where it is not told, the name above the one asked for stands for the zone
                let zone = zone.as_ref().map_or(parent(asked), Name::as_wire);
                self.count(state, address, class, zone, now)
            }
            ResponseClass::Error => self.count(state, address, class, &[], now),
        }
    }

    /// Counts an answer of our own, of this class and for no name, that is about to be sent over UDP
    /// at `now` (nanoseconds), and says what becomes of it. Never allocates.
    #[inline]
    pub fn account_own(
        &self,
        state: &mut State,
        to: Receiver,
        class: ResponseClass,
        now: u64,
    ) -> Limited {
        let address = to.address.to_canonical();
        if !self.applies(to, address) {
            return Limited::Send;
        }
        self.count(state, address, class, &[], now)
    }

    /// What a slipped answer to a query with this cookie is. `shared`: the name servers behind know
    /// our cookies.
    #[must_use]
    pub const fn slip(&self, cookie: Cookie, shared: bool) -> Slip {
        let may = match self.slip_as {
            SlipAs::Auto => shared,
            SlipAs::Truncate => false,
            SlipAs::Badcookie => true,
        };
        match cookie {
            Cookie::ClientOnly | Cookie::Invalid if may => Slip::BadCookie,
            _ => Slip::Truncate,
        }
    }

    /// `address` is that of `to`, canonical.
    fn applies(&self, to: Receiver, address: IpAddr) -> bool {
        self.mode != Switch::Off && !to.verified && !self.is_exempt(address)
    }

    fn count(
        &self,
        state: &mut State,
        address: IpAddr,
        class: ResponseClass,
        subject: &[u8],
        now: u64,
    ) -> Limited {
        let Some(cells) = &mut state.cells else {
            return Limited::Send;
        };
        let now = now >> TICK;
        let (scope, prefix) = prefix_key(address, self.v4, self.v6);
        let mut over = None;
        for (limit, about) in [(Over::from(class), subject), (Over::All, &[][..])] {
            let Some(Some(rhythm)) = self.limits.get(limit as usize) else {
                continue;
            };
            let name = name_key(&state.names, (limit, scope), about);
            let withheld = rhythm.count(cells, (name, prefix), now, self.slip);
            over = over.or(withheld.map(|turn| (limit, turn)));
        }
        match over {
            None => Limited::Send,
            Some((limit, _)) if self.mode == Switch::Observe => Limited::Observed(limit),
            Some((limit, Turn::Slip)) => Limited::Slip(limit),
            Some((limit, Turn::Drop)) => Limited::Drop(limit),
        }
    }
}

/// A name in wire format without its first label.
fn parent(name: &[u8]) -> &[u8] {
    let label = usize::from(name.first().copied().unwrap_or(0));
    name.get(label.saturating_add(1)..).unwrap_or_default()
}

/// The number that stands for a name in any case, together with the kind of limit and the network's
/// family and length. Case is folded by setting a bit, which folds a few other octets as well: two
/// names that differ in nothing else share a limit.
#[inline]
fn name_key(names: &RandomState, (limit, scope): (Over, u64), name: &[u8]) -> u64 {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let mut hasher = names.build_hasher();
    hasher.write_u64(scope << 8 | limit as u64);
    let (words, rest) = name.as_chunks::<8>();
    for word in words {
        hasher.write_u64(u64::from_le_bytes(*word) | FOLD);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    hasher.write_u64(u64::from_le_bytes(last) | FOLD);
    hasher.write_usize(name.len());
    hasher.finish()
}

/// What an answer over its limit gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Drop,
    Slip,
}

/// A rate, as the generic cell rate algorithm (GCRA, ITU-T I.371) counts it, but that what is over
/// it counts as well.
///
/// A cell's state is the time up to which its answers are paid for, 32 bits of ticks that come round
/// after 19 hours, and below it 8 bits that count the answers withheld since the last slip. A time in
/// the past, or further ahead than is ever counted, is as good as none. So a name that a network
/// asks for again after just 19.5 hours may be limited once, for no longer than `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rhythm {
    /// Ticks between answers.
    interval: u64,
    /// How far ahead of time answers may run and still be sent, in ticks.
    tolerance: u64,
    /// How far ahead of time they are counted, in ticks.
    ceiling: u64,
}

/// 2 to the power of this nanoseconds are a tick: 16 µs.
const TICK: u32 = 14;
/// Bits of the count of answers withheld, below the time.
const WITHHELD_BITS: u32 = 8;
const WITHHELD: u64 = (1 << WITHHELD_BITS) - 1;
const TIME: u64 = (1 << 32) - 1;
/// Longest time between two answers of a rate, in ticks: an hour.
const INTERVAL_MAX: u64 = 3_600_000_000_000 >> TICK;

impl Rhythm {
    /// None for a rate that is off.
    fn new(rate: Rate, burst: Duration, window: Duration) -> Option<Self> {
        let Rate::Limit { events, per } = rate else {
            return None;
        };
        let ticks = |time: Duration| u64::try_from(time.as_nanos() >> TICK).unwrap_or(u64::MAX);
        let interval = ticks(per)
            .checked_div(u64::from(events))
            .unwrap_or(1)
            .clamp(1, INTERVAL_MAX);
        // the first answer is always within the rate
        let tolerance = ticks(burst).saturating_sub(interval);
        Some(Self {
            interval,
            tolerance,
            ceiling: tolerance
                .saturating_add(ticks(window))
                .max(tolerance.saturating_add(1)),
        })
    }

    /// Counts an answer at `now`, in ticks; nothing if it is within the rate.
    #[inline]
    fn count(self, cells: &mut Cells, key: (u64, u128), now: u64, slip: u8) -> Option<Turn> {
        let furthest = self.ceiling.saturating_add(self.interval);
        let ahead = |state: u64| {
            let ahead = (state >> WITHHELD_BITS).wrapping_sub(now) & TIME;
            if ahead <= furthest { ahead } else { 0 }
        };
        let found = cells.find(key, ahead);
        let used = found.state.map_or(0, ahead);
        let over = used > self.tolerance;
        let mut withheld = found.state.map_or(0, |state| state & WITHHELD);
        let mut turn = None;
        if over {
            withheld = withheld.saturating_add(1);
            turn = Some(Turn::Drop);
            if slip > 0 && withheld >= u64::from(slip) {
                withheld = 0;
                turn = Some(Turn::Slip);
            }
        }
        // what is over the rate is counted up to the ceiling, and takes nothing back
        let counted = used.saturating_add(self.interval);
        let paid = if over {
            counted.min(self.ceiling.max(used))
        } else {
            counted
        };
        let state = (now.wrapping_add(paid) & TIME) << WITHHELD_BITS | withheld.min(WITHHELD);
        cells.put(&found, state);
        turn
    }
}

#[cfg(test)]
mod tests {
    use dnscrub_testkit::message::query;
    use dnscrub_wire::qtype;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Limits with a memory, at a time of their own.
    struct Bench {
        limit: ResponseLimit,
        state: State,
        now: u64,
    }

    impl Bench {
        fn new(yaml: &str) -> Self {
            let config: Config = serde_yaml::from_str(yaml).unwrap();
            let limit = ResponseLimit::build(&config, &BTreeMap::new(), false).unwrap();
            let state = limit.state([1, 2, 3, 4]);
            Self {
                limit,
                state,
                now: 7 * SECOND,
            }
        }

        fn send(&mut self, to: &str, packet: &[u8]) -> Limited {
            let response = Response::parse(packet).unwrap();
            let to = Receiver {
                address: to.parse().unwrap(),
                verified: false,
            };
            self.limit
                .account_response(&mut self.state, to, &response, packet, self.now)
        }

        /// How many of `count` answers to `to` were sent, slipped and dropped.
        fn flood(
            &mut self,
            to: &str,
            count: u32,
            mut packet: impl FnMut(u32) -> Vec<u8>,
        ) -> [u32; 3] {
            let mut sums = [0; 3];
            for number in 0..count {
                match self.send(to, &packet(number)) {
                    Limited::Send => sums[0] += 1,
                    Limited::Slip(_) => sums[1] += 1,
                    Limited::Drop(_) => sums[2] += 1,
                    Limited::Observed(_) => panic!("in enforce mode"),
                }
            }
            sums
        }
    }

    /// A response to `name`: rcode, counts of answers and authorities, and what follows the question.
    fn response(name: &str, rcode: u8, answers: u8, authorities: u8, records: &[u8]) -> Vec<u8> {
        let mut packet = query(name, qtype::A).build();
        (packet[2], packet[3]) = (0x84, rcode);
        (packet[7], packet[9]) = (answers, authorities);
        packet.extend_from_slice(records);
        packet
    }

    fn answer(name: &str) -> Vec<u8> {
        let a = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
        response(name, 0, 1, 0, a)
    }

    /// A record of `rtype` without data, owned by `owner`.
    fn record(owner: &str, rtype: u16) -> Vec<u8> {
        let owner: Name = owner.parse().unwrap();
        let mut record = owner.as_wire().to_vec();
        record.extend_from_slice(&rtype.to_be_bytes());
        record.extend_from_slice(b"\0\x01\0\0\0\x3c\0\0");
        record
    }

    fn nxdomain(name: &str, zone: &str) -> Vec<u8> {
        response(name, 3, 0, 1, &record(zone, qtype::SOA))
    }

    #[test]
    fn a_reflection_flood_is_cut_and_half_of_the_rest_slipped() {
        let mut bench = Bench::new("{}");
        let any = answer("example.com");
        let sums = bench.flood("192.0.2.1", 100_000, |_| any.clone());
        assert_eq!(sums, [200, 49_900, 49_900]);
        // a whole /24 is one victim
        assert_eq!(bench.flood("192.0.2.99", 2, |_| any.clone()), [0, 1, 1]);
        assert_eq!(bench.flood("192.0.3.1", 200, |_| any.clone()), [200, 0, 0]);
        let v6 = |last: u32| format!("2001:db8:0:{last:x}::1");
        assert_eq!(bench.flood(&v6(1), 200, |_| any.clone()), [200, 0, 0]);
        assert_eq!(bench.flood(&v6(0xff), 2, |_| any.clone()), [0, 1, 1]);
        assert_eq!(bench.flood(&v6(0x100), 200, |_| any.clone()), [200, 0, 0]);
        assert_eq!(
            bench.flood("::ffff:192.0.2.5", 2, |_| any.clone()),
            [0, 1, 1]
        );
    }

    #[test]
    fn a_resolver_that_asks_for_many_names_is_not_touched() {
        let mut bench = Bench::new("{}");
        for _ in 0..10 {
            // 20,000 names a second, ten times each over ten seconds
            let sums = bench.flood("192.0.2.1", 20_000, |number| {
                answer(&format!("host{number}.example.com"))
            });
            assert_eq!(sums, [20_000, 0, 0]);
            bench.now += SECOND;
        }
        // and at just the rate for one name, for a minute
        for _ in 0..60 * 200 {
            bench.now += SECOND / 200;
            assert_eq!(
                bench.send("192.0.2.1", &answer("www.example.com")),
                Limited::Send
            );
        }
    }

    #[test]
    fn case_and_type_do_not_make_another_name() {
        let mut bench = Bench::new("{ answers: 3/s }");
        let names = ["a.example.com", "A.example.com", "a.EXAMPLE.com"];
        let sums = bench.flood("192.0.2.1", 3, |number| answer(names[number as usize]));
        assert_eq!(sums, [3, 0, 0]);
        let mut txt = answer("a.example.com");
        let at = 12 + 15 + 1;
        assert_eq!(txt[at], 1);
        txt[at] = 16;
        assert_eq!(bench.send("192.0.2.1", &txt), Limited::Drop(Over::Answers));
    }

    #[test]
    fn nonexistent_names_count_for_their_zone_however_deep_they_are() {
        let mut bench = Bench::new("{}");
        let flood = |bench: &mut Bench, zone: &str| {
            bench.flood("192.0.2.1", 1_000, |number| {
                nxdomain(&format!("x{number}.y{number}.{zone}"), zone)
            })
        };
        assert_eq!(flood(&mut bench, "example.com"), [500, 250, 250]);
        assert_eq!(flood(&mut bench, "example.net"), [500, 250, 250]);
        // without a SOA record the parent stands for the zone
        let sums = bench.flood("192.0.2.1", 501, |number| {
            response(&format!("x{number}.example.org"), 3, 0, 0, &[])
        });
        assert_eq!(sums, [500, 0, 1]);
    }

    #[test]
    fn each_class_has_its_own_limit() {
        let mut bench = Bench::new(
            "{ answers: 1/s, no-data: 2/s, nxdomain: 3/s, referrals: 4/s, errors: 5/s }",
        );
        let referral = |name: &str| response(name, 0, 0, 1, &record("sub.example.com", qtype::NS));
        let no_data = |name: &str| response(name, 0, 0, 1, &record("example.com", qtype::SOA));
        let mut sent = |packet: &dyn Fn(&str) -> Vec<u8>, same_name: bool| {
            let name = |number: u32| {
                if same_name {
                    "a".to_owned()
                } else {
                    format!("n{number}")
                }
            };
            bench.flood("192.0.2.1", 9, |number| {
                packet(&format!("{}.sub.example.com", name(number)))
            })[0]
        };
        assert_eq!(sent(&answer, true), 1);
        assert_eq!(sent(&answer, false), 9);
        assert_eq!(sent(&no_data, true), 2);
        assert_eq!(sent(&no_data, false), 9);
        assert_eq!(sent(&|name| nxdomain(name, "example.com"), false), 3);
        assert_eq!(sent(&referral, false), 4);
        assert_eq!(sent(&|name| response(name, 5, 0, 0, &[]), false), 5);
    }

    #[test]
    fn the_class_is_told_from_rcode_and_records() {
        let class = |packet: &[u8]| ResponseClass::of(&Response::parse(packet).unwrap());
        let soa = record("example.com", qtype::SOA);
        assert_eq!(class(&answer("a.b")), ResponseClass::Answer);
        assert_eq!(
            class(&response("a.b", 0, 0, 1, &soa)),
            ResponseClass::NoData
        );
        assert_eq!(class(&nxdomain("a.b", "b")), ResponseClass::NxDomain);
        let ns = record("a.b", qtype::NS);
        assert_eq!(
            class(&response("a.b", 0, 0, 1, &ns)),
            ResponseClass::Referral
        );
        for rcode in [1, 2, 4, 5, 9] {
            assert_eq!(
                class(&response("a.b", rcode, 0, 0, &[])),
                ResponseClass::Error
            );
        }
        let mut truncated = response("a.b", 0, 0, 0, &[]);
        truncated[2] |= 2;
        assert_eq!(class(&truncated), ResponseClass::Answer);
    }

    #[test]
    fn all_answers_together_may_have_a_limit() {
        let mut bench = Bench::new("{ answers: off, all: 10/s }");
        for number in 0..10 {
            let packet = answer(&format!("n{number}"));
            assert_eq!(bench.send("192.0.2.1", &packet), Limited::Send);
        }
        let refused = response("n", 5, 0, 0, &[]);
        assert_eq!(bench.send("192.0.2.1", &refused), Limited::Drop(Over::All));
    }

    #[test]
    fn verified_and_exempt_sources_are_free_and_count_for_nothing() {
        let lists = BTreeMap::from([(
            "friends".to_owned(),
            List::build(
                &serde_yaml::from_str("{ prefixes: [ 198.51.100.0/24 ] }").unwrap(),
                None,
            )
            .unwrap(),
        )]);
        let config = "{ answers: 1/s, exempt: [ 192.0.2.128/25 ], exempt-lists: [ friends ] }";
        let config: Config = serde_yaml::from_str(config).unwrap();
        let limit = ResponseLimit::build(&config, &lists, false).unwrap();
        let mut state = limit.state([1, 2, 3, 4]);
        let packet = answer("a.b");
        let response = Response::parse(&packet).unwrap();
        let mut sent = |address: &str, verified| {
            let address = address.parse().unwrap();
            let to = Receiver { address, verified };
            (0..9)
                .filter(|_| {
                    limit.account_response(&mut state, to, &response, &packet, SECOND)
                        == Limited::Send
                })
                .count()
        };
        assert_eq!(sent("192.0.2.200", false), 9);
        assert_eq!(sent("198.51.100.7", false), 9);
        assert_eq!(sent("192.0.2.1", true), 9);
        assert_eq!(sent("192.0.2.1", false), 1, "as if there had been nothing");
    }

    #[test]
    fn what_is_over_counts_until_the_window_is_full() {
        let mut bench = Bench::new("{ answers: 100/s, window: 5s }");
        let packet = answer("a.b");
        bench.flood("192.0.2.1", 100_000, |_| packet.clone());
        bench.now += 5 * SECOND - SECOND / 100;
        assert_eq!(bench.flood("192.0.2.1", 1, |_| packet.clone())[0], 0);
        bench.now += SECOND / 10;
        assert_eq!(bench.flood("192.0.2.1", 1, |_| packet.clone())[0], 1);
        bench.now += SECOND;
        assert_eq!(bench.flood("192.0.2.1", 200, |_| packet.clone())[0], 100);
    }

    #[test]
    fn without_a_window_the_rate_goes_through_during_the_flood() {
        let mut bench = Bench::new("{ answers: 100/s, window: 0s }");
        let packet = answer("a.b");
        let mut sent = 0;
        for _ in 0..10_000 {
            bench.now += SECOND / 1_000;
            sent += bench.flood("192.0.2.1", 5, |_| packet.clone())[0];
        }
        assert!((1_050..=1_150).contains(&sent), "{sent} in ten seconds");
    }

    #[test]
    fn slips_come_as_often_as_told() {
        for (slip, expected) in [
            (0, [1, 0, 999]),
            (1, [1, 999, 0]),
            (3, [1, 333, 666]),
            (255, [1, 3, 996]),
        ] {
            let mut bench = Bench::new(&format!("{{ answers: 1/s, slip: {slip} }}"));
            assert_eq!(bench.flood("192.0.2.1", 1_000, |_| answer("a.b")), expected);
        }
    }

    #[test]
    fn a_slip_is_what_the_client_can_use() {
        use Cookie::{ClientOnly, Invalid, None, Valid};
        let slip = |slip_as: &str, cookie, shared| {
            let bench = Bench::new(&format!("{{ slip-as: {slip_as} }}"));
            bench.limit.slip(cookie, shared)
        };
        for cookie in [None, ClientOnly, Invalid, Valid] {
            let client = matches!(cookie, ClientOnly | Invalid);
            let if_client = if client {
                Slip::BadCookie
            } else {
                Slip::Truncate
            };
            for shared in [false, true] {
                assert_eq!(slip("truncate", cookie, shared), Slip::Truncate);
                assert_eq!(slip("badcookie", cookie, shared), if_client);
            }
            assert_eq!(slip("auto", cookie, true), if_client);
            assert_eq!(slip("auto", cookie, false), Slip::Truncate);
        }
    }

    #[test]
    fn answers_of_our_own_count_by_network_alone() {
        let bench = &mut Bench::new("{ nxdomain: 3/s, errors: 2/s }");
        let mut sent = |class, address: &str| {
            let to = Receiver {
                address: address.parse().unwrap(),
                verified: false,
            };
            (0..9)
                .filter(|_| {
                    bench.limit.account_own(&mut bench.state, to, class, SECOND) == Limited::Send
                })
                .count()
        };
        assert_eq!(sent(ResponseClass::NxDomain, "192.0.2.1"), 3);
        assert_eq!(sent(ResponseClass::Error, "192.0.2.1"), 2);
        assert_eq!(sent(ResponseClass::NxDomain, "192.0.2.2"), 0);
        assert_eq!(sent(ResponseClass::NxDomain, "192.0.3.1"), 3);
    }

    #[test]
    fn observe_counts_and_off_takes_no_memory() {
        let mut bench = Bench::new("{ mode: observe, answers: 1/s }");
        assert_eq!(bench.send("192.0.2.1", &answer("a.b")), Limited::Send);
        for _ in 0..5 {
            assert_eq!(
                bench.send("192.0.2.1", &answer("a.b")),
                Limited::Observed(Over::Answers)
            );
        }
        for off in [
            "{ mode: off }",
            "{ answers: off, no-data: off, nxdomain: off, referrals: off, errors: off }",
        ] {
            let mut bench = Bench::new(off);
            assert!(bench.state.cells.is_none());
            assert_eq!(
                bench.flood("192.0.2.1", 999, |_| answer("a.b")),
                [999, 0, 0]
            );
        }
        let limit = ResponseLimit::build(&Config::default(), &BTreeMap::new(), true).unwrap();
        assert_eq!(limit.mode, Switch::Observe, "where everything is observed");
    }

    #[test]
    fn a_memory_fits_limits_of_the_same_size() {
        let bench = Bench::new("{ memory: 1MiB }");
        assert!(bench.limit.fits(&bench.state));
        assert!(
            Bench::new("{ memory: 1MiB, answers: 1/s }")
                .limit
                .fits(&bench.state)
        );
        assert!(!Bench::new("{ memory: 2MiB }").limit.fits(&bench.state));
        assert!(!Bench::new("{ mode: off }").limit.fits(&bench.state));
    }

    #[test]
    fn a_full_table_limits_the_flood_and_spares_newcomers() {
        let mut bench = Bench::new("{ memory: 64KiB }");
        let packet = answer("flooded.example.com");
        bench.flood("192.0.2.1", 10_000, |_| packet.clone());
        let others = bench.flood("192.0.2.1", 100_000, |number| {
            answer(&format!("n{number}.example.com"))
        });
        // by chance one new name in two million is taken for another
        assert!(others[0] > 99_990, "{others:?}");
        assert_eq!(bench.flood("192.0.2.1", 100, |_| packet.clone())[0], 0);
    }

    #[test]
    fn settings_that_cannot_be_are_refused_with_their_place() {
        let lists = BTreeMap::from([(
            "names".to_owned(),
            List::build(&serde_yaml::from_str("{ names: [ a.b ] }").unwrap(), None).unwrap(),
        )]);
        let yaml = "{ errors: 1/2h, v4-prefix: 33, v6-prefix: 0, burst: 1ms, window: 2h, exempt-lists: [ names, nams ] }";
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let errors = ResponseLimit::build(&config, &lists, false).unwrap_err();
        let places: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            places,
            [
                "response-limit.v4-prefix",
                "response-limit.v6-prefix",
                "response-limit.burst",
                "response-limit.window",
                "response-limit.errors",
                "response-limit.exempt-lists[0]",
                "response-limit.exempt-lists[1]",
            ]
        );
        assert!(errors[6].message.contains("did you mean \"names\"?"));
    }

    #[test]
    fn time_comes_round_without_harm() {
        let mut bench = Bench::new("{ answers: 10/s }");
        let packet = answer("a.b");
        for hours in [0, 1, 19, 20, 39, 1_000] {
            bench.now = hours * 3_600 * SECOND + 1;
            let sent = bench.flood("192.0.2.1", 20, |_| packet.clone())[0];
            assert_eq!(sent, 10, "after {hours} hours");
        }
    }
}
