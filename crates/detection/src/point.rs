//! A second's worth of what is plotted.

use serde::{Deserialize, Serialize};

/// What happened in a second, or in some. Rates are events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// When it began, in seconds since 1970.
    pub at: f64,
    /// How long it is, in seconds.
    pub seconds: f32,
    /// Queries that came in, malformed packets included.
    pub queries: f32,
    /// That went to an upstream and were answered.
    pub forwarded: f32,
    /// That the proxy answered.
    pub answered: f32,
    /// That were dropped.
    pub dropped: f32,
    /// That no upstream answered.
    pub expired: f32,
    /// Answered NXDOMAIN, by upstreams or the proxy.
    pub nxdomain: f32,
    /// Answered SERVFAIL.
    pub servfail: f32,
    /// Malformed packets.
    pub malformed: f32,
    /// Queries over TCP.
    pub tcp: f32,
    /// Octets of queries.
    pub octets_in: f32,
    /// Octets of answers.
    pub octets_out: f32,
    /// Distinct sources, about.
    pub sources: f32,
    /// Queries from sources never seen before.
    pub new_sources: f32,
    /// Queries for names never seen before.
    pub new_names: f32,
    /// Queries from sources known from before.
    pub known: f32,
    /// Of these, served.
    pub known_served: f32,
    /// Of these, lost: dropped, refused, or not answered in time.
    pub known_lost: f32,
    /// Median latency of the upstreams, in seconds.
    pub latency: f32,
    /// Pressure, 0 to 1: the highest of all pools and the proxy.
    pub pressure: f32,
}

impl Point {
    /// This and the next one as one.
    #[must_use]
    pub fn joined(&self, next: &Self) -> Self {
        let seconds = self.seconds + next.seconds;
        let part = if seconds > 0.0 {
            self.seconds / seconds
        } else {
            0.5
        };
        let mean = |of: fn(&Self) -> f32| of(self) * part + of(next) * (1.0 - part);
        Self {
            at: self.at,
            seconds,
            queries: mean(|p| p.queries),
            forwarded: mean(|p| p.forwarded),
            answered: mean(|p| p.answered),
            dropped: mean(|p| p.dropped),
            expired: mean(|p| p.expired),
            nxdomain: mean(|p| p.nxdomain),
            servfail: mean(|p| p.servfail),
            malformed: mean(|p| p.malformed),
            tcp: mean(|p| p.tcp),
            octets_in: mean(|p| p.octets_in),
            octets_out: mean(|p| p.octets_out),
            sources: mean(|p| p.sources),
            new_sources: mean(|p| p.new_sources),
            new_names: mean(|p| p.new_names),
            known: mean(|p| p.known),
            known_served: mean(|p| p.known_served),
            known_lost: mean(|p| p.known_lost),
            latency: mean(|p| p.latency),
            pressure: self.pressure.max(next.pressure),
        }
    }
}
