//! Limits, without the kernel.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Prefix lengths with a limit, of each family.
pub const MOST_STEPS: usize = 4;

/// A token bucket, written as times: one packet each interval, and as many at once as the burst holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Nanoseconds between two packets; above 0.
    pub(crate) interval: u64,
    /// How many nanoseconds' worth of packets may come at once; at least one packet.
    pub(crate) burst: u64,
}

impl Pace {
    /// `events` packets in `per`, and at once what comes in `burst`, at least one. More than 10⁹ a second are as good as
    /// no limit.
    #[must_use]
    pub fn new(events: u32, per: Duration, burst: Duration) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        let interval = (nanos(per) / u64::from(events.max(1))).clamp(1, u64::MAX / 4);
        Self {
            interval,
            burst: nanos(burst).clamp(interval, u64::MAX / 4),
        }
    }

    /// At least so many packets a second, with the same burst in time.
    #[must_use]
    pub fn at_least(self, per_second: f64) -> Self {
        let interval = 1e9 / per_second.max(1e-3);
        // a cast saturates
        let interval = self.interval.min((interval as u64).max(1));
        Self { interval, ..self }
    }

    /// Packets a second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        1e9 / self.interval as f64
    }
}

/// Limits by prefix length, the longest first; at most [`MOST_STEPS`] of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Of IPv4.
    pub v4: Vec<(u8, Pace)>,
    /// Of IPv6.
    pub v6: Vec<(u8, Pace)>,
}

impl Limit {
    /// The lengths of an address's family.
    #[must_use]
    pub fn steps(&self, address: IpAddr) -> &[(u8, Pace)] {
        match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }

    /// The lowest rate of the longest prefixes, in packets a second; nothing where there are none.
    #[must_use]
    pub fn least(&self) -> Option<f64> {
        let first = [self.v4.first(), self.v6.first()];
        let rates = first
            .into_iter()
            .flatten()
            .map(|(_, pace)| pace.per_second());
        rates.min_by(f64::total_cmp)
    }
}

/// The prefix of this length around an address, which may be written as an IPv4-mapped one.
#[must_use]
pub fn prefix_of(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address.to_canonical(), length)
        .ok()
        .map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pace_holds_at_least_one_packet() {
        let pace = Pace::new(200, SECOND, SECOND);
        assert_eq!((pace.interval, pace.burst), (5_000_000, 1_000_000_000));
        let slow = Pace::new(1, Duration::from_secs(60), SECOND);
        assert_eq!(slow.burst, slow.interval);
        let fast = Pace::new(u32::MAX, Duration::from_nanos(1), Duration::ZERO);
        assert_eq!((fast.interval, fast.burst), (1, 1));
        let endless = Pace::new(0, Duration::MAX, Duration::MAX);
        assert!(endless.interval <= u64::MAX / 4 && endless.burst <= u64::MAX / 4);
    }

    #[test]
    fn a_pace_is_raised_and_never_lowered() {
        let pace = Pace::new(200, SECOND, SECOND);
        assert_eq!(pace.at_least(2000.0), Pace::new(2000, SECOND, SECOND));
        assert_eq!(pace.at_least(10.0), pace);
        assert_eq!(pace.at_least(0.0), pace);
        assert_eq!(pace.at_least(f64::INFINITY).interval, 1);
    }

    #[test]
    fn the_least_rate_is_that_of_single_sources() {
        let pace = |events| Pace::new(events, SECOND, SECOND);
        let limit = Limit {
            v4: vec![(32, pace(200)), (24, pace(50))],
            v6: vec![(64, pace(100))],
        };
        assert_eq!(limit.least(), Some(100.0));
        assert_eq!(Limit::default().least(), None);
    }

    #[test]
    fn prefixes_are_those_of_the_canonical_address() {
        let of = |address: &str, length| {
            prefix_of(address.parse().unwrap(), length).map(|it| it.to_string())
        };
        assert_eq!(of("192.0.2.77", 24).as_deref(), Some("192.0.2.0/24"));
        assert_eq!(
            of("::ffff:192.0.2.77", 32).as_deref(),
            Some("192.0.2.77/32")
        );
        assert_eq!(
            of("2001:db8:1:2::3", 48).as_deref(),
            Some("2001:db8:1::/48")
        );
        assert_eq!(of("192.0.2.77", 33), None);
    }
}
