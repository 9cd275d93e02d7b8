//! The connections of one worker's clients: how many from where, and which has been idle longest.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use ahash::RandomState;

use super::client::Client;

/// Connections are limited by the same prefixes that sources are steered to workers by, so that one
/// worker sees all of a prefix: IPv4 /24, IPv6 /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prefix(u64);

impl Prefix {
    /// The prefix an address is in.
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // no IPv6 prefix has this bit
            IpAddr::V4(v4) => 1 << 63 | u64::from(v4.to_bits() >> 8),
            IpAddr::V6(v6) => (v6.to_bits() >> 80) as u64,
        })
    }
}

/// The table of connections. It grows with their number, which the limits bound.
#[derive(Debug)]
pub(super) struct Clients {
    rows: Vec<Row>,
    free: Vec<u32>,
    prefixes: HashMap<Prefix, u32, RandomState>,
    /// Connections in the order in which they became idle, with those in between that are no longer.
    idle: VecDeque<(u32, u64)>,
    next_stamp: u64,
}

#[derive(Debug)]
struct Row {
    client: Option<Rc<Client>>,
    /// When its limits are to be looked at next.
    look_at: Instant,
}

impl Clients {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            prefixes: HashMap::with_hasher(RandomState::new()),
            idle: VecDeque::new(),
            next_stamp: 1,
        }
    }

    /// Connections open.
    pub(super) const fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Connections from a prefix.
    pub(super) fn of_prefix(&self, prefix: Prefix) -> usize {
        self.prefixes
            .get(&prefix)
            .map_or(0, |&count| count as usize)
    }

    /// Takes in a connection, which is idle as yet.
    pub(super) fn insert(&mut self, client: &Rc<Client>, look_at: Instant) {
        let row = Row {
            client: Some(Rc::clone(client)),
            look_at,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(free) = self.rows.get_mut(number as usize) {
                    *free = row;
                }
                number
            }
            None => {
                self.rows.push(row);
                self.rows.len() as u32 - 1
            }
        };
        client.row.set(number);
        *self.prefixes.entry(client.prefix).or_default() += 1;
        self.is_idle(client);
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, client: &Client) {
        let Some(row) = self.rows.get_mut(client.row.get() as usize) else {
            return;
        };
        if row.client.take().is_none() {
            return;
        }
        self.free.push(client.row.get());
        if let Some(count) = self.prefixes.get_mut(&client.prefix) {
            *count -= 1;
            if *count == 0 {
                self.prefixes.remove(&client.prefix);
            }
        }
    }

    /// The connection has no query in flight any more.
    pub(super) fn is_idle(&mut self, client: &Client) {
        if self.idle.len() > 2 * self.len() + 64 {
            let rows = &self.rows;
            self.idle
                .retain(|&(row, stamp)| idle_client(rows, row, stamp).is_some());
        }
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        client.idle_stamp.set(stamp);
        self.idle.push_back((client.row.get(), stamp));
    }

    /// The connection that has been without a query in flight for longest.
    pub(super) fn longest_idle(&mut self) -> Option<Rc<Client>> {
        while let Some(&(row, stamp)) = self.idle.front() {
            if let Some(client) = idle_client(&self.rows, row, stamp) {
                return Some(Rc::clone(client));
            }
            self.idle.pop_front();
        }
        None
    }

    /// The connections whose limits are to be looked at; their next time is `again`.
    pub(super) fn due(&mut self, now: Instant, again: Instant, due: &mut Vec<Rc<Client>>) {
        for row in &mut self.rows {
            if row.look_at <= now
                && let Some(client) = &row.client
            {
                due.push(Rc::clone(client));
                row.look_at = again;
            }
        }
    }
}

/// The client in a row, if it has been idle since it got that stamp.
fn idle_client(rows: &[Row], row: u32, stamp: u64) -> Option<&Rc<Client>> {
    let client = rows.get(row as usize)?.client.as_ref()?;
    (client.idle_stamp.get() == stamp).then_some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_those_of_steering() {
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.255"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.9"));
        assert_eq!(prefix("2001:db8:1::1"), prefix("2001:db8:1:ffff::2"));
        assert_ne!(prefix("2001:db8:1::1"), prefix("2001:db8:2::1"));
        assert_ne!(prefix("0.0.0.1"), prefix("::1"));
    }
}
