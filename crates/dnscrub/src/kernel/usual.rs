//! How much sources usually send, so that a limit does not cut them; and who proved its address lately.
//!
//! Counted from the detector's sample, for each source and network that has a limit, in periods of half a
//! minute. A period counts if it was calm and the next one was as well: the first seconds of an attack are not to become
//! usual.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dnscrub_detection::Window;
use dnscrub_xdp::{Pace, prefix_of};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::settings::{LevelLimit, Settings};

/// Seconds of a period.
const PERIOD: f32 = 30.0;
/// Seconds of calm after which enough is known.
const ENOUGH: f32 = 60.0;
/// Seconds in which a higher rate is forgotten: three days, so that a weekend is not enough for it.
const FORGETS_IN: f32 = 3.0 * 86_400.0;
/// Prefixes whose rate is known, at most: the busiest.
const MOST: usize = 4096;
/// Prefixes counted in a period, at most.
const MOST_COUNTED: usize = 8192;
/// Queries a second that are not worth to be remembered.
const LEAST: f32 = 1.0;
/// Sources known to have proved their address, at most; further ones have the limit of everybody.
const MOST_PROVEN: usize = 4096;
/// Seconds for which that counts.
const PROVEN_FOR: f64 = 300.0;

/// What is usual. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usual {
    /// Queries a second over UDP: the highest rate of a calm period lately.
    rates: BTreeMap<IpNet, f32>,
    /// Seconds of calm that they are known from.
    seconds: f32,
    #[serde(skip)]
    period: Period,
    /// The period before, which counts if this one turns out to be calm.
    #[serde(skip)]
    waiting: Option<Period>,
    /// Sources that proved their address, and until when that counts.
    #[serde(skip)]
    proven: BTreeMap<IpAddr, f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Period {
    counts: BTreeMap<IpNet, f32>,
    seconds: f32,
    /// All that was counted.
    weight: f32,
}

impl Period {
    /// Where there is no room, those that are below twice the mean share give way: who is busy stays, with at
    /// most that much missing.
    fn count(&mut self, prefix: IpNet, weight: f32) {
        self.weight += weight;
        if self.counts.len() >= MOST_COUNTED && !self.counts.contains_key(&prefix) {
            let share = 2.0 * self.weight / MOST_COUNTED as f32;
            self.counts.retain(|_, count| *count > share);
        }
        *self.counts.entry(prefix).or_default() += weight;
    }
}

impl Usual {
    /// A second's sample.
    pub fn observe(&mut self, window: &Window, settings: &Settings, now: f64) {
        self.proven.retain(|_, until| *until > now);
        for sample in &window.samples {
            let source = sample.source.to_canonical();
            if sample.verified
                && (self.proven.len() < MOST_PROVEN || self.proven.contains_key(&source))
            {
                self.proven.insert(source, now + PROVEN_FOR);
            }
            if !sample.tcp {
                self.count(source, sample.weight as f32, settings);
            }
        }
        self.pass(window.seconds);
    }

    fn count(&mut self, source: IpAddr, weight: f32, settings: &Settings) {
        for length in settings.lengths(source) {
            if let Some(prefix) = prefix_of(source, length) {
                self.period.count(prefix, weight);
            }
        }
    }

    /// So many seconds are over.
    fn pass(&mut self, seconds: f32) {
        self.period.seconds += seconds;
        if self.period.seconds < PERIOD {
            return;
        }
        let over = std::mem::take(&mut self.period);
        if let Some(calm) = self.waiting.replace(over) {
            self.settle(&calm);
        }
    }

    /// A period was calm, and so was the one after it.
    fn settle(&mut self, calm: &Period) {
        self.seconds = (self.seconds + calm.seconds).min(FORGETS_IN);
        let kept = (1.0 - calm.seconds / FORGETS_IN).max(0.0);
        for rate in self.rates.values_mut() {
            *rate *= kept;
        }
        for (&prefix, count) in &calm.counts {
            let rate = self.rates.entry(prefix).or_default();
            *rate = rate.max(count / calm.seconds);
        }
        self.rates.retain(|_, rate| *rate >= LEAST);
        if self.rates.len() > MOST {
            let mut rates: Vec<f32> = self.rates.values().copied().collect();
            rates.sort_unstable_by(|a, b| b.total_cmp(a));
            let least = rates.get(MOST).copied().unwrap_or_default();
            self.rates.retain(|_, rate| *rate > least);
        }
    }

    /// Something is wrong: the last minute may have been part of it.
    pub fn disturbed(&mut self) {
        self.period = Period::default();
        self.waiting = None;
    }

    /// Whether there was enough calm to know who usually sends much.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.seconds >= ENOUGH
    }

    /// Who may send more than the limit says: whoever usually sends much, and single sources that proved their
    /// address.
    #[must_use]
    pub fn allowances(&self, at: &LevelLimit) -> BTreeMap<IpNet, Pace> {
        let mut allowances = BTreeMap::new();
        for (&prefix, &rate) in &self.rates {
            let steps = at.limit.steps(prefix.addr()).iter();
            let own = steps.filter(|(length, _)| *length == prefix.prefix_len());
            for &(_, pace) in own {
                let raised = pace.at_least(f64::from(rate) * at.factor);
                if raised != pace {
                    allowances.insert(prefix, raised);
                }
            }
        }
        for &source in self.proven.keys() {
            let Some(&(length, pace)) = at.limit.steps(source).first() else {
                continue;
            };
            let proven = pace.per_second() * at.factor;
            if let Some(prefix) = prefix_of(source, length) {
                let known = allowances.entry(prefix).or_insert(pace);
                *known = known.at_least(proven);
            }
        }
        allowances
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dnscrub_xdp::Limit;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(events: u32) -> Pace {
        Pace::new(events, SECOND, SECOND)
    }

    fn settings() -> Settings {
        Settings {
            attack: Some(LevelLimit {
                limit: Limit {
                    v4: vec![(32, pace(200)), (24, pace(2000))],
                    v6: vec![(64, pace(200))],
                },
                factor: 4.0,
                words: String::new(),
            }),
            ..Settings::default()
        }
    }

    /// So many seconds in which these sources send so many queries each.
    fn send(usual: &mut Usual, seconds: u32, sources: &[(&str, f32)]) {
        let settings = settings();
        for _ in 0..seconds {
            for (source, queries) in sources {
                usual.count(source.parse().unwrap(), *queries, &settings);
            }
            usual.pass(1.0);
        }
    }

    fn allowed(usual: &Usual) -> Vec<(String, f64)> {
        let all = usual.allowances(settings().attack.as_ref().unwrap());
        let pairs = all
            .into_iter()
            .map(|(prefix, pace)| (prefix.to_string(), pace.per_second().round()));
        pairs.collect()
    }

    #[test]
    fn who_usually_sends_much_may_send_a_multiple_of_it() {
        let mut usual = Usual::default();
        let calm = [
            ("192.0.2.1", 500.0),
            ("192.0.2.2", 40.0),
            ("2001:db8::1", 60.0),
            ("2001:db8::2", 30.0),
        ];
        send(&mut usual, 60, &calm);
        assert!(
            !usual.is_known() && usual.rates.len() == 4,
            "one period is settled"
        );
        send(&mut usual, 30, &calm);
        assert!(usual.is_known());
        let expected = [
            ("192.0.2.0/24".to_owned(), 2160.0),
            ("192.0.2.1/32".to_owned(), 2000.0),
            ("2001:db8::/64".to_owned(), 360.0),
        ];
        assert_eq!(allowed(&usual), expected);
        // an alert may have other lengths
        let at = LevelLimit {
            limit: Limit {
                v4: vec![(16, pace(1))],
                v6: Vec::new(),
            },
            factor: 4.0,
            words: String::new(),
        };
        assert!(usual.allowances(&at).is_empty());
    }

    #[test]
    fn the_beginning_of_an_attack_does_not_become_usual() {
        let mut usual = Usual::default();
        send(&mut usual, 90, &[("192.0.2.1", 100.0)]);
        let before = usual.rates.clone();
        send(&mut usual, 30, &[("192.0.2.66", 90_000.0)]);
        send(&mut usual, 20, &[("192.0.2.66", 90_000.0)]);
        usual.disturbed();
        send(&mut usual, 59, &[("192.0.2.1", 100.0)]);
        assert_eq!(
            usual.rates.keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
        usual.disturbed();
        send(&mut usual, 300, &[]);
        assert!(usual.is_known());
        assert!(
            allowed(&usual)
                .iter()
                .all(|(prefix, _)| prefix != "192.0.2.66/32")
        );
    }

    #[test]
    fn a_rate_is_forgotten_within_days() {
        let mut usual = Usual::default();
        send(&mut usual, 90, &[("192.0.2.1", 500.0)]);
        let day = |usual: &mut Usual| {
            for _ in 0..86_400 / 30 {
                usual.pass(30.0);
            }
            allowed(usual)
        };
        let two = {
            day(&mut usual);
            day(&mut usual)
        };
        assert!(
            two.iter()
                .any(|(prefix, rate)| prefix == "192.0.2.1/32" && *rate > 900.0),
            "{two:?}"
        );
        for _ in 0..14 {
            day(&mut usual);
        }
        assert!(allowed(&usual).is_empty());
        for _ in 0..14 {
            day(&mut usual);
        }
        assert!(usual.rates.is_empty());
    }

    #[test]
    fn a_crowd_does_not_push_out_who_is_busy() {
        let mut usual = Usual::default();
        let settings = settings();
        for second in 0..90_u32 {
            usual.count("198.51.100.1".parse().unwrap(), 500.0, &settings);
            for number in 0..2_000_u32 {
                let source =
                    std::net::Ipv4Addr::from(0x0a00_0000 + (second * 2_000 + number) * 256);
                usual.count(source.into(), 10.0, &settings);
            }
            usual.pass(1.0);
            assert!(usual.period.counts.len() <= MOST_COUNTED);
        }
        assert!(usual.rates.len() <= MOST);
        let allowed = allowed(&usual);
        let busy = allowed
            .iter()
            .find(|(prefix, _)| prefix == "198.51.100.1/32");
        assert!(busy.is_some_and(|(_, rate)| *rate > 1900.0), "{allowed:?}");
    }

    #[test]
    fn who_proved_its_address_may_send_a_multiple_of_the_limit() {
        let mut usual = Usual::default();
        usual.proven.insert("192.0.2.7".parse().unwrap(), 400.0);
        usual.proven.insert("2001:db8::7".parse().unwrap(), 500.0);
        let expected = [
            ("192.0.2.7/32".to_owned(), 800.0),
            ("2001:db8::/64".to_owned(), 800.0),
        ];
        assert_eq!(allowed(&usual), expected);
        let empty = Window::empty(std::time::Instant::now(), 1.0);
        usual.observe(&empty, &settings(), 450.0);
        assert_eq!(allowed(&usual).len(), 1, "it counts for a while only");
    }

    #[test]
    fn it_is_kept_as_json() {
        let mut usual = Usual::default();
        send(&mut usual, 90, &[("192.0.2.1", 500.0)]);
        usual.disturbed();
        let text = serde_json::to_string(&usual).unwrap();
        assert_eq!(serde_json::from_str::<Usual>(&text).unwrap(), usual);
    }
}
