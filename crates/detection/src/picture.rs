//! The samples of the last seconds, and what can be read from them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::incident::{NamePart, QtypePart, SourcePart};
use crate::sample::Sample;
use crate::spelling::Spelling;
use crate::window::Window;
use dnscrub_wire::{Name, records};

/// Types that a group may be of for the most part (RFC 1035 section 3.2.2).
const MX: u16 = 15;
const TXT: u16 = 16;
/// RFC 4034 section 2.
const DNSKEY: u16 = 48;
/// Sources seen more than once from which on their ways say something.
const REPEATERS: usize = 8;
/// Hops by which the ways of a source's packets differ now and then.
const DETOUR: u8 = 3;
/// Sources from which on their proportions say something.
const CROWD: usize = 200;
/// Networks from which on their distances say something,
const FAR_NETWORKS: usize = 40;
/// and distances of fewer than which they never are: those of a few senders.
const FEW_DISTANCES: f32 = 3.5;
/// Seconds of samples looked at together.
pub(crate) const SECONDS: usize = 5;

/// A sample, and what was made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glimpse {
    pub(crate) sample: Sample,
    /// Its name is doubtful and not mistyped.
    pub(crate) made_up: bool,
}

/// A second's samples.
#[derive(Clone, Debug, Default)]
struct Second {
    seconds: f32,
    zones: Vec<Arc<str>>,
    glimpses: Vec<Glimpse>,
    malformed: Vec<(IpAddr, u32)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    seconds: VecDeque<Second>,
    /// Sources in whose names somebody else asks.
    pub(crate) impersonated: HashSet<IpAddr, RandomState>,
    /// Those in whose names large answers are asked for.
    pub(crate) victims: Victims,
}

/// In whose names large answers are asked for, and for which names.
#[derive(Debug, Default)]
pub(crate) struct Victims {
    /// Networks of which enough was seen.
    networks: HashSet<IpNet, RandomState>,
    sources: HashSet<IpAddr, RandomState>,
    /// Hashes of names.
    names: HashSet<u64, RandomState>,
}

impl Victims {
    /// Whether a query in this name is likely of the same reflection. Single addresses stand out where
    /// they are few; where all addresses of a network are victims, or addresses without end, the network or
    /// the question does.
    pub(crate) fn are_behind(&self, sample: &Sample) -> bool {
        if self.sources.contains(&sample.source) {
            return true;
        }
        let (stranger, text) = (
            sample.is_stranger(),
            sample.qtype == TXT && self.names.contains(&sample.name_hash),
        );
        stranger && text
            || (stranger || text)
                && !self.networks.is_empty()
                && self.networks.contains(&network_of(sample.source))
    }

    fn clear(&mut self) {
        self.networks.clear();
        self.sources.clear();
        self.names.clear();
    }

    /// Of the samples of an attack.
    fn find<'a>(&mut self, samples: impl Iterator<Item = &'a Sample> + Clone) {
        let mut sources: HashMap<IpAddr, Part, RandomState> = HashMap::default();
        let mut networks: HashMap<IpNet, Part, RandomState> = HashMap::default();
        let mut names: HashMap<u64, u32, RandomState> = HashMap::default();
        for sample in samples.clone().filter(|sample| sample.is_bulky()) {
            sources.entry(sample.source).or_default();
            networks.entry(network_of(sample.source)).or_default();
            let name = names.entry(sample.name_hash).or_default();
            *name = name.saturating_add(1);
        }
        for sample in samples {
            let bulky = sample.is_bulky();
            if let Some(part) = sources.get_mut(&sample.source) {
                part.count(bulky);
            }
            if (bulky || sample.qtype == TXT || sample.is_stranger())
                && let Some(part) = networks.get_mut(&network_of(sample.source))
            {
                part.count(bulky);
            }
        }
        // who is asked about in many ways and now and then for all there is, is no victim of reflection
        let sources = sources
            .into_iter()
            .filter(|(_, part)| part.is_at_least(0.2));
        self.sources.extend(sources.map(|(source, _)| source));
        let networks = networks
            .into_iter()
            .filter(|(_, part)| part.of >= 3 && part.is_at_least(0.4));
        self.networks.extend(networks.map(|(network, _)| network));
        let names = names.into_iter().filter(|(_, times)| *times >= 5);
        self.names.extend(names.map(|(name, _)| name));
    }
}

/// So many of all.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    of: u32,
    all: u32,
}

impl Part {
    fn count(&mut self, of: bool) {
        self.all = self.all.saturating_add(1);
        self.of = self.of.saturating_add(u32::from(of));
    }

    fn is_at_least(self, share: f32) -> bool {
        self.of as f32 >= share * self.all as f32
    }
}

/// What a group of samples has in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traits {
    /// How many samples,
    pub(crate) samples: usize,
    /// and how many queries a second they stand for.
    pub(crate) rate: f32,
    /// Shares of those queries.
    pub(crate) strangers: f32,
    pub(crate) mail: f32,
    pub(crate) text: f32,
    /// Of known sources that ask for a zone's keys over their usual path.
    pub(crate) keys: f32,
    pub(crate) unknown_zone: f32,
    pub(crate) passed: f32,
    /// Different names to samples.
    pub(crate) distinct: f32,
    /// Share of queries from sources that come back again and again.
    pub(crate) returning: f32,
    /// Queries of a source within the seconds looked at, of those that do not, about.
    pub(crate) each: f32,
    /// Share of the five busiest sources,
    pub(crate) busiest: f32,
    /// of the busiest twentieth of all; nothing where they are too few;
    pub(crate) head: f32,
    /// and of the busiest quarter of that twentieth, as a part of its queries.
    pub(crate) tip: f32,
    /// Share of queries that repeat one source's question over and over.
    pub(crate) repeated: f32,
    /// Share of the eight names most asked for.
    pub(crate) few_names: f32,
    /// Sources seen more than once,
    repeaters: usize,
    /// and which part of them came over numbers of hops that differ by more than a path's do.
    varied: f32,
    /// Networks that were seen at all, and on how many different distances, as if all were as frequent.
    far_networks: usize,
    distances: f32,
}

impl Traits {
    /// Which part of all the queries of `all` these are, 0 to 1.
    pub(crate) fn part_of(&self, all: &Self) -> f32 {
        (self.rate / all.rate.max(1e-3)).min(1.0)
    }

    /// The packets' ways say that the addresses are not the senders'.
    pub(crate) fn is_forged(&self) -> bool {
        self.is_varied() || self.far_networks >= FAR_NETWORKS && self.distances < FEW_DISTANCES
    }

    /// The same addresses come over ever other ways.
    pub(crate) fn is_varied(&self) -> bool {
        self.repeaters >= REPEATERS && self.varied >= 0.5
    }
}

impl Picture {
    /// Takes in a second. In a zone with more doubtful names a second than `most_slips` none counts as mistyped.
    pub(crate) fn take_in(&mut self, window: &Window, spelling: &mut Spelling, most_slips: f32) {
        if self.seconds.len() >= SECONDS {
            self.seconds.pop_front();
        }
        let zones: Vec<_> = window
            .zones
            .iter()
            .map(|zone| Arc::clone(&zone.zone))
            .collect();
        let name_of = |zone: u16| zones.get(usize::from(zone)).map_or(".", |zone| &**zone);
        let has_slips = |zone: u16| {
            let zone = window.zones.get(usize::from(zone));
            zone.is_none_or(|zone| window.rate(zone.counts.doubtful) <= most_slips)
        };
        let mut glimpses = Vec::with_capacity(window.samples.len());
        for sample in &window.samples {
            let is_doubtful = sample.is_doubtful();
            let slip = || spelling.is_slip(name_of(sample.zone), sample.labels());
            let made_up = is_doubtful && !(has_slips(sample.zone) && slip());
            glimpses.push(Glimpse {
                sample: *sample,
                made_up,
            });
        }
        for sample in &window.samples {
            if sample.name_seen && sample.standing == crate::asked::Standing::Exists {
                spelling.exists(name_of(sample.zone), sample.labels());
            }
        }
        self.seconds.push_back(Second {
            seconds: window.seconds,
            zones,
            glimpses,
            malformed: window.malformed_sources.clone(),
        });
    }

    /// Which part of the doubtful names of the newest second is made up, of each of its zones and, last, of
    /// all.
    pub(crate) fn made_up(&self) -> Vec<f32> {
        let Some(second) = self.seconds.back() else {
            return Vec::new();
        };
        let zones = second.zones.len();
        let mut doubtful = vec![(0_u32, 0_u32); zones.saturating_add(1)];
        for Glimpse { sample, made_up } in &second.glimpses {
            if !sample.is_doubtful() {
                continue;
            }
            let counted = *made_up && !self.impersonated.contains(&sample.source);
            for place in [usize::from(sample.zone), zones] {
                if let Some((all, made)) = doubtful.get_mut(place) {
                    *all = all.saturating_add(1);
                    *made = made.saturating_add(u32::from(counted));
                }
            }
        }
        let parts = doubtful.iter().map(|(all, made)| {
            if *all == 0 {
                1.0
            } else {
                *made as f32 / *all as f32
            }
        });
        parts.collect()
    }

    /// Finds the sources in whose names somebody asks over odd paths for the most part, and those in whose
    /// names large answers are asked for; each if there is such an attack.
    pub(crate) fn find_forged(&mut self, impersonating: bool, reflecting: bool) {
        self.impersonated.clear();
        self.victims.clear();
        if reflecting {
            let seconds = &self.seconds;
            let glimpses = seconds.iter().flat_map(|second| &second.glimpses);
            self.victims.find(glimpses.map(|glimpse| &glimpse.sample));
        }
        if !impersonating {
            return;
        }
        let mut seen: HashMap<IpAddr, (u32, u32), RandomState> = HashMap::default();
        for (_, glimpse) in self.glimpses() {
            let (all, odd) = seen.entry(glimpse.sample.source).or_default();
            *all = all.saturating_add(1);
            *odd = odd.saturating_add(u32::from(glimpse.sample.is_impersonating()));
        }
        let odd = seen
            .into_iter()
            .filter(|(_, (all, odd))| *odd >= 2 && odd.saturating_mul(2) >= *all)
            .map(|(source, _)| source);
        self.impersonated.extend(odd);
    }

    /// Octets of memory.
    pub(crate) fn octets(&self) -> usize {
        let glimpses: usize = self
            .seconds
            .iter()
            .map(|second| second.glimpses.capacity())
            .fold(0, usize::saturating_add);
        glimpses.saturating_mul(size_of::<Glimpse>())
    }

    /// All samples, with their zones.
    pub(crate) fn glimpses(&self) -> impl Iterator<Item = (&str, &Glimpse)> {
        self.seconds.iter().flat_map(|second| {
            second.glimpses.iter().map(|glimpse| {
                let zone = second.zones.get(usize::from(glimpse.sample.zone));
                (zone.map_or(".", |zone| &**zone), glimpse)
            })
        })
    }

    /// How long the seconds are together.
    pub(crate) fn length(&self) -> f32 {
        let length: f32 = self.seconds.iter().map(|second| second.seconds).sum();
        length.max(0.5)
    }

    /// What the samples that fit have in common.
    pub(crate) fn traits(&self, fits: impl Fn(&str, &Glimpse) -> bool) -> Traits {
        let mut traits = Traits::default();
        let mut weight = 0.0_f32;
        let mut names: HashMap<u64, u32, RandomState> = HashMap::default();
        let mut sources: HashMap<IpAddr, (u32, f32), RandomState> = HashMap::default();
        let mut questions: HashMap<(IpAddr, u64, u16), (u32, f32), RandomState> =
            HashMap::default();
        let mut ways = Ways::default();
        for (_, glimpse) in self
            .glimpses()
            .filter(|(zone, glimpse)| fits(zone, glimpse))
        {
            let sample = &glimpse.sample;
            let of = sample.weight as f32;
            traits.samples = traits.samples.saturating_add(1);
            weight += of;
            let count = |share: &mut f32, holds: bool| *share += if holds { of } else { 0.0 };
            count(&mut traits.strangers, sample.is_stranger());
            count(&mut traits.mail, is_of_mail(sample));
            count(&mut traits.text, sample.qtype == TXT);
            count(
                &mut traits.keys,
                sample.qtype == DNSKEY && !sample.is_stranger() && !sample.odd_hops,
            );
            count(
                &mut traits.unknown_zone,
                sample.standing == crate::asked::Standing::Unknown,
            );
            count(
                &mut traits.passed,
                sample.fate == crate::asked::Fate::Passed,
            );
            ways.see(sample);
            let name = names.entry(sample.name_hash).or_default();
            *name = name.saturating_add(sample.weight);
            let (many, queries) = sources.entry(sample.source).or_default();
            *many = many.saturating_add(1);
            *queries += of;
            let key = (sample.source, sample.name_hash, sample.qtype);
            let (many, queries) = questions.entry(key).or_default();
            *many = many.saturating_add(1);
            *queries += of;
        }
        if weight == 0.0 {
            return traits;
        }
        ways.sum_up(&mut traits);
        let length = self.length();
        traits.rate = weight / length;
        for share in [
            &mut traits.strangers,
            &mut traits.mail,
            &mut traits.text,
            &mut traits.keys,
            &mut traits.unknown_zone,
            &mut traits.passed,
        ] {
            *share /= weight;
        }
        traits.distinct = names.len() as f32 / traits.samples as f32;
        // three a second and more, seen three times
        let returns = |(many, queries): &(u32, f32)| *many >= 3 && *queries >= 3.0 * length;
        let returning: f32 = sources
            .values()
            .filter(|it| returns(it))
            .map(|(_, queries)| queries)
            .sum();
        traits.returning = returning / weight;
        let others = sources.values().filter(|it| !returns(it));
        let (many, of, distinct) = others.fold((0.0, 0.0, 0.0_f32), |sum, (many, queries)| {
            (sum.0 + *many as f32, sum.1 + queries, sum.2 + 1.0)
        });
        if distinct > 0.0 {
            let sampled: f32 = many / of;
            traits.each = (1.0 + 2.0 * (many / distinct - 1.0)).max(1.0) / sampled.max(1e-6);
            if many / distinct < 1.05 {
                traits.each = if sampled > 0.9 {
                    1.0
                } else {
                    traits.each.min(1.5)
                };
            }
        }
        let mut busiest: Vec<f32> = sources.values().map(|(_, queries)| *queries).collect();
        busiest.sort_unstable_by(|a, b| b.total_cmp(a));
        traits.busiest = busiest.iter().take(5).sum::<f32>() / weight;
        if busiest.len() >= CROWD {
            let head = busiest.len() / 20;
            let sum = |many: usize| busiest.iter().take(many).sum::<f32>();
            traits.head = sum(head) / weight;
            traits.tip = sum(head / 4) / sum(head).max(1.0);
        }
        let repeated: f32 = questions
            .values()
            .filter(|it| returns(it))
            .map(|(_, queries)| queries)
            .sum();
        traits.repeated = repeated / weight;
        let mut often: Vec<u32> = names.into_values().collect();
        often.sort_unstable_by(|a, b| b.cmp(a));
        traits.few_names = often.iter().take(8).map(|n| *n as f32).sum::<f32>() / weight;
        traits
    }

    /// The busiest sources among the samples that fit, single ones or, where none stands out, networks.
    pub(crate) fn sources(
        &self,
        many: usize,
        fits: impl Fn(&str, &Glimpse) -> bool,
    ) -> Vec<SourcePart> {
        let mut single: HashMap<IpNet, (f32, bool, bool), RandomState> = HashMap::default();
        let mut networks: HashMap<IpNet, (f32, bool, bool), RandomState> = HashMap::default();
        let mut all = 0.0_f32;
        for (zone, glimpse) in self.glimpses() {
            let sample = &glimpse.sample;
            all += sample.weight as f32;
            if !fits(zone, glimpse) {
                continue;
            }
            let known = !sample.is_stranger();
            let entries = [
                single.entry(IpNet::from(sample.source)),
                networks.entry(network_of(sample.source)),
            ];
            for entry in entries {
                let (queries, was_known, verified) = entry.or_default();
                *queries += sample.weight as f32;
                *was_known |= known;
                *verified |= sample.verified;
            }
        }
        let length = self.length();
        let sorted = |parts: HashMap<IpNet, (f32, bool, bool), RandomState>| {
            let mut parts: Vec<_> = parts.into_iter().collect();
            parts.sort_unstable_by(|a, b| (b.1.0.total_cmp(&a.1.0)).then_with(|| a.0.cmp(&b.0)));
            parts
        };
        let single = sorted(single);
        let fitting: f32 = single.iter().map(|(_, (queries, ..))| queries).sum();
        let of_first: f32 = single
            .iter()
            .take(many)
            .map(|(_, (queries, ..))| queries)
            .sum();
        let parts = if of_first >= 0.1 * fitting {
            single
        } else {
            sorted(networks)
        };
        parts
            .into_iter()
            .take(many)
            .map(|(prefix, (queries, known, verified))| SourcePart {
                prefix,
                rate: queries / length,
                share: queries / all.max(1.0),
                known,
                verified,
            })
            .collect()
    }

    /// Sources of malformed packets.
    pub(crate) fn malformed_sources(&self, many: usize) -> Vec<SourcePart> {
        let mut seen: HashMap<IpAddr, u32, RandomState> = HashMap::default();
        for second in &self.seconds {
            for (source, packets) in &second.malformed {
                let count = seen.entry(*source).or_default();
                *count = count.saturating_add(*packets);
            }
        }
        let all: u32 = seen.values().sum();
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let length = self.length();
        seen.into_iter()
            .take(many)
            .map(|(source, packets)| SourcePart {
                prefix: IpNet::from(source),
                rate: packets as f32 / length,
                share: packets as f32 / all.max(1) as f32,
                known: false,
                verified: false,
            })
            .collect()
    }

    /// Names most asked for among the samples that fit. `below`: what they stand under instead, where they
    /// are all different.
    pub(crate) fn names(
        &self,
        many: usize,
        below: bool,
        fits: impl Fn(&str, &Glimpse) -> bool,
    ) -> Vec<NamePart> {
        let mut seen: HashMap<Vec<u8>, f32, RandomState> = HashMap::default();
        let mut all = 0.0_f32;
        for (_, glimpse) in self
            .glimpses()
            .filter(|(zone, glimpse)| fits(zone, glimpse))
        {
            let weight = glimpse.sample.weight as f32;
            all += weight;
            let wire = glimpse.sample.wire();
            let kept = if below {
                let first = usize::from(wire.first().copied().unwrap_or(0)).saturating_add(1);
                wire.get(first..).unwrap_or_default()
            } else {
                wire
            };
            *seen.entry(kept.to_vec()).or_default() += weight;
        }
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let parts = seen.into_iter().filter_map(|(wire, queries)| {
            let name = Name::from_wire(&wire).ok()?;
            let share = queries / all.max(1.0);
            let name = if below {
                format!("*.{name}")
            } else {
                name.to_string()
            };
            (share >= 0.005).then_some(NamePart { name, share })
        });
        parts.take(many).collect()
    }

    /// Query types among the samples that fit.
    pub(crate) fn qtypes(&self, fits: impl Fn(&str, &Glimpse) -> bool) -> Vec<QtypePart> {
        let mut seen: HashMap<u16, f32, RandomState> = HashMap::default();
        let mut all = 0.0_f32;
        for (_, glimpse) in self
            .glimpses()
            .filter(|(zone, glimpse)| fits(zone, glimpse))
        {
            let weight = glimpse.sample.weight as f32;
            all += weight;
            *seen.entry(glimpse.sample.qtype).or_default() += weight;
        }
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        seen.into_iter()
            .take(8)
            .map(|(qtype, queries)| QtypePart {
                qtype: records::type_to_text(qtype).to_string(),
                share: queries / all.max(1.0),
            })
            .collect()
    }

    /// Entropy of the characters of first labels in the newest second, in bits, if there are enough.
    pub(crate) fn entropy(&self) -> Option<f32> {
        let mut counts = [0_u32; 256];
        let mut all = 0_u32;
        for glimpse in &self.seconds.back()?.glimpses {
            for letter in glimpse.sample.first_label() {
                if let Some(count) = counts.get_mut(usize::from(*letter)) {
                    *count = count.saturating_add(1);
                    all = all.saturating_add(1);
                }
            }
        }
        if all < 50 {
            return None;
        }
        let bits = counts.iter().filter(|count| **count > 0).map(|count| {
            let part = *count as f32 / all as f32;
            -part * part.log2()
        });
        Some(bits.sum())
    }
}

/// Over how many hops the packets of sources come.
#[derive(Debug, Default)]
struct Ways {
    /// Of each source, how often it was seen, and its least and most hops.
    sources: HashMap<IpAddr, (u32, u8, u8), RandomState>,
    /// Of each large network, the hops of the first of its sources.
    networks: HashMap<IpNet, u8, RandomState>,
}

impl Ways {
    fn see(&mut self, sample: &Sample) {
        let Some(hops) = sample.hops() else { return };
        self.networks
            .entry(wide_network_of(sample.source))
            .or_insert(hops);
        let (times, least, most) = self.sources.entry(sample.source).or_insert((0, hops, hops));
        *times = times.saturating_add(1);
        *least = hops.min(*least);
        *most = hops.max(*most);
    }

    fn sum_up(&self, traits: &mut Traits) {
        let repeaters = self.sources.values().filter(|(times, ..)| *times >= 2);
        let varied = repeaters
            .clone()
            .filter(|(_, least, most)| most.saturating_sub(*least) > DETOUR);
        traits.repeaters = repeaters.count();
        traits.varied = varied.count() as f32 / traits.repeaters.max(1) as f32;
        let mut counts = [0_u32; 256];
        for hops in self.networks.values() {
            if let Some(count) = counts.get_mut(usize::from(*hops)) {
                *count = count.saturating_add(1);
            }
        }
        traits.far_networks = self.networks.len();
        let all = traits.far_networks.max(1) as f32;
        let squares: f32 = counts.iter().map(|n| (*n as f32 / all).powi(2)).sum();
        traits.distances = 1.0 / squares.max(1e-6);
    }
}

/// Whether it is what a mail server wants to know: where mail goes, or what a domain says of its mail, which is TXT
/// below a label with an underscore (RFC 6376 section 7.5, RFC 7489 section 6.1).
fn is_of_mail(sample: &Sample) -> bool {
    let underscored = || sample.labels().contains(&b'_');
    sample.qtype == MX || sample.qtype == TXT && underscored()
}

/// The /16 or /32 of an address.
fn wide_network_of(source: IpAddr) -> IpNet {
    match source {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 16).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 32).trunc().into(),
    }
}

/// The /24 or /48 of an address.
fn network_of(source: IpAddr) -> IpNet {
    match source {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 48).trunc().into(),
    }
}
