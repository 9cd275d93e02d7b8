use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rule() -> Origin {
    Origin::Rule("flood".to_owned())
}

fn blocked_by(store: &mut BlocklistStore, source: &str) -> Option<IpNet> {
    store
        .publish()
        .lookup(address(source))
        .map(|hit| hit.prefix())
}

fn small(dynamic_entries: usize) -> BlocklistStore {
    BlocklistStore::new(Limits {
        dynamic_entries,
        ..Limits::default()
    })
}

#[test]
fn lists_are_replaced_whole_and_keep_hits_of_what_stays() {
    let mut store = BlocklistStore::default();
    store.set_limits(Limits::default());
    let report = store
        .load_list(
            "a",
            b"192.0.2.0/24 net\n198.51.100.1 host\n2001:db8::/32\n",
            start(),
        )
        .unwrap();
    assert_eq!(
        report,
        ListReport {
            entries: 3,
            added: 3,
            removed: 0,
            duplicates: 0
        }
    );
    store
        .load_list("b", b"203.0.113.0/24\n192.0.2.0/24 again\n", start())
        .unwrap();
    let table = store.publish();
    for source in ["198.51.100.1", "198.51.100.1", "2001:db8::1"] {
        table.lookup(address(source)).unwrap().count();
    }

    let later = start() + MINUTE;
    let report = store
        .load_list("a", b"198.51.100.1 other words\n198.51.100.2\n", later)
        .unwrap();
    assert_eq!(
        report,
        ListReport {
            entries: 2,
            added: 1,
            removed: 2,
            duplicates: 0
        }
    );
    // A worker that still uses the table from before
    table.lookup(address("198.51.100.1")).unwrap().count();
    assert_eq!(blocked_by(&mut store, "2001:db8::1"), None);
    assert_eq!(
        blocked_by(&mut store, "192.0.2.9"),
        Some(net("192.0.2.0/24"))
    );

    let shown = store.show(net("198.51.100.0/24"));
    let expected = |prefix: &str, reason: &str, created, hits| Entry {
        prefix: net(prefix),
        reason: reason.to_owned(),
        origin: Origin::List("a".to_owned()),
        created,
        expires: None,
        hits,
    };
    assert_eq!(
        shown,
        [
            expected("198.51.100.1/32", "other words", start(), 3),
            expected("198.51.100.2/32", "", later, 0)
        ]
    );

    assert_eq!(store.remove_list("a"), Some(2));
    assert_eq!(store.remove_list("a"), None);
    assert_eq!(store.stats().static_entries, 2);
    assert_eq!(blocked_by(&mut store, "198.51.100.1"), None);
    assert_eq!(
        blocked_by(&mut store, "203.0.113.9"),
        Some(net("203.0.113.0/24"))
    );
}

#[test]
fn a_bad_list_leaves_the_old_one() {
    let mut store = BlocklistStore::new(Limits {
        static_entries: 2,
        ..Limits::default()
    });
    store.load_list("a", b"192.0.2.1\n", start()).unwrap();
    let table = store.publish();
    assert!(matches!(
        store.load_list("a", b"192.0.2.2\nx\n", start()),
        Err(ListError::Line { line: 2, .. })
    ));
    let full = ListError::Full {
        entries: 3,
        limit: 2,
    };
    assert_eq!(
        store.load_list("a", b"192.0.2.2\n192.0.2.3\n192.0.2.4\n", start()),
        Err(full.clone())
    );
    assert_eq!(
        store.load_list("b", b"192.0.2.2\n192.0.2.3\n", start()),
        Err(full)
    );
    assert!(!store.has_changed());
    assert!(Arc::ptr_eq(&table, &store.publish()));
    assert_eq!(
        blocked_by(&mut store, "192.0.2.1"),
        Some(net("192.0.2.1/32"))
    );
    // Replacing counts only what will be there.
    store
        .load_list("a", b"192.0.2.2\n192.0.2.3\n192.0.2.3\n", start())
        .unwrap();
    assert_eq!(store.stats().lists[0].duplicates, 1);
}

#[test]
fn a_new_entry_never_starts_with_hits_of_an_old_one() {
    let mut store = small(10);
    store
        .add(net("192.0.2.1/32"), "", Origin::Cli, start(), None)
        .unwrap();
    store
        .publish()
        .lookup(address("192.0.2.1"))
        .unwrap()
        .count();
    assert_eq!(store.remove(net("192.0.2.1/32")).unwrap().hits, 1);
    store.publish();
    store
        .add(net("192.0.2.2/32"), "", Origin::Cli, start(), None)
        .unwrap();
    assert_eq!(store.show(net("192.0.2.2/32"))[0].hits, 0);
}

#[test]
fn every_covering_entry_is_shown_most_specific_first() {
    let mut store = BlocklistStore::new(Limits::default());
    store
        .load_list(
            "a",
            b"192.0.2.0/24 wide\n192.0.2.7 one\n192.0.3.0/24\n",
            start(),
        )
        .unwrap();
    store.load_list("b", b"192.0.2.7 two\n", start()).unwrap();
    store
        .add(net("192.0.0.0/16"), "widest", Origin::Api, start(), None)
        .unwrap();
    store
        .add(
            net("192.0.2.7/32"),
            "by rule",
            rule(),
            start(),
            Some(MINUTE),
        )
        .unwrap();
    let reasons = |prefix: &str| {
        store
            .show(net(prefix))
            .into_iter()
            .map(|entry| entry.reason)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reasons("192.0.2.7/32"),
        ["by rule", "two", "one", "wide", "widest"]
    );
    assert_eq!(
        reasons("::ffff:192.0.2.7/128"),
        ["by rule", "two", "one", "wide", "widest"]
    );
    assert_eq!(reasons("192.0.2.8/32"), ["wide", "widest"]);
    assert_eq!(
        reasons("192.0.2.0/24"),
        ["by rule", "one", "two", "wide", "widest"]
    );
    assert_eq!(reasons("198.51.100.1/32"), [""; 0]);
    let table = store.publish();
    let hit = table.lookup(address("192.0.2.7")).unwrap();
    assert!(hit.dynamic && hit.prefix() == net("192.0.2.7/32"));
    let hit = table.lookup(address("192.0.2.8")).unwrap();
    assert!(!hit.dynamic && hit.prefix() == net("192.0.2.0/24"));
    let hit = table.lookup(address("192.0.4.8")).unwrap();
    assert!(hit.dynamic && hit.prefix() == net("192.0.0.0/16"));
}

#[test]
fn entries_expire() {
    let mut store = small(10);
    store
        .add(net("192.0.2.1/32"), "", rule(), start(), Some(MINUTE))
        .unwrap();
    store
        .add(net("192.0.2.2/32"), "", rule(), start(), Some(2 * MINUTE))
        .unwrap();
    store
        .add(net("192.0.2.3/32"), "", rule(), start(), None)
        .unwrap();
    assert_eq!(store.next_expiry(), Some(start() + MINUTE));
    assert_eq!(store.expire(start() + MINUTE - Duration::from_nanos(1)), 0);
    assert_eq!(store.expire(start() + MINUTE), 1);
    assert_eq!(blocked_by(&mut store, "192.0.2.1"), None);
    assert_eq!(
        blocked_by(&mut store, "192.0.2.2"),
        Some(net("192.0.2.2/32"))
    );
    assert_eq!(store.expire(start() + 9 * MINUTE), 1);
    assert_eq!(store.next_expiry(), None);
    assert_eq!(
        (store.stats().expired, store.stats().dynamic_entries),
        (2, 1)
    );
    // A life longer than time itself does not end.
    store
        .add(
            net("192.0.2.4/32"),
            "",
            rule(),
            start(),
            Some(Duration::MAX),
        )
        .unwrap();
    assert_eq!(store.show(net("192.0.2.4/32"))[0].expires, None);
}

#[test]
fn an_expired_entry_is_not_renewed_but_made_anew() {
    let mut store = small(10);
    store
        .add(net("192.0.2.1/32"), "", Origin::Cli, start(), Some(MINUTE))
        .unwrap();
    store
        .publish()
        .lookup(address("192.0.2.1"))
        .unwrap()
        .count();
    let later = start() + 2 * MINUTE;
    let added = store
        .add(net("192.0.2.1/32"), "", rule(), later, Some(MINUTE))
        .unwrap();
    assert_eq!(added.outcome, AddOutcome::Added);
    let entry = &store.show(net("192.0.2.1/32"))[0];
    assert_eq!(
        (entry.created, entry.hits, &entry.origin),
        (later, 0, &rule())
    );
}

#[test]
fn renewing_never_weakens_an_operators_entry() {
    let mut store = small(10);
    let prefix = net("192.0.2.1/32");
    let mut add = |reason, origin, minutes: Option<u32>| {
        let added = store
            .add(
                prefix,
                reason,
                origin,
                start(),
                minutes.map(|minutes| minutes * MINUTE),
            )
            .unwrap();
        let shown = store.show(prefix).remove(0);
        (
            added.outcome,
            shown.reason,
            shown
                .expires
                .map(|expires| expires.duration_since(start()).unwrap()),
        )
    };
    let after = |outcome, reason: &str, minutes: Option<u32>| {
        (
            outcome,
            reason.to_owned(),
            minutes.map(|minutes| minutes * MINUTE),
        )
    };
    assert_eq!(
        add("first", rule(), Some(10)),
        after(AddOutcome::Added, "first", Some(10))
    );
    assert_eq!(
        add("shorter", rule(), Some(5)),
        after(AddOutcome::Kept, "first", Some(10))
    );
    assert_eq!(
        add("longer", rule(), Some(20)),
        after(AddOutcome::Renewed, "longer", Some(20))
    );
    assert_eq!(
        add("operator", Origin::Cli, Some(1)),
        after(AddOutcome::Renewed, "operator", Some(1))
    );
    assert_eq!(
        add("rule", rule(), None),
        after(AddOutcome::Kept, "operator", Some(1))
    );
    assert_eq!(
        add("for ever", Origin::Api, None),
        after(AddOutcome::Renewed, "for ever", None)
    );
    assert_eq!(store.next_expiry(), None);
}

#[test]
fn a_full_blocklist_refuses_rules_and_makes_room_for_operators() {
    let mut store = small(3);
    let add = |store: &mut BlocklistStore, host: u8, origin, minutes: Option<u32>| {
        let prefix = IpNet::from(IpAddr::from([192, 0, 2, host]));
        let added = store.add(
            prefix,
            "",
            origin,
            start(),
            minutes.map(|minutes| minutes * MINUTE),
        )?;
        Ok::<_, AddError>(added.evicted.map(|evicted| evicted.prefix))
    };
    add(&mut store, 1, Origin::Cli, Some(1)).unwrap();
    add(&mut store, 2, rule(), Some(9)).unwrap();
    add(&mut store, 3, Origin::Cli, None).unwrap();
    let full = Err(AddError::Full { limit: 3 });
    assert_eq!(add(&mut store, 4, rule(), Some(60)), full);
    assert_eq!(
        add(&mut store, 5, Origin::Incident("x".to_owned()), None),
        full
    );
    assert_eq!(store.stats().refused_full, 2);
    // One that is there needs no room.
    assert_eq!(add(&mut store, 2, rule(), Some(10)), Ok(None));
    // The rule's entry goes before the operator's, though it ends later.
    assert_eq!(
        add(&mut store, 4, Origin::Api, None),
        Ok(Some(net("192.0.2.2/32")))
    );
    assert_eq!(
        add(&mut store, 5, Origin::Api, None),
        Ok(Some(net("192.0.2.1/32")))
    );
    // Nothing that is left expires.
    assert_eq!(add(&mut store, 6, Origin::Api, None), full);
    let stats = store.stats();
    assert_eq!(
        (stats.dynamic_entries, stats.refused_full, stats.evicted),
        (3, 3, 2)
    );
}

#[test]
fn what_has_expired_makes_room_first() {
    let mut store = small(1);
    store
        .add(net("192.0.2.1/32"), "", Origin::Cli, start(), Some(MINUTE))
        .unwrap();
    let added = store
        .add(
            net("192.0.2.2/32"),
            "",
            rule(),
            start() + MINUTE,
            Some(MINUTE),
        )
        .unwrap();
    assert_eq!(added.evicted, None);
    assert_eq!(store.stats().expired, 1);
}

#[test]
fn some_prefixes_are_never_blocked() {
    let mut store = BlocklistStore::new(Limits::default());
    store.load_list("feed", b"192.0.2.0/24\n", start()).unwrap();
    store.set_never_block([net("192.0.2.128/25"), net("2001:db8::/32")]);
    assert_eq!(
        blocked_by(&mut store, "192.0.2.1"),
        Some(net("192.0.2.0/24"))
    );
    assert_eq!(blocked_by(&mut store, "192.0.2.200"), None);
    assert_eq!(blocked_by(&mut store, "::ffff:192.0.2.200"), None);
    let refused = Err(AddError::NeverBlocked {
        by: net("192.0.2.128/25"),
    });
    assert_eq!(
        store.add(net("192.0.2.200/32"), "", Origin::Cli, start(), None),
        refused
    );
    assert_eq!(
        store.never_blocked(net("2001:db8::/48")),
        Some(net("2001:db8::/32"))
    );
    // A wider one is fine, and blocks the others in it.
    store
        .add(net("2001::/16"), "", rule(), start(), None)
        .unwrap();
    assert_eq!(blocked_by(&mut store, "2001:db8::1"), None);
    assert_eq!(
        blocked_by(&mut store, "2001:db9::1"),
        Some(net("2001::/16"))
    );
}

#[test]
fn only_operators_block_half_the_internet() {
    let mut store = BlocklistStore::new(Limits::default());
    let half = net("128.0.0.0/1");
    assert_eq!(
        store.add(half, "", rule(), start(), None),
        Err(AddError::TooWide { shortest: 8 })
    );
    assert_eq!(
        store.add(
            net("2000::/3"),
            "",
            Origin::Incident("x".to_owned()),
            start(),
            None
        ),
        Err(AddError::TooWide { shortest: 16 })
    );
    store.add(half, "", Origin::Cli, start(), None).unwrap();
    assert_eq!(
        store.add(half, "", Origin::List("x".to_owned()), start(), None),
        Err(AddError::StaticOrigin)
    );
}

#[test]
fn dynamic_entries_are_saved_and_restored() {
    let mut store = small(10);
    store
        .add(net("192.0.2.1/32"), "one", rule(), start(), Some(MINUTE))
        .unwrap();
    store
        .add(net("2001:db8::/64"), "two", Origin::Cli, start(), None)
        .unwrap();
    store
        .add(
            net("192.0.2.3/32"),
            "three",
            rule(),
            start(),
            Some(9 * MINUTE),
        )
        .unwrap();
    store
        .publish()
        .lookup(address("2001:db8::1"))
        .unwrap()
        .count();
    let revision = store.revision();
    let saved = store.snapshot();
    assert_eq!(store.revision(), revision);

    let mut restored = small(10);
    let report = restored.restore(saved.clone(), start() + MINUTE);
    assert_eq!(
        report,
        RestoreReport {
            restored: 2,
            expired: 1,
            refused: 0
        }
    );
    assert_eq!(restored.snapshot(), saved[1..]);
    assert_eq!(
        blocked_by(&mut restored, "2001:db8::1"),
        Some(net("2001:db8::/64"))
    );
    assert_eq!(restored.restore(saved.clone(), start() + MINUTE).refused, 2);

    let mut cramped = small(1);
    let report = cramped.restore(saved, start());
    assert_eq!(
        report,
        RestoreReport {
            restored: 1,
            expired: 0,
            refused: 2
        }
    );
    assert_eq!(cramped.snapshot()[0].reason, "two");
    assert_eq!(cramped.snapshot()[0].hits, 1);
}

#[test]
fn the_revision_tells_when_to_save() {
    let mut store = small(10);
    let mut last = store.revision();
    let mut changed =
        |store: &BlocklistStore| std::mem::replace(&mut last, store.revision()) != store.revision();
    store.load_list("a", b"192.0.2.1\n", start()).unwrap();
    assert!(!changed(&store));
    store
        .add(net("192.0.2.1/32"), "", rule(), start(), Some(MINUTE))
        .unwrap();
    assert!(changed(&store));
    store
        .add(net("192.0.2.1/32"), "", rule(), start(), Some(2 * MINUTE))
        .unwrap();
    assert!(changed(&store));
    store
        .add(net("192.0.2.1/32"), "", rule(), start(), Some(MINUTE))
        .unwrap();
    assert!(!changed(&store));
    store.expire(start() + 2 * MINUTE);
    assert!(changed(&store));
}

#[test]
fn listings_are_filtered() {
    let mut store = BlocklistStore::new(Limits::default());
    store
        .load_list(
            "a",
            b"192.0.2.0/24 scanner\n2001:db8::/32 botnet\n",
            start(),
        )
        .unwrap();
    store
        .add(net("192.0.2.1/32"), "botnet", rule(), start(), None)
        .unwrap();
    store
        .add(net("198.51.100.1/32"), "", Origin::Cli, start(), None)
        .unwrap();
    let list = |filter: EntryFilter| {
        store
            .list(&filter)
            .map(|entry| entry.prefix.to_string())
            .collect::<Vec<_>>()
    };
    let all = [
        "192.0.2.1/32",
        "198.51.100.1/32",
        "192.0.2.0/24",
        "2001:db8::/32",
    ];
    assert_eq!(list(EntryFilter::default()), all);
    let origin = |text: &str| {
        list(EntryFilter {
            origin: Some(text.to_owned()),
            ..EntryFilter::default()
        })
    };
    assert_eq!(origin("rule"), all[..1]);
    assert_eq!(origin("rule:flood"), all[..1]);
    assert_eq!(origin("rule:other"), [""; 0]);
    assert_eq!(origin("list:a"), all[2..]);
    let within = EntryFilter {
        within: Some(net("192.0.2.0/24")),
        ..EntryFilter::default()
    };
    assert_eq!(list(within), [all[0], all[2]]);
    let reason = EntryFilter {
        reason: Some("bot".to_owned()),
        ..EntryFilter::default()
    };
    assert_eq!(list(reason), [all[0], all[3]]);
}

#[test]
fn a_listing_reads_back_as_a_list() {
    let mut store = BlocklistStore::new(Limits::default());
    store
        .load_list("a", b"192.0.2.0/24 it's # odd\n2001:db8::/32\n", start())
        .unwrap();
    store
        .add(
            net("192.0.2.1/32"),
            "a # b\n; c",
            Origin::Cli,
            start(),
            None,
        )
        .unwrap();
    let exported: Vec<Entry> = store.list(&EntryFilter::default()).collect();
    let text: String = exported
        .iter()
        .map(|entry| entry.list_line() + "\n")
        .collect();
    let read: Vec<_> = crate::list_lines(text.as_bytes())
        .map(|line| {
            line.map(|line| (line.prefix, line.reason.into_owned()))
                .unwrap()
        })
        .collect();
    let expected: Vec<_> = exported
        .into_iter()
        .map(|entry| (entry.prefix, entry.reason))
        .collect();
    assert_eq!(read, expected);
}

#[test]
fn only_what_changed_is_built_again() {
    let mut store = BlocklistStore::new(Limits::default());
    store.load_list("a", b"192.0.2.0/24\n", start()).unwrap();
    let one = store.publish();
    store
        .add(net("198.51.100.1/32"), "", Origin::Cli, start(), None)
        .unwrap();
    assert!(store.has_changed());
    let two = store.publish();
    assert!(Arc::ptr_eq(&one.fixed, &two.fixed));
    assert_eq!((one.len(), two.len()), (1, 2));
    store.load_list("b", b"203.0.113.0/24\n", start()).unwrap();
    let three = store.publish();
    assert!(Arc::ptr_eq(&two.dynamic, &three.dynamic));
    assert!(Arc::ptr_eq(&three, &store.publish()));
}

/// xorshift64*: reproducible, no dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn a_million_entries_match_a_naive_map() {
    let mut random = Random(7);
    let mut text = String::with_capacity(32 << 20);
    let mut naive: HashMap<(u8, u128), ()> = HashMap::with_capacity(1_000_000);
    let v4_bits = |address: u32, len: u8| u128::from(address & u32::MAX << (32 - len));
    for line in 0..1_000_000_u32 {
        // Nine in ten IPv4, half of them hosts, the others of 20 lengths; IPv6 of /29 to /128
        if line % 10 == 9 {
            let address = (0x2001_u128 << 112)
                | (u128::from(random.next()) << 40)
                | u128::from(random.next() >> 24);
            let len = 29 + (random.next() % 100) as u8;
            let address = address & (u128::MAX << (128 - len));
            naive.insert((len.wrapping_add(100), address), ());
            writeln!(
                text,
                "{}/{len} ; SBL{}",
                Ipv6Addr::from(address),
                line % 1000
            )
            .unwrap();
        } else {
            let len = if line % 2 == 0 {
                32
            } else {
                12 + (random.next() % 20) as u8
            };
            let address = v4_bits(random.next() as u32, len);
            naive.insert((len, address), ());
            writeln!(
                text,
                "{}/{len} botnet {}",
                Ipv4Addr::from(address as u32),
                line % 7
            )
            .unwrap();
        }
    }
    let mut store = BlocklistStore::new(Limits::default());
    let report = store.load_list("big", text.as_bytes(), start()).unwrap();
    assert_eq!(report.entries, naive.len());
    assert_eq!(report.entries + report.duplicates, 1_000_000);
    let table = store.publish();
    assert_eq!(table.len(), naive.len());

    let longest_v4 = |address: u32| {
        (12..=32)
            .rev()
            .find(|len| naive.contains_key(&(*len, v4_bits(address, *len))))
    };
    let longest_v6 = |address: u128| {
        (29..=128_u8).rev().find(|len| {
            naive.contains_key(&(len.wrapping_add(100), address & (u128::MAX << (128 - len))))
        })
    };
    let found = |address: IpAddr| table.lookup(address).map(|hit| hit.prefix().prefix_len());
    let members: Vec<_> = naive.keys().copied().step_by(97).collect();
    for (len, bits) in members {
        let noise = random.next();
        if len <= 32 {
            let address = bits as u32 | (noise as u32).checked_shr(len.into()).unwrap_or(0);
            assert_eq!(found(IpAddr::V4(address.into())), longest_v4(address));
        } else {
            let len = len.wrapping_sub(100);
            let address = bits
                | u128::from(noise)
                    .checked_shr(len.saturating_sub(64).into())
                    .unwrap_or(0);
            assert_eq!(found(IpAddr::V6(address.into())), longest_v6(address));
        }
    }
    for _ in 0..20_000 {
        let address = random.next() as u32;
        assert_eq!(found(IpAddr::V4(address.into())), longest_v4(address));
        let address = (0x2001_u128 << 112) | (u128::from(random.next()) << 40);
        assert_eq!(found(IpAddr::V6(address.into())), longest_v6(address));
    }

    // The same list again: everything stays, nothing is handed out anew.
    let report = store
        .load_list("big", text.as_bytes(), start() + MINUTE)
        .unwrap();
    assert_eq!((report.added, report.removed), (0, 0));
}

fn prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0_u32..32, 24..=32_u8)
            .prop_map(|(low, len)| (IpAddr::V4((0xc000_0200 | low).into()), len)),
        (0_u128..32, 120..=128_u8)
            .prop_map(|(low, len)| (IpAddr::V6(((0x2001_u128 << 112) | low).into()), len)),
        (0_u32..32, 120..=128_u8).prop_map(|(low, len)| (
            IpAddr::V6(Ipv4Addr::from(0xc000_0200 | low).to_ipv6_mapped()),
            len
        )),
    ]
    .prop_map(|(address, len)| IpNet::new(address, len).unwrap().trunc())
}

#[derive(Clone, Debug)]
enum Step {
    Load(u8, Vec<IpNet>),
    RemoveList(u8),
    Add(IpNet),
    Remove(IpNet),
    Hit(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8, vec(prefix(), 0..12)).prop_map(|(list, prefixes)| Step::Load(list, prefixes)),
        (0..3_u8).prop_map(Step::RemoveList),
        prefix().prop_map(Step::Add),
        prefix().prop_map(Step::Remove),
        (0..32_u8).prop_map(Step::Hit),
    ]
}

proptest! {
    /// Whatever is loaded, added and removed, the table is the longest match over what a plain map
    /// holds, and each entry has the hits that were counted on it since it came.
    #[test]
    fn the_store_agrees_with_a_plain_map(steps in vec(step(), 0..40)) {
        // By prefix and list; the dynamic entries as list 255
        let mut model: BTreeMap<(IpNet, u8), u64> = BTreeMap::new();
        let mut store = BlocklistStore::new(Limits::default());
        for step in steps {
            match step {
                Step::Load(list, prefixes) => {
                    let text: String = prefixes.iter().map(|prefix| format!("{prefix}\n")).collect();
                    store.load_list(&list.to_string(), text.as_bytes(), start()).unwrap();
                    let prefixes: BTreeSet<_> = prefixes.into_iter().map(canonical).collect();
                    model.retain(|(prefix, of), _| *of != list || prefixes.contains(prefix));
                    for prefix in prefixes {
                        model.entry((prefix, list)).or_insert(0);
                    }
                }
                Step::RemoveList(list) => {
                    store.remove_list(&list.to_string());
                    model.retain(|(_, of), _| *of != list);
                }
                Step::Add(prefix) => {
                    store.add(prefix, "", Origin::Cli, start(), None).unwrap();
                    model.entry((canonical(prefix), 255)).or_insert(0);
                }
                Step::Remove(prefix) => {
                    let removed = store.remove(prefix).map(|entry| entry.hits);
                    prop_assert_eq!(removed, model.remove(&(canonical(prefix), 255)));
                }
                Step::Hit(low) => {
                    let source = IpAddr::V4((0xc000_0200 | u32::from(low)).into());
                    let longest = model
                        .keys()
                        .filter(|(prefix, _)| prefix.contains(&source))
                        .map(|(prefix, list)| (prefix.prefix_len(), *list == 255))
                        .max();
                    let table = store.publish();
                    let hit = table.lookup(source);
                    prop_assert_eq!(hit.map(|hit| (hit.prefix().prefix_len(), hit.dynamic)), longest);
                    if let Some(hit) = hit {
                        hit.count();
                        // Of equal static entries, the one of the list that was loaded later counts.
                        let list = if hit.dynamic { 255 } else { hit_list(&store, hit.prefix(), &model) };
                        *model.get_mut(&(hit.prefix(), list)).unwrap() += 1;
                    }
                }
            }
            let mut held: Vec<_> = store
                .list(&EntryFilter::default())
                .map(|entry| ((entry.prefix, entry.origin.name().map_or(255, |name| name.parse().unwrap())), entry.hits))
                .collect();
            held.sort();
            prop_assert_eq!(held, model.clone().into_iter().collect::<Vec<_>>());
        }
    }
}

/// Which of the lists with this prefix counted the hit that the model does not know of yet.
fn hit_list(store: &BlocklistStore, prefix: IpNet, model: &BTreeMap<(IpNet, u8), u64>) -> u8 {
    store
        .show(prefix)
        .into_iter()
        .filter(|entry| entry.prefix == prefix)
        .filter_map(|entry| Some((entry.origin.name()?.parse().unwrap(), entry.hits)))
        .find(|(list, hits)| model[&(prefix, *list)] != *hits)
        .unwrap()
        .0
}
