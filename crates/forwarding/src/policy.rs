//! Pools as the program uses them: checked, immutable, swapped as a whole.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_wire::{Name, Rcode, qtype};

use crate::config::{self, Balancing, DEFAULT_POOL, HealthSetting, ProbeQuery, WhenNone};
use crate::pressure::{PoolLoad, PoolSnapshot};
use crate::upstream::{Epoch, Upstream, UpstreamSnapshot};

/// Most upstreams of all pools together.
pub const MAX_UPSTREAMS: usize = 1024;
/// Most times a query can be sent again.
pub const MAX_RETRIES: u8 = 3;
/// Most queries that can wait in a pool's queue.
pub const MAX_QUEUE: u32 = 32_768;
const MAX_WEIGHT: u32 = 1000;

/// All pools, in the order of their names.
#[derive(Debug)]
pub struct Policy {
    pools: Vec<Pool>,
    epoch: Epoch,
    keys: [u64; 4],
    hasher: RandomState,
}

/// One pool.
#[derive(Debug)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: String,
    /// How an upstream is chosen.
    pub balancing: Balancing,
    /// Its upstreams in their order in the configuration; at least one.
    pub members: Vec<Member>,
    /// Active checks, if it has them.
    pub health: Option<Arc<HealthPolicy>>,
    /// Upstreams that stay in use whatever the checks say.
    pub minimum_active: usize,
    /// Length of the slow start.
    pub slow_start: Duration,
    /// Time after which a query goes to another upstream.
    pub retry_after: Duration,
    /// How often a query may be sent again.
    pub retries: u8,
    /// Time after which a query is given up.
    pub patience: Duration,
    /// What a client gets when no upstream serves its query.
    pub when_none: WhenNone,
    /// Queries that can wait for room, in each worker; 0 when nothing is limited.
    pub queue_length: usize,
    /// How long they wait at most.
    pub max_wait: Duration,
    /// What the workers know of it together.
    pub(crate) load: Arc<PoolLoad>,
}

/// One upstream as a member of its pool.
#[derive(Debug)]
pub struct Member {
    /// Name in the configuration, or the address.
    pub label: String,
    /// Share of the queries, in relation to the other members.
    pub weight: u32,
    /// Most unanswered queries; the learned limit is never above it.
    pub max_outstanding: u32,
    /// Its shared state.
    pub upstream: Arc<Upstream>,
}

/// Active checks of a pool.
#[derive(Debug)]
pub struct HealthPolicy {
    /// What a probe asks for.
    pub query: ProbeQuery,
    /// Response codes that pass; nothing means every code.
    pub rcodes: Option<Vec<Rcode>>,
    /// From one probe to the next.
    pub interval: Duration,
    /// Time an answer may take.
    pub timeout: Duration,
    /// Passes in a row that bring an upstream up.
    pub rise: u32,
    /// Failures in a row that take an upstream down.
    pub fall: u32,
}

/// Something in the configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it stands, such as `pools.default.upstreams[1].weight`.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Policy {
    /// Checks the pools and builds them. What is known about an upstream (health, counters) is
    /// taken from `previous` where the pool's name and the address stay the same. `keys` should be
    /// random: they decide which names go to which upstream in a pool with `consistent-hash`, and
    /// stay those of `previous` where there is one.
    ///
    /// # Errors
    /// Everything that is wrong, each with its dotted path.
    pub fn build(
        pools: &config::Pools,
        previous: Option<&Self>,
        keys: [u64; 4],
        now: Instant,
    ) -> Result<Self, Vec<ConfigError>> {
        let epoch = previous.map_or(Epoch(now), |policy| policy.epoch);
        let keys = previous.map_or(keys, |policy| policy.keys);
        let [a, b, c, d] = keys;
        let mut known: HashMap<(&str, SocketAddr), &Arc<Upstream>> = HashMap::new();
        for pool in previous.iter().flat_map(|policy| &policy.pools) {
            for member in &pool.members {
                known.insert((&pool.name, member.upstream.address()), &member.upstream);
            }
        }
        let mut errors = Errors::default();
        if !pools.contains_key(DEFAULT_POOL) {
            errors.add(
                "pools".into(),
                format!("a pool named `{DEFAULT_POOL}` is needed"),
            );
        }
        if pools
            .values()
            .map(|pool| pool.upstreams.len())
            .fold(0, usize::saturating_add)
            > MAX_UPSTREAMS
        {
            errors.add(
                "pools".into(),
                format!("more than {MAX_UPSTREAMS} upstreams in all"),
            );
        }
        let pools = pools
            .iter()
            .map(|(name, file)| {
                check(name, file, &mut errors);
                let upstream = |address: SocketAddr| {
                    known.get(&(name.as_str(), address)).map_or_else(
                        || Arc::new(Upstream::new(name, address, epoch, now)),
                        |known| Arc::clone(known),
                    )
                };
                let load = previous.and_then(|policy| {
                    let mut pools = policy.pools.iter();
                    Some(Arc::clone(&pools.find(|pool| pool.name == *name)?.load))
                });
                Pool::new(name, file, load.unwrap_or_default(), upstream)
            })
            .collect();
        if errors.found.is_empty() {
            Ok(Self {
                pools,
                epoch,
                keys,
                hasher: RandomState::with_seeds(a, b, c, d),
            })
        } else {
            Err(errors.found)
        }
    }

    /// The pools, in the order of their names; a pool's place is its index everywhere.
    #[must_use]
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Names of the pools, by index.
    #[must_use]
    pub fn pool_names(&self) -> Vec<String> {
        self.pools.iter().map(|pool| pool.name.clone()).collect()
    }

    /// Index of the pool with this name.
    #[must_use]
    pub fn pool_index(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|pool| pool.name == name)
    }

    /// Every upstream at this moment, pool by pool.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Vec<UpstreamSnapshot> {
        let of_pool = |pool: &Pool| -> Vec<UpstreamSnapshot> {
            let checked = pool.health.is_some();
            let of_member = |member: &Member| {
                member.upstream.snapshot(
                    &member.label,
                    member.weight,
                    member.max_outstanding,
                    checked,
                    now,
                )
            };
            pool.members.iter().map(of_member).collect()
        };
        self.pools.iter().flat_map(of_pool).collect()
    }

    /// Every pool at this moment.
    #[must_use]
    pub fn pool_snapshots(&self) -> Vec<PoolSnapshot> {
        let of_pool = |pool: &Pool| PoolSnapshot {
            name: pool.name.clone(),
            pressure: pool.load.pressure(),
            queued: pool.load.queued(),
        };
        self.pools.iter().map(of_pool).collect()
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where `qname` stands among the names, for `consistent-hash`.
    pub(crate) fn name_key(&self, qname: &Name) -> u64 {
        self.hasher.hash_one(qname.as_wire())
    }

    /// The upstream's own number for `consistent-hash`.
    pub(crate) fn address_key(&self, address: SocketAddr) -> u64 {
        self.hasher.hash_one(address)
    }
}

impl Pool {
    fn new(
        name: &str,
        file: &config::Pool,
        load: Arc<PoolLoad>,
        upstream: impl Fn(SocketAddr) -> Arc<Upstream>,
    ) -> Self {
        let member = |file: &config::Upstream| Member {
            label: file
                .name
                .clone()
                .unwrap_or_else(|| file.address.to_string()),
            weight: file.weight,
            max_outstanding: file.max_outstanding,
            upstream: upstream(file.address.0),
        };
        let health = match &file.health {
            HealthSetting::Off => None,
            HealthSetting::On(health) => Some(Arc::new(HealthPolicy::new(health))),
        };
        Self {
            name: name.to_owned(),
            balancing: file.policy,
            members: file.upstreams.iter().map(member).collect(),
            health,
            minimum_active: usize::from(file.minimum_active),
            slow_start: file.slow_start,
            retry_after: file.retry_after,
            retries: file.retries,
            patience: file.patience,
            when_none: file.when_none,
            queue_length: file.queue.length as usize,
            max_wait: file.queue.max_wait,
            load,
        }
    }
}

impl HealthPolicy {
    fn new(file: &config::Health) -> Self {
        let listed = |rcodes: &Vec<config::RcodeName>| rcodes.iter().map(|rcode| rcode.0).collect();
        let rcodes = match (&file.rcodes, &file.query) {
            (Some(rcodes), _) => Some(listed(rcodes)),
            (None, Some(_)) => Some(vec![Rcode::NOERROR]),
            (None, None) => None,
        };
        Self {
            query: file.query.clone().unwrap_or(ProbeQuery {
                name: Name::ROOT,
                qtype: qtype::SOA,
            }),
            rcodes,
            interval: file.interval,
            timeout: file.timeout,
            rise: file.rise.into(),
            fall: file.fall.into(),
        }
    }
}

#[derive(Default)]
struct Errors {
    found: Vec<ConfigError>,
}

impl Errors {
    fn add(&mut self, path: String, message: impl Into<String>) {
        self.found.push(ConfigError {
            path,
            message: message.into(),
        });
    }
}

fn check(name: &str, pool: &config::Pool, errors: &mut Errors) {
    let at = |field: &str| format!("pools.{name}.{field}");
    if pool.upstreams.is_empty() {
        errors.add(at("upstreams"), "at least one upstream is needed");
    }
    for (index, upstream) in pool.upstreams.iter().enumerate() {
        let at = |field: &str| format!("pools.{name}.upstreams[{index}].{field}");
        let earlier = pool.upstreams.iter().take(index);
        if let Some(first) = earlier
            .clone()
            .position(|other| other.address == upstream.address)
        {
            errors.add(
                at("address"),
                format!(
                    "{} is already upstreams[{first}]; give that one more weight instead",
                    upstream.address
                ),
            );
        }
        if upstream.address.0.port() == 0 {
            errors.add(at("address"), "port 0 cannot be asked");
        }
        if upstream.address.0.ip().is_unspecified() || upstream.address.0.ip().is_multicast() {
            errors.add(
                at("address"),
                format!(
                    "{} is not the address of one server",
                    upstream.address.0.ip()
                ),
            );
        }
        if !(1..=MAX_WEIGHT).contains(&upstream.weight) {
            errors.add(
                at("weight"),
                format!("{} is not between 1 and {MAX_WEIGHT}", upstream.weight),
            );
        }
        if upstream.max_outstanding == 0 {
            errors.add(at("max-outstanding"), "must be at least 1");
        }
        if upstream
            .name
            .as_ref()
            .is_some_and(|label| label.trim().is_empty())
        {
            errors.add(at("name"), "is empty; leave it out to use the address");
        }
        if upstream.name.is_some() && earlier.clone().any(|other| other.name == upstream.name) {
            errors.add(at("name"), "another upstream of the pool has this name");
        }
    }
    if usize::from(pool.minimum_active) > pool.upstreams.len().max(1) {
        errors.add(
            at("minimum-active"),
            format!(
                "{} is more than the pool has upstreams",
                pool.minimum_active
            ),
        );
    }
    if pool.retries > MAX_RETRIES {
        errors.add(
            at("retries"),
            format!("{} is more than {MAX_RETRIES}", pool.retries),
        );
    }
    if pool.patience.is_zero() {
        errors.add(at("patience"), "must be longer than nothing");
    }
    if pool.retry_after.is_zero() {
        errors.add(
            at("retry-after"),
            "must be longer than nothing; `retries: 0` switches resending off",
        );
    } else if pool.retries > 0 && pool.retry_after >= pool.patience && !pool.patience.is_zero() {
        errors.add(
            at("retry-after"),
            "must be shorter than `patience`; `retries: 0` switches resending off",
        );
    }
    if pool.queue.length > MAX_QUEUE {
        errors.add(
            at("queue.length"),
            format!("{} is more than {MAX_QUEUE}", pool.queue.length),
        );
    }
    if pool.queue.length > 0 && pool.queue.max_wait.is_zero() {
        errors.add(
            at("queue.max-wait"),
            "must be longer than nothing; `length: 0` switches the queue and the limit off",
        );
    } else if pool.queue.max_wait >= pool.patience && !pool.patience.is_zero() {
        errors.add(at("queue.max-wait"), "must be shorter than `patience`");
    }
    if let HealthSetting::On(health) = &pool.health {
        check_health(name, health, errors);
    }
}

fn check_health(name: &str, health: &config::Health, errors: &mut Errors) {
    const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
    let at = |field: &str| format!("pools.{name}.health.{field}");
    if health.rise == 0 {
        errors.add(at("rise"), "must be at least 1");
    }
    if health.fall == 0 {
        errors.add(at("fall"), "must be at least 1");
    }
    if health.interval < SHORTEST_INTERVAL {
        errors.add(at("interval"), "must be at least 10ms");
    }
    if health.timeout.is_zero() {
        errors.add(at("timeout"), "must be longer than nothing");
    }
    if health.rcodes.as_ref().is_some_and(Vec::is_empty) {
        errors.add(
            at("rcodes"),
            "no response code would pass; leave it out to accept the usual ones",
        );
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::upstream::State;

    pub(crate) fn pools(json: &str) -> config::Pools {
        serde_json::from_str(json).unwrap()
    }

    pub(crate) fn build(json: &str, previous: Option<&Policy>, now: Instant) -> Policy {
        Policy::build(&pools(json), previous, [1, 2, 3, 4], now).unwrap()
    }

    pub(crate) fn now() -> Instant {
        dnscrub_testkit::VirtualClock::new().now()
    }

    #[test]
    fn every_error_has_its_path() {
        let bad = pools(
            r#"{"big": {"upstreams": [{"address": "192.0.2.1:53", "weight": 0}, {"address": "192.0.2.1"}, {"address": "0.0.0.0:53", "max-outstanding": 0}],
                "minimum-active": 4, "retries": 9, "retry-after": "3s", "queue": {"length": 40000, "max-wait": "0s"}, "health": {"rise": 0, "fall": 0, "interval": "1ms", "timeout": "0s", "rcodes": []}},
               "none": {"upstreams": []}}"#,
        );
        let errors = Policy::build(&bad, None, [0; 4], now()).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "pools",
                "pools.big.upstreams[0].weight",
                "pools.big.upstreams[1].address",
                "pools.big.upstreams[2].address",
                "pools.big.upstreams[2].max-outstanding",
                "pools.big.minimum-active",
                "pools.big.retries",
                "pools.big.retry-after",
                "pools.big.queue.length",
                "pools.big.queue.max-wait",
                "pools.big.health.rise",
                "pools.big.health.fall",
                "pools.big.health.interval",
                "pools.big.health.timeout",
                "pools.big.health.rcodes",
                "pools.none.upstreams",
            ]
        );
        assert_eq!(
            errors[0].to_string(),
            "pools: a pool named `default` is needed"
        );
    }

    #[test]
    fn a_reload_keeps_what_is_known_of_the_same_address_in_the_same_pool() {
        let now = now();
        let first = build(
            r#"{"default": {"upstreams": [{"address": "192.0.2.1"}, {"address": "192.0.2.2"}]}}"#,
            None,
            now,
        );
        first.pools()[0].members[1]
            .upstream
            .set_state(State::Down, now);
        let second = build(
            r#"{"default": {"upstreams": [{"address": "192.0.2.2", "weight": 7}, {"address": "192.0.2.3"}]}, "other": {"upstreams": [{"address": "192.0.2.2"}]}}"#,
            Some(&first),
            now,
        );
        assert!(Arc::ptr_eq(
            &second.pools()[0].members[0].upstream,
            &first.pools()[0].members[1].upstream
        ));
        assert_eq!(second.pools()[0].members[0].weight, 7);
        assert_eq!(
            second.pools()[1].members[0].upstream.state(),
            State::Untested
        );
        assert_eq!(second.pool_index("other"), Some(1));
    }
}
