//! What people read of an incident.

use std::sync::Arc;

use crate::diagnosis::Finding;
use crate::incident::{Fault, Sources, Spoofed, UpstreamPart};
use crate::kind::Kind;

/// A number as people write it: three digits that count, thousands parted.
pub(crate) fn number(value: f32) -> String {
    let value = value.max(0.0);
    if value < 10.0 {
        let text = format!("{value:.1}");
        return text.strip_suffix(".0").map_or(text.clone(), str::to_owned);
    }
    let digits = value.log10().floor() as i32;
    let unit = 10.0_f32.powi(digits.saturating_sub(2).max(0));
    let plain = format!(
        "{:.0}",
        (f64::from((value / unit).round()) * f64::from(unit)).round()
    );
    let mut text = String::new();
    for (place, digit) in plain.chars().enumerate() {
        if place > 0 && plain.len().saturating_sub(place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn percent(share: f32) -> String {
    format!("{:.0} %", (share * 100.0).clamp(0.0, 100.0))
}

/// `on a`, `on a and b`, `on 12 zones, first of all a and b`, or nothing.
pub(crate) fn on_zones(zones: &[Arc<str>]) -> String {
    match zones {
        [] => String::new(),
        [one] => format!(" on {one}"),
        [one, two] => format!(" on {one} and {two}"),
        [one, two, ..] => format!(" on {} zones, first of all {one} and {two}", zones.len()),
    }
}

/// Servers told of by name in a sentence.
const NAMED: usize = 3;

/// Which servers fail and how, if that is known: `ns1 (192.0.2.1:53, pool main), which leaves 90 % of its queries
/// unanswered, and 2 more`. `more`: as many are not in `parts`.
fn servers(parts: &[UpstreamPart], more: usize) -> Option<String> {
    let named = parts.iter().take(NAMED).map(|part| {
        let UpstreamPart {
            name,
            address,
            pool,
            fault,
            value,
        } = part;
        let address = address.to_string();
        let server = if *name == address {
            format!("{address} (pool {pool})")
        } else {
            format!("{name} ({address}, pool {pool})")
        };
        let fault = match fault {
            Fault::NoAnswer => {
                format!("which leaves {} of its queries unanswered", percent(*value))
            }
            Fault::Down => "which fails its health checks".to_owned(),
            Fault::Servfail => format!("which answers {} with SERVFAIL", percent(*value)),
            Fault::Slow => format!("which takes {:.0} ms to answer", value * 1e3),
        };
        format!("{server}, {fault}")
    });
    let mut named: Vec<String> = named.collect();
    let more = parts.len().saturating_sub(named.len()).saturating_add(more);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let last = named.pop()?;
    Some(if named.is_empty() {
        last
    } else {
        format!("{}, and {last}", named.join(", "))
    })
}

/// Whether the addresses look forged, and why. `early`: nobody had the time to come back yet.
pub(crate) fn forged(kind: Kind, finding: &Finding, early: bool) -> (Spoofed, String) {
    let traits = &finding.traits;
    let (likely, why) = match kind {
        Kind::SpoofedResolvers => (
            Spoofed::Likely,
            "Packets in the names of these addresses come over another number of hops than those addresses' own packets.".to_owned(),
        ),
        Kind::Reflection => (
            Spoofed::Likely,
            "Who asks for large answers without a proof of address wants them sent to somebody else: these are the victims.".to_owned(),
        ),
        Kind::SpoofedCarpet if traits.is_varied() => (
            Spoofed::Likely,
            "Packets in the names of the same addresses come over ever different numbers of hops.".to_owned(),
        ),
        Kind::SpoofedCarpet if traits.is_forged() => (
            Spoofed::Likely,
            "Addresses in many different networks are all about as many hops away.".to_owned(),
        ),
        Kind::SpoofedCarpet => (
            Spoofed::Likely,
            "Hardly any address asks more than once or twice, and hardly any was seen before.".to_owned(),
        ),
        Kind::RandomSubdomains | Kind::Pulse if traits.strangers >= 0.7 && traits.returning < 0.3 && !early => (
            Spoofed::Likely,
            format!(
                "{} of these queries come from addresses that never asked before and do not come back.",
                percent(traits.strangers)
            ),
        ),
        Kind::RandomSubdomains | Kind::Pulse if traits.strangers <= 0.3 => (
            Spoofed::Unlikely,
            "They come from resolvers that are known here, over the usual paths: somebody asks through them.".to_owned(),
        ),
        Kind::RandomSubdomains | Kind::Pulse if early => (
            Spoofed::Unclear,
            "It is too early to say whether they come back.".to_owned(),
        ),
        Kind::RandomSubdomains | Kind::Pulse => (
            Spoofed::Unclear,
            format!(
                "{} of these queries come from addresses that never asked before; some of these come back. They may be their senders' own, or forged ones of a small number.",
                percent(traits.strangers)
            ),
        ),
        Kind::DirectFlood | Kind::QueryLoop => (
            Spoofed::Unlikely,
            "The same addresses come back again and again.".to_owned(),
        ),
        Kind::FlashCrowd => (
            Spoofed::Unlikely,
            "They are resolvers that are known here, in their usual proportions.".to_owned(),
        ),
        Kind::TcpExhaustion => (
            Spoofed::Unlikely,
            "A TCP connection proves its address.".to_owned(),
        ),
        _ => (Spoofed::Unclear, String::new()),
    };
    (likely, why)
}

/// What is needed for a sentence.
pub(crate) struct Told<'a> {
    pub(crate) kind: Kind,
    pub(crate) pulsing: bool,
    pub(crate) finding: &'a Finding,
    pub(crate) zones: &'a [Arc<str>],
    /// Queries a second now of the zones or the whole, and what is usual.
    pub(crate) rate: f32,
    pub(crate) usual: f32,
    pub(crate) sources: &'a Sources,
    /// Of the whole, now and usually: SERVFAIL share, loss, latency.
    pub(crate) trouble: [(f32, f32); 3],
    /// The name servers that fail, and how many more.
    pub(crate) upstreams: (&'a [UpstreamPart], usize),
}

/// What is going on, in a sentence or two.
pub(crate) fn sentence(told: &Told<'_>) -> String {
    let Told {
        kind,
        pulsing,
        finding,
        zones,
        rate,
        usual,
        sources,
        trouble,
        upstreams,
    } = told;
    let title = if *pulsing {
        format!("pulsing {}", kind.title())
    } else {
        kind.title().to_owned()
    };
    let mut title = title.chars();
    let first = title.next().map(|letter| letter.to_ascii_uppercase());
    let title: String = first.into_iter().chain(title).collect();
    let place = on_zones(zones);
    let rates = format!(
        "{} queries a second, usually {}",
        number(*rate),
        number(*usual)
    );
    let excess = number(finding.excess);
    // the two were highest at different times
    let of_them = number(finding.excess.min(*rate));
    let strangers = percent(finding.traits.strangers);
    let forged = match sources.spoofed {
        Spoofed::Likely => ", which are probably forged",
        Spoofed::Unlikely | Spoofed::Unclear => "",
    };
    match kind {
        Kind::RandomSubdomains | Kind::Pulse => {
            let from = if finding.traits.strangers >= 0.3 {
                format!("{strangers} from addresses never seen before{forged}")
            } else {
                format!(
                    "{} from resolvers that are known here",
                    percent(1.0 - finding.traits.strangers)
                )
            };
            format!(
                "{title}{place}: {rates}; {of_them} of them for names that nobody asked for before and that do not exist by themselves, {from}."
            )
        }
        Kind::DirectFlood => format!(
            "{title}{place}: {rates}; {of_them} a second come from addresses that ask again and again, far more than resolvers do."
        ),
        Kind::Reflection => format!(
            "{title}{place}: {excess} queries a second for large answers, in the names of addresses that probably never asked; the answers would go to them."
        ),
        Kind::SpoofedCarpet if finding.traits.is_forged() => format!(
            "{title}{place}: {rates}; {of_them} a second for names that exist, from addresses never seen before whose packets come over the paths of others: probably forged."
        ),
        Kind::SpoofedCarpet => format!(
            "{title}{place}: {rates}; {of_them} a second come from addresses never seen before that ask once or twice each for names that exist, and are probably forged."
        ),
        Kind::SpoofedResolvers => format!(
            "{title}{place}: {excess} queries a second in the names of resolvers, over other paths than theirs: probably forged."
        ),
        Kind::TcpExhaustion => {
            format!("{title}: {excess} connections or zone transfers a second more than usual.")
        }
        Kind::MalformedFlood => {
            format!("{title}: {excess} packets a second that are no well-formed queries.")
        }
        Kind::QueryLoop => format!(
            "{title}{place}: {excess} queries a second more than usual from a few known resolvers that repeat the same questions; perhaps they do not get, or do not take, their answers."
        ),
        Kind::FlashCrowd => format!(
            "{title}{place}: {rates}, from resolvers that are known here and for few names that exist: many people want the same thing. No attack."
        ),
        Kind::UpstreamFailure => {
            let [(servfail, _), (loss, _), (latency, usual_latency)] = trouble;
            let mut parts = Vec::new();
            if *servfail >= 0.1 {
                parts.push(format!("{} of answers are SERVFAIL", percent(*servfail)));
            }
            if *loss >= 0.1 {
                parts.push(format!("{} of queries get no answer", percent(*loss)));
            }
            if parts.is_empty() {
                parts.push(format!(
                    "answers take {:.0} ms, usually {:.0}",
                    latency * 1e3,
                    usual_latency * 1e3
                ));
            }
            let parts = parts.join(", and ");
            let fault = match servers(upstreams.0, upstreams.1) {
                Some(servers) => format!("at fault is {servers}, or the way there"),
                None => "the name servers behind, or the way to them, have a fault".to_owned(),
            };
            format!(
                "{title}: {parts}, while no more is asked than they can answer. No attack: {fault}."
            )
        }
    }
}
