//! From what is out of the ordinary to what it is.
//!
//! Every kind has a quantity that it raises, and each query counts for one quantity at most:
//!
//! 1. *Spoofed resolvers*: known sources over odd paths.
//! 2. *Reflection*: large answers asked for without a proof of address.
//! 3. *Random subdomains*: names that are made up, by zone. Not what is mistyped, since that is what people
//!    do; not names that turn out to exist, since that is a deployment; not mail for a bit more than the
//!    usual number of missing names, since that is a mailing.
//! 4. *Direct flood* and *spoofed carpet*: strangers who ask for names that exist. They come back again and
//!    again in the first, and once or twice each in the second.
//! 5. *Query loop*, *flash crowd* and, once more, *direct flood*: known sources that ask for names that
//!    exist. Few sources with the same questions over and over; many sources with few names; few sources
//!    with many questions.
//! 6. *Malformed flood* and *TCP exhaustion*: counts of their own.
//! 7. *Upstream failure*: answers fail, or do not come, or take long. What then comes more often than usual
//!    comes because of that.

use std::sync::Arc;

use crate::asked::Standing;
use crate::detector::Scene;
use crate::kind::Kind;
use crate::picture::{Glimpse, Traits};
use crate::quantity::{
    BULKY, CONNECTIONS, KNOWN, LATENCY, LOSS, MADE_UP, MALFORMED, MIX, NXDOMAIN, ODD_HOPS, QUERIES,
    SERVFAIL, STRANGE, TRANSFERS,
};
use crate::ring::Surge;

/// Zones from which on made-up names are one attack on many zones rather than several attacks.
const MANY_ZONES: usize = 4;
/// Made-up names a second more than usual, below which nothing is said of a zone.
const LEAST_MADE_UP: f32 = 8.0;
/// Samples from which on a group says something.
const ENOUGH: usize = 8;

/// More strangers a second than usual that say something, and the part of all queries that they then are.
const STRANGERS: (f32, f32) = (40.0, 0.08);

/// Seconds more than usual that resolvers do not wait for an answer, but ask again,
const TOO_SLOW: f32 = 0.25;
/// and seconds in a row for which answers take that long in a failure of servers.
const SLOW_FOR: usize = 6;

/// Something that is going on in this second.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// The zones it is about, most concerned first; empty for the whole.
    pub(crate) zones: Vec<Arc<str>>,
    /// One attack on many zones.
    pub(crate) many: bool,
    /// The quantity that shows it,
    pub(crate) quantity: usize,
    /// and how much more than usual that is, a second.
    pub(crate) excess: f32,
    /// It shows in a single second.
    pub(crate) plain: bool,
    /// How sure the kind is, 0 to 1.
    pub(crate) confidence: f32,
    /// What its queries have in common.
    pub(crate) traits: Traits,
}

/// Which samples are of such a kind.
pub(crate) fn fits(
    kind: Kind,
    scene: &Scene<'_>,
    zones: &[Arc<str>],
    zone: &str,
    glimpse: &Glimpse,
) -> bool {
    let sample = &glimpse.sample;
    let here = || zones.is_empty() || zones.iter().any(|it| &**it == zone);
    let impersonated = scene.picture.impersonated.contains(&sample.source);
    let odd = sample.is_impersonating() || impersonated;
    match kind {
        Kind::SpoofedResolvers => odd && !sample.is_bulky(),
        Kind::Reflection => sample.is_bulky(),
        Kind::RandomSubdomains | Kind::Pulse => glimpse.made_up && !odd && here(),
        Kind::DirectFlood | Kind::SpoofedCarpet => {
            sample.is_stranger()
                && !odd
                && !sample.is_doubtful()
                && !sample.is_bulky()
                && !scene.picture.victims.are_behind(sample)
        }
        Kind::QueryLoop | Kind::FlashCrowd => {
            !sample.is_stranger()
                && !odd
                && !sample.is_bulky()
                && !scene.picture.victims.are_behind(sample)
                && sample.standing == Standing::Exists
                && here()
        }
        Kind::TcpExhaustion => sample.tcp,
        Kind::UpstreamFailure => here(),
        Kind::MalformedFlood => false,
    }
}

/// All that is going on.
pub(crate) fn diagnose(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let failing = upstream_failure(scene, 3);
    findings.extend(plain(scene, Kind::SpoofedResolvers, ODD_HOPS, (25.0, 0.03)));
    findings.extend(reflection(scene));
    // at first all are strangers
    let strange = scene.whole_surge(STRANGE, STRANGERS.0, STRANGERS.1);
    let strange = strange.filter(|_| scene.seasoned);
    random_subdomains(scene, strange, &mut findings);
    if let Some(surge) = strange {
        let found = strangers(scene, surge);
        match findings.first_mut() {
            // the addresses of resolvers that are not known yet, or not over which path they come
            Some(spoofed)
                if spoofed.kind == Kind::SpoofedResolvers
                    && found
                        .iter()
                        .all(|it| it.kind != Kind::Reflection && it.traits.is_forged()) =>
            {
                spoofed.excess += found.iter().map(|it| it.excess).sum::<f32>();
            }
            _ => findings.extend(found),
        }
    }
    // a second is enough to be careful, and what has waited comes when it is over
    let troubled = [SERVFAIL, LOSS]
        .iter()
        .any(|quantity| scene.whole_mean(*quantity, 8) >= scene.whole_usual(*quantity) + 0.05);
    if scene.settled && failing.is_none() && !troubled && upstream_failure(scene, 1).is_none() {
        acquaintances(scene, &mut findings);
    }
    findings.extend(plain(scene, Kind::MalformedFlood, MALFORMED, (20.0, 0.03)));
    findings.extend(plain(scene, Kind::TcpExhaustion, CONNECTIONS, (30.0, 0.05)));
    findings.extend(plain(scene, Kind::TcpExhaustion, TRANSFERS, (3.0, 0.0)));
    // what an attack overloads has not failed by itself
    let attacked = findings.iter().any(|finding| {
        finding.kind.is_attack() && finding.excess > 0.5 * scene.whole_usual(QUERIES)
    });
    findings.extend(failing.filter(|_| !attacked));
    findings
}

/// A kind that a count of the whole says by itself.
fn plain(
    scene: &Scene<'_>,
    kind: Kind,
    quantity: usize,
    (floor, part): (f32, f32),
) -> Option<Finding> {
    let surge = scene.whole_surge(quantity, floor, part)?;
    if is_beginning(scene, surge) {
        return None;
    }
    let traits = scene
        .picture
        .traits(|zone, glimpse| fits(kind, scene, &[], zone, glimpse));
    let zones = if kind == Kind::SpoofedResolvers {
        scene.zones_of(quantity, surge.excess)
    } else {
        Vec::new()
    };
    Some(Finding {
        kind,
        zones,
        many: true,
        quantity,
        excess: surge.excess,
        plain: surge.plain,
        confidence: if surge.plain { 0.95 } else { 0.8 },
        traits,
    })
}

/// In the first seconds only what is a good part of all says something.
fn is_beginning(scene: &Scene<'_>, surge: Surge) -> bool {
    !scene.seasoned && surge.excess < 0.3 * scene.whole_mean(QUERIES, 2)
}

fn reflection(scene: &Scene<'_>) -> Option<Finding> {
    let surge = scene.whole_surge(BULKY, 15.0, 0.02)?;
    if is_beginning(scene, surge) {
        return None;
    }
    let traits = scene
        .picture
        .traits(|zone, glimpse| fits(Kind::Reflection, scene, &[], zone, glimpse));
    // a few large answers belong to any flood that asks for all there is
    let strange = scene.whole_mean(STRANGE, 4) - scene.whole_usual(STRANGE);
    if traits.returning < 0.3 && surge.excess < 0.3 * strange {
        return None;
    }
    // after a change of keys all resolvers ask for the new ones, once each
    if traits.keys >= 0.6 && traits.returning < 0.3 && surge.excess <= scene.whole_usual(QUERIES) {
        return None;
    }
    let confidence = if traits.returning > 0.6 { 0.95 } else { 0.8 };
    Some(Finding {
        kind: Kind::Reflection,
        zones: scene.zones_of(BULKY, surge.excess),
        many: true,
        quantity: BULKY,
        excess: surge.excess,
        plain: surge.plain,
        confidence,
        traits,
    })
}

/// A zone with more made-up names than usual.
struct Candidate {
    zone: Arc<str>,
    excess: f32,
    surge: Option<Surge>,
    traits: Traits,
}

fn random_subdomains(scene: &Scene<'_>, strange: Option<Surge>, findings: &mut Vec<Finding>) {
    let mut candidates: Vec<Candidate> = scene
        .zones()
        .filter_map(|zone| candidate(scene, zone, strange))
        .collect();
    candidates.sort_unstable_by(|a, b| b.excess.total_cmp(&a.excess));
    // those that stand far above the others are attacks of their own
    while let Some(first) = candidates.first() {
        let third = candidates.get(2).map_or(0.0, |it| it.excess);
        if candidates.len() >= MANY_ZONES && third >= 0.2 * first.excess {
            break;
        }
        let first = candidates.remove(0);
        let Some(surge) = first.surge else { continue };
        findings.push(Finding {
            kind: Kind::RandomSubdomains,
            zones: vec![first.zone],
            many: false,
            quantity: MADE_UP,
            excess: first.excess,
            plain: surge.plain,
            confidence: sure_of_names(&first.traits, surge),
            traits: first.traits,
        });
    }
    let excess: f32 = candidates.iter().map(|it| it.excess).sum();
    let whole = scene.whole_surge(MADE_UP, 15.0, 0.08);
    let sure = candidates.iter().filter(|it| it.surge.is_some()).count();
    if candidates.is_empty() || (whole.is_none() && sure < MANY_ZONES) {
        return;
    }
    let zones: Vec<_> = candidates.iter().map(|it| Arc::clone(&it.zone)).collect();
    let traits = scene
        .picture
        .traits(|zone, glimpse| fits(Kind::RandomSubdomains, scene, &zones, zone, glimpse));
    if is_mailing(scene, &traits, excess) {
        return;
    }
    findings.push(Finding {
        kind: Kind::RandomSubdomains,
        zones,
        many: true,
        quantity: MADE_UP,
        excess,
        plain: whole.is_some_and(|surge| surge.plain),
        confidence: 0.9,
        traits,
    });
}

fn sure_of_names(traits: &Traits, surge: Surge) -> f32 {
    let by_names = if traits.distinct > 0.9 { 0.1 } else { 0.0 };
    if surge.plain {
        0.88 + by_names
    } else {
        0.7 + by_names
    }
}

/// Many of the missing names are asked for by mail servers' resolvers that are known, and it is not much. Few samples
/// may show fewer of them than there are.
fn is_mailing(scene: &Scene<'_>, traits: &Traits, excess: f32) -> bool {
    let by_chance = 0.5 / (traits.samples.max(1) as f32).sqrt();
    // where the zone is not known, names that turn out to exist are among them
    let least = if traits.unknown_zone > 0.5 {
        0.25
    } else {
        0.35
    };
    traits.mail > 0.0
        && traits.mail + by_chance >= least
        && traits.strangers <= 0.5
        && excess <= scene.whole_usual(QUERIES)
}

fn candidate(scene: &Scene<'_>, name: &Arc<str>, strange: Option<Surge>) -> Option<Candidate> {
    let surge = scene.zone_surge(name, MADE_UP, LEAST_MADE_UP);
    if surge.is_none() && !scene.zone_is_elevated(name, MADE_UP, 2.0) {
        return None;
    }
    let excess = scene.zone_mean(name, MADE_UP, 4) - scene.zone_usual(name, MADE_UP);
    let excess = surge.map_or(excess, |surge| surge.excess);
    let zones = [Arc::clone(name)];
    let traits = scene
        .picture
        .traits(|zone, glimpse| fits(Kind::RandomSubdomains, scene, &zones, zone, glimpse));
    // the same missing name over and over is no random one
    if traits.samples >= ENOUGH && traits.distinct < 0.3 {
        return None;
    }
    // who asks for all names there are asks for some that nobody has asked for before
    let strange = strange.map_or(0.0, |_| {
        scene.zone_mean(name, STRANGE, 4) - scene.zone_usual(name, STRANGE)
    });
    if excess < 0.3 * strange {
        return None;
    }
    // what is left of many slips of the pen
    let doubtful = scene
        .picture
        .traits(|zone, glimpse| zone == &**name && glimpse.sample.is_doubtful());
    if traits.rate < 0.5 * doubtful.rate {
        return None;
    }
    // who asks in the names of resolvers comes over the right number of hops by chance now and then
    let odd = scene.zone_mean(name, ODD_HOPS, 4) - scene.zone_usual(name, ODD_HOPS);
    if excess < 0.2 * odd {
        return None;
    }
    // a zone with a wildcard that is asked for more of everything, by as many as come from a sister server or two
    let queries = scene.zone_mean(name, QUERIES, 4);
    let usual = scene.zone_usual(name, QUERIES).max(1.0);
    let usually = scene.zone_usual(name, MADE_UP) / usual;
    if queries <= 3.0 * usual && scene.zone_mean(name, MADE_UP, 4) <= 1.5 * usually * queries {
        return None;
    }
    // at first no name was asked for before: only what makes up much of all and fails says something
    let queries = scene.zone_mean(name, QUERIES, 2);
    let failing = scene.zone_failing(name);
    if !scene.seasoned
        && (excess < 0.4 * queries || traits.unknown_zone > 0.5 && failing < 0.3 * queries)
    {
        return None;
    }
    // where the zone is not known: names that turn out to exist are a deployment, unless there are very many
    if traits.unknown_zone > 0.5 {
        let usual = scene.zone_usual(name, QUERIES).max(10.0);
        let usually = scene.zone_usual(name, NXDOMAIN) * scene.zone_usual(name, QUERIES);
        let failing = failing - usually;
        let passed = excess * traits.passed;
        if passed >= 3.0 && failing < 0.3 * passed && excess < (10.0 * usual).max(200.0) {
            return None;
        }
    }
    if is_mailing(scene, &traits, excess) {
        return None;
    }
    Some(Candidate {
        zone: Arc::clone(name),
        excess,
        surge,
        traits,
    })
}

/// What is left of an excess when what belongs to other attacks is set aside: `all` with `traits` of it left. Those
/// who are here at any time are in the rest that is left.
fn apart(excess: f32, usual: f32, traits: &Traits, all: &Traits) -> f32 {
    excess - (1.0 - traits.part_of(all)) * (excess + usual)
}

/// Strangers as resolvers are, a few of whom send most of all: for all zones as usual, and not much more than the usual
/// load. It comes here from a sister server that has failed; senders of a flood are about as busy as each other, also
/// where they are the busiest of all.
fn is_moved(scene: &Scene<'_>, surge: Surge, traits: &Traits) -> bool {
    traits.head >= 0.3
        && traits.tip >= 0.33
        && traits.busiest < 0.35
        && scene.whole_mean(MIX, 4) <= scene.whole_usual(MIX) + 0.1
        && !traits.is_forged()
        && traits.repeated < 0.2
        && surge.excess <= 1.5 * scene.whole_usual(QUERIES)
        && scene.zones_of(STRANGE, surge.excess).is_empty()
}

/// Strangers who ask for names that exist.
fn strangers(scene: &Scene<'_>, surge: Surge) -> Vec<Finding> {
    let of = |kind, confidence, excess: f32, traits| Finding {
        kind,
        zones: scene.zones_of(STRANGE, surge.excess),
        many: true,
        quantity: STRANGE,
        excess,
        plain: surge.plain,
        confidence,
        traits,
    };
    let traits = scene
        .picture
        .traits(|zone, glimpse| fits(Kind::DirectFlood, scene, &[], zone, glimpse));
    if traits.samples < ENOUGH {
        return Vec::new();
    }
    // new faces come along with a crowd of known ones, and victims of reflection are asked about otherwise
    let crowd = (scene.whole_mean(KNOWN, 4) - scene.whole_usual(KNOWN)).max(0.0);
    let all = scene.picture.traits(|_, glimpse| {
        let sample = &glimpse.sample;
        sample.is_stranger() && !sample.is_doubtful() && !sample.is_bulky()
    });
    let usual = scene.whole_usual(STRANGE);
    let mut own = apart(surge.excess, usual, &traits, &all);
    if traits.part_of(&all) < 0.95 {
        // the shares are of some seconds, in the first of which there was no other attack yet
        own = own.min(traits.rate - usual);
    }
    let excess = own - 0.6 * crowd;
    let (floor, part) = STRANGERS;
    if excess < floor.max(part * scene.whole_usual(QUERIES)) || excess < 0.3 * own {
        return Vec::new();
    }
    if is_moved(scene, surge, &traits) {
        return Vec::new();
    }
    let surge = Surge { excess, ..surge };
    if traits.text >= 0.6 && traits.returning >= 0.5 {
        return vec![of(Kind::Reflection, 0.7, surge.excess, traits)];
    }
    let returning = traits.returning * surge.excess;
    let others = surge.excess - returning;
    if traits.is_forged() {
        return vec![of(Kind::SpoofedCarpet, 0.8, surge.excess, traits)];
    }
    if traits.returning >= 0.5 || traits.each >= 4.0 {
        return vec![of(Kind::DirectFlood, 0.9, surge.excess, traits)];
    }
    let mut findings = vec![of(Kind::SpoofedCarpet, 0.85, others, traits)];
    if traits.returning >= 0.1 && returning >= 200.0 {
        findings.push(of(Kind::DirectFlood, 0.7, returning, traits));
    }
    findings
}

/// Known sources that ask for names that exist.
fn acquaintances(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for name in scene.zones() {
        let least = (0.5 * scene.zone_usual(name, KNOWN)).max(60.0);
        let Some(surge) = scene.zone_surge(name, KNOWN, least) else {
            continue;
        };
        let zones = [Arc::clone(name)];
        let traits = scene
            .picture
            .traits(|zone, glimpse| fits(Kind::FlashCrowd, scene, &zones, zone, glimpse));
        let all = scene.picture.traits(|zone, glimpse| {
            zone == &**name
                && glimpse.sample.standing == Standing::Exists
                && !glimpse.sample.is_stranger()
        });
        let own = apart(surge.excess, scene.zone_usual(name, KNOWN), &traits, &all);
        // nobody wants anything who asks in the names of others
        if traits.samples < ENOUGH || own < least || traits.is_forged() {
            continue;
        }
        let (kind, confidence) = if traits.busiest >= 0.5 && traits.repeated >= 0.5 {
            (Kind::QueryLoop, 0.85)
        } else if traits.busiest >= 0.5 && surge.excess >= 200.0 && !as_ever(scene, name, surge) {
            (Kind::DirectFlood, 0.7)
        } else if traits.few_names >= 0.4 && traits.busiest < 0.4 {
            (Kind::FlashCrowd, 0.8)
        } else {
            continue;
        };
        findings.push(Finding {
            kind,
            zones: zones.into(),
            many: false,
            quantity: KNOWN,
            excess: surge.excess,
            plain: surge.plain,
            confidence,
            traits,
        });
    }
}

/// Whether known sources ask for more of a zone as they do for all others: a large resolver whose cache was emptied asks
/// for what it always does, all of it at once.
fn as_ever(scene: &Scene<'_>, zone: &str, surge: Surge) -> bool {
    let usual = scene.zone_usual(zone, KNOWN);
    let part = usual / scene.whole_usual(KNOWN).max(1.0);
    let whole = (scene.whole_mean(KNOWN, 4) - scene.whole_usual(KNOWN)).max(surge.excess);
    surge.excess < 2.0 * part * whole && surge.excess < 3.0 * usual
}

fn upstream_failure(scene: &Scene<'_>, seconds: usize) -> Option<Finding> {
    let off = |quantity, least: f32, factor: f32| {
        let usual = scene.whole_usual(quantity);
        let now = scene.whole_mean(quantity, seconds);
        (now >= usual + least && now >= usual * factor).then_some(now)
    };
    let enough = scene.whole_mean(QUERIES, 3) >= 5.0;
    let failing = off(SERVFAIL, 0.2, 3.0).or_else(|| off(LOSS, 0.2, 3.0));
    // a busy machine is slow for a moment, and few answers say little: alone that is a failure where it goes on for longer
    // than resolvers wait; at once, where answers are missing as well
    let missing = scene.whole_mean(LOSS, seconds) >= scene.whole_usual(LOSS) + 0.02;
    let usual = scene.whole_usual(LATENCY);
    let least = scene.whole_least(LATENCY, SLOW_FOR);
    let lasting = least >= usual + TOO_SLOW && least >= 5.0 * usual;
    let slow = off(LATENCY, 0.1, 5.0).filter(|_| missing || lasting);
    failing.or(slow).filter(|_| enough)?;
    Some(Finding {
        kind: Kind::UpstreamFailure,
        zones: Vec::new(),
        many: true,
        quantity: LOSS,
        excess: 0.0,
        plain: false,
        confidence: if failing.is_some() { 0.9 } else { 0.7 },
        traits: Traits::default(),
    })
}
