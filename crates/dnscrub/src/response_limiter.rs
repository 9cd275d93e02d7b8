//! A worker's response rate limiting: the last thing that an answer over UDP passes.
//!
//! What to do is [`dnscrub_scoring::response_limit`]'s to say; here it is done to the packet.

use std::net::IpAddr;
use std::time::Instant;

use dnscrub_forwarding::Delivery;
use dnscrub_scoring::Transport;
use dnscrub_scoring::cookies::Cookie;
use dnscrub_scoring::response_limit::{Limited, Over, Receiver, ResponseClass, Slip, State};
use dnscrub_wire::cookie::CookieOption;
use dnscrub_wire::edit;
use dnscrub_wire::{Query, Rcode};

use crate::config::runtime::Reloadable;
use crate::counters::WorkerCounters;
use crate::data_path::{Denying, answer_to, answer_to_malformed};
use crate::outcome::{Answer, LimitResult, Outcome, Reason};

/// What a worker remembers of the answers it has sent, and what time it is for cookies.
pub(crate) struct ResponseLimiter {
    state: State,
    seed: [u64; 4],
    began: Instant,
    /// Seconds since 1970.
    unix_now: u32,
}

/// What it takes to send an answer.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) policy: &'a Reloadable,
    pub(crate) counters: &'a WorkerCounters,
    pub(crate) now: Instant,
}

/// A query's outcome, and the length of the answer that stands in the buffer, if it gets one.
pub(crate) type Concluded = (Outcome, Option<usize>);

impl ResponseLimiter {
    pub(crate) fn new(policy: &Reloadable, seed: [u64; 4], now: Instant) -> Self {
        Self {
            state: policy.response_limit.state(seed),
            seed,
            began: now,
            unix_now: 0,
        }
    }

    /// Goes over to another policy; what is remembered stays where it fits.
    pub(crate) fn adopt(&mut self, policy: &Reloadable) {
        if !policy.response_limit.fits(&self.state) {
            self.state = policy.response_limit.state(self.seed);
        }
    }

    /// Octets of its memory.
    pub(crate) fn octets(&self) -> usize {
        self.state.octets()
    }

    pub(crate) const fn set_unix_time(&mut self, seconds: u32) {
        self.unix_now = seconds;
    }

    /// What the cookie of a query says about its source.
    pub(crate) fn cookie(
        &self,
        policy: &Reloadable,
        query: &Query,
        packet: &[u8],
        source: IpAddr,
    ) -> Cookie {
        policy.cookies.check(query, packet, source, self.unix_now)
    }

    /// Makes the answer of ours that `outcome` asks for of the query in the first `len` octets of
    /// `buffer`, or what is left of it over its limit. `to` need not know about cookies.
    pub(crate) fn conclude(
        &mut self,
        here: Circumstances<'_>,
        buffer: &mut [u8],
        len: usize,
        outcome: Outcome,
        to: Receiver,
    ) -> Concluded {
        let Circumstances {
            policy,
            counters,
            now,
        } = here;
        let Outcome::Answered(answer, reason) = outcome else {
            return (outcome, None);
        };
        let packet = buffer.get(..len).unwrap_or_default();
        let query = Query::parse(packet);
        let cookie = query.as_ref().map_or(Cookie::None, |query| {
            self.cookie(policy, query, packet, to.address)
        });
        let limited = match class_of(answer) {
            None => Limited::Send,
            Some(class) => {
                let to = Receiver {
                    verified: to.verified || cookie == Cookie::Valid,
                    ..to
                };
                let now = self.nanos(now);
                policy
                    .response_limit
                    .account_own(&mut self.state, to, class, now)
            }
        };
        match (withheld(limited, counters), query) {
            (None, Ok(query)) => {
                let zones = Denying {
                    zones: &policy.zones,
                    now,
                    transport: Transport::Udp,
                };
                let len = answer_to(zones, buffer, &query, answer, reason);
                (outcome, Some(len))
            }
            (None, Err(_)) => match answer_to_malformed(buffer, len) {
                Some(len) => (outcome, Some(len)),
                None => (outcome, None),
            },
            (Some((over, true)), Ok(query)) => {
                match policy
                    .response_limit
                    .slip(cookie, policy.cookies.are_shared())
                {
                    Slip::BadCookie => self.bad_cookie(here, buffer, &query, over, to),
                    Slip::Truncate => {
                        let len = edit::answer(buffer, &query, Rcode::NOERROR, true, None);
                        slipped(counters, over, Answer::Truncated, len)
                    }
                }
            }
            // what could not be read cannot be asked again over TCP
            (Some((over, _)), _) => dropped(counters, over),
        }
    }

    /// The upstream's answer in the first `len` octets of `buffer`, or what is left of it over its
    /// limit. `asked` is the query as far as it was kept.
    pub(crate) fn deliver(
        &mut self,
        here: Circumstances<'_>,
        buffer: &mut [u8],
        len: usize,
        delivery: &Delivery,
        asked: &[u8],
    ) -> Concluded {
        let Circumstances {
            policy,
            counters,
            now,
        } = here;
        let to = Receiver {
            address: delivery.client.address.ip(),
            verified: delivery.client.verified,
        };
        let now = self.nanos(now);
        let limited = policy.response_limit.account_response(
            &mut self.state,
            to,
            &delivery.response,
            buffer.get(..len).unwrap_or_default(),
            now,
        );
        let Some((over, slip)) = withheld(limited, counters) else {
            return (Outcome::Forwarded, Some(len));
        };
        if !slip {
            return dropped(counters, over);
        }
        // a query of which not all was kept has lost its cookie
        let query = Query::parse(asked);
        let cookie = query.as_ref().map_or(Cookie::None, |query| {
            self.cookie(policy, query, asked, to.address)
        });
        let slip = policy
            .response_limit
            .slip(cookie, policy.cookies.are_shared());
        if let (Slip::BadCookie, Ok(query), Some(room)) =
            (slip, &query, buffer.get_mut(..asked.len()))
        {
            room.copy_from_slice(asked);
            edit::set_id(room, delivery.client.id);
            return self.bad_cookie(here, buffer, query, over, to);
        }
        let len = edit::truncate_response(buffer, &delivery.response);
        slipped(counters, over, Answer::Truncated, len)
    }

    /// Makes BADCOOKIE of the query in `buffer`, with a fresh cookie.
    fn bad_cookie(
        &self,
        here: Circumstances<'_>,
        buffer: &mut [u8],
        query: &Query,
        over: Over,
        to: Receiver,
    ) -> Concluded {
        let client = match CookieOption::of(query, buffer) {
            Some(Ok(cookie)) => cookie.client,
            // no length that a cookie can have
            Some(Err(_)) | None => return dropped(here.counters, over),
        };
        let cookie = here.policy.cookies.make(client, to.address, self.unix_now);
        let len = edit::bad_cookie(buffer, query, &cookie);
        slipped(here.counters, over, Answer::BadCookie, len)
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The limit that an answer is over and whether it is to be slipped; nothing if it is to be sent.
fn withheld(limited: Limited, counters: &WorkerCounters) -> Option<(Over, bool)> {
    match limited {
        Limited::Send => None,
        Limited::Observed(over) => {
            counters.response_limited(over, LimitResult::Observed);
            None
        }
        Limited::Drop(over) => Some((over, false)),
        Limited::Slip(over) => Some((over, true)),
    }
}

fn dropped(counters: &WorkerCounters, over: Over) -> Concluded {
    counters.response_limited(over, LimitResult::Dropped);
    (Outcome::Dropped(Reason::ResponseLimit), None)
}

/// `len` is 0 where no answer could be made.
fn slipped(counters: &WorkerCounters, over: Over, answer: Answer, len: usize) -> Concluded {
    if len == 0 {
        return dropped(counters, over);
    }
    let result = match answer {
        Answer::BadCookie => LimitResult::BadCookie,
        _ => LimitResult::Truncated,
    };
    counters.response_limited(over, result);
    let outcome = Outcome::Answered(answer, Reason::ResponseLimit);
    (outcome, Some(len))
}

/// The class that an answer of ours is limited in. Those with TC=1 and BADCOOKIE are what a limited
/// one would become, and never larger than what was asked but for the cookie.
const fn class_of(answer: Answer) -> Option<ResponseClass> {
    match answer {
        Answer::NxDomain => Some(ResponseClass::NxDomain),
        Answer::FormErr | Answer::ServFail | Answer::NotImp | Answer::Refused => {
            Some(ResponseClass::Error)
        }
        Answer::Truncated | Answer::BadCookie => None,
    }
}
