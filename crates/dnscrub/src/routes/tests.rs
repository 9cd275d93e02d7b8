//! The limits, one by one and all together.

use std::collections::BTreeSet;

use dnscrub_detection::Kind;
use dnscrub_detection::incident::Spoofed;
use proptest::prelude::*;

use super::book::{
    Book, Entry, LONGEST_LINGER, MOST_REMEMBERED, Origin, Refusal, Standing, Telling, Told, Wrong,
    allowed,
};
use super::plan::Wish;
use super::route::{Order, Route};
use super::settings::{Anycast, Mode, Settings, SourceBlackhole};
use super::testing::{incident, net, settings, source};

fn rule(destination: &str, source: &str) -> Route {
    Route::FromSource {
        destination: net(destination),
        source: net(source),
    }
}

/// A rule against the source of this number.
fn numbered(number: u8) -> Route {
    rule("192.0.2.53/32", &format!("198.51.100.{number}/32"))
}

fn wish(route: Route) -> Wish {
    Wish {
        route,
        why: "9000 queries a second".to_owned(),
        against: None,
    }
}

/// One incident that asks for these.
fn asked(routes: &[Route]) -> Vec<(u64, Vec<Wish>)> {
    vec![(1, routes.iter().copied().map(wish).collect())]
}

fn names(orders: &BTreeSet<Order>) -> Vec<&str> {
    orders.iter().map(|order| order.name.as_str()).collect()
}

fn texts(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.text.as_str()).collect()
}

fn standings(book: &Book) -> Vec<Standing> {
    book.entries().map(|entry| entry.standing).collect()
}

#[test]
fn what_is_outside_the_limits_is_refused() {
    let mut settings = settings();
    let refused = |route: Route| allowed(&route, &settings).err();
    let ours = "192.0.2.53/32";
    for (source, why) in [
        ("198.51.100.7/32", None),
        ("198.51.100.0/24", None),
        ("198.51.100.0/23", Some(Refusal::SourceTooWide)),
        ("0.0.0.0/0", Some(Refusal::SourceTooWide)),
        ("203.0.113.7/32", Some(Refusal::Never)),
        ("192.0.2.99/32", Some(Refusal::SourceImpossible)),
        ("127.0.0.1/32", Some(Refusal::SourceImpossible)),
        ("224.0.0.1/32", Some(Refusal::SourceImpossible)),
        ("2001:db8:bad::1/128", Some(Refusal::Families)),
    ] {
        assert_eq!(refused(rule(ours, source)), why, "{source}");
    }
    let ours = "2001:db8:53::53/128";
    for (source, why) in [
        ("2001:db8:bad::/48", None),
        ("2001:db8::/47", Some(Refusal::SourceTooWide)),
        ("fe80::1/128", Some(Refusal::SourceImpossible)),
    ] {
        assert_eq!(refused(rule(ours, source)), why, "{source}");
    }
    for (route, why) in [
        (rule("192.0.3.53/32", "198.51.100.7/32"), Refusal::NotOurs),
        // a part of it is ours, which is not enough
        (rule("192.0.2.0/23", "198.51.100.7/32"), Refusal::NotOurs),
        (Route::Blackhole(net("198.51.100.7/32")), Refusal::NotOurs),
        (Route::Blackhole(net("192.0.2.0/24")), Refusal::NotGivenUp),
        (Route::Blackhole(net("192.0.2.55/32")), Refusal::NotGivenUp),
        (
            Route::SourceBlackhole(net("198.51.100.0/31")),
            Refusal::SourceTooWide,
        ),
        (
            Route::Anycast {
                prefix: net("192.0.2.0/24"),
                prefer_others: false,
            },
            Refusal::NotConfigured,
        ),
    ] {
        assert_eq!(refused(route), Some(why), "{route}");
    }
    assert_eq!(
        refused(Route::SourceBlackhole(net("198.51.100.7/32"))),
        None
    );

    // a never-list that lies inside a wide source is as good
    settings.limits.never = vec![net("198.51.100.99/32")];
    let wide = rule("192.0.2.53/32", "198.51.100.0/24");
    assert_eq!(allowed(&wide, &settings), Err(Refusal::Never));
    // a careless configuration does not open everything
    settings.limits.shortest_source = (0, 0);
    let half = rule("192.0.2.53/32", "128.0.0.0/1");
    assert_eq!(allowed(&half, &settings), Err(Refusal::SourceTooWide));
    settings.limits.destinations.clear();
    assert_eq!(allowed(&numbered(7), &settings), Err(Refusal::NotOurs));
    settings.flowspec = None;
    assert_eq!(
        allowed(&numbered(7), &settings),
        Err(Refusal::NotConfigured)
    );
    settings.anycast = Some(Anycast::default());
    let foreign = Route::Anycast {
        prefix: net("198.51.100.0/24"),
        prefer_others: false,
    };
    assert_eq!(allowed(&foreign, &settings), Err(Refusal::NotOurs));
}

#[test]
fn a_route_is_renewed_while_it_is_asked_for_and_goes_with_its_incident() {
    let (settings, mut book) = (settings(), Book::default());
    let told = book.turn(0.0, &settings, &asked(&[numbered(7)]));
    assert_eq!(
        texts(&told),
        [
            "announces route 1, FlowSpec rule against 198.51.100.7/32 to 192.0.2.53/32 port 53 \
             (9000 queries a second; by itself)"
        ]
    );
    assert_eq!((told[0].incident, told[0].what), (Some(1), Telling::Done));
    book.recorded(1, 4);
    assert_eq!(book.turn(500.0, &settings, &asked(&[numbered(7)])), []);
    // the source is quiet now: the route stays for the TTL
    assert_eq!(book.turn(1_099.0, &settings, &asked(&[])), []);
    assert_eq!(book.orders(&settings).len(), 1);
    let told = book.turn(1_100.0, &settings, &asked(&[]));
    assert_eq!(
        texts(&told),
        [
            "route 1, FlowSpec rule against 198.51.100.7/32 to 192.0.2.53/32 port 53 \
             is withdrawn: its time is up"
        ]
    );
    assert_eq!(told[0].what, Telling::Undone(4));
    assert!(book.orders(&settings).is_empty());

    book.turn(1_200.0, &settings, &asked(&[numbered(7)]));
    let told = book.turn(1_201.0, &settings, &[]);
    assert!(told[0].text.ends_with("the incident is over"), "{told:?}");
    assert!(book.orders(&settings).is_empty());
    assert_eq!(book.totals(), (2, 2));
    assert_eq!(book.ended().count(), 2);
}

#[test]
fn routes_are_few_and_a_refused_one_gets_its_chance_when_there_is_room() {
    let (settings, mut book) = (settings(), Book::default());
    let six: Vec<Route> = (1..=6).map(numbered).collect();
    book.turn(0.0, &settings, &asked(&six));
    assert_eq!(book.orders(&settings).len(), 5);
    book.turn(1.0, &settings, &asked(&six));
    assert_eq!(book.refused(Refusal::TooMany), 1, "counted once");
    // the first five are not asked for any more, and run out
    book.turn(601.0, &settings, &asked(&six[5..]));
    assert_eq!(
        names(&book.orders(&settings)),
        [numbered(6).order(&settings).name]
    );
    // two more make eight announcements in this hour; the ninth waits for the next
    let more: Vec<Route> = (6..=9).map(numbered).collect();
    book.turn(602.0, &settings, &asked(&more));
    assert_eq!(book.orders(&settings).len(), 3);
    assert_eq!(book.refused(Refusal::TooOften), 1);
    book.turn(3_601.0, &settings, &asked(&more));
    assert_eq!(book.orders(&settings).len(), 4);
}

#[test]
fn one_address_of_each_family_always_stays() {
    let (settings, mut book) = (settings(), Book::default());
    let blackhole = |address: &str| Route::Blackhole(net(address));
    let (first, second) = (blackhole("192.0.2.53/32"), blackhole("192.0.2.54/32"));
    book.turn(0.0, &settings, &asked(&[first, second]));
    assert_eq!(names(&book.orders(&settings)), ["route 192.0.2.53/32"]);
    assert_eq!(book.refused(Refusal::LastAddress), 1);
    let only = blackhole("2001:db8:53::53/128");
    let by_hand = book.by_hand(1.0, &settings, only, 60.0, "");
    assert_eq!(by_hand, Err(Refusal::LastAddress), "nor by hand");
    // one that waits counts as well: both might be approved
    let settings = Settings {
        mode: Mode::Confirm,
        ..settings
    };
    let mut book = Book::default();
    book.turn(0.0, &settings, &asked(&[first, second]));
    assert_eq!(
        standings(&book),
        [Standing::Waiting, Standing::Refused(Refusal::LastAddress)]
    );
}

#[test]
fn dry_run_and_confirm_announce_nothing_by_themselves() {
    let (mut settings, mut book) = (settings(), Book::default());
    let both = [numbered(7), numbered(8)];
    settings.mode = Mode::DryRun;
    let told = book.turn(0.0, &settings, &asked(&both));
    assert!(
        told[0].text.starts_with("would announce route 1, "),
        "{told:?}"
    );
    assert!(told.iter().all(|told| told.what == Telling::Would));
    assert!(book.orders(&settings).is_empty());
    assert_eq!(book.approve(1, 1.0, &settings), Err(Wrong::NotWaiting));

    settings.mode = Mode::Confirm;
    let told = book.turn(1.0, &settings, &asked(&both));
    assert!(
        told[0]
            .text
            .ends_with("waits for approval: dnscrub routes approve 1")
    );
    assert!(book.orders(&settings).is_empty());
    let told = book.approve(1, 2.0, &settings).unwrap();
    assert!(told[0].text.ends_with("(9000 queries a second; approved)"));
    assert_eq!(book.orders(&settings).len(), 1);
    assert_eq!(book.approve(1, 2.0, &settings), Err(Wrong::NotWaiting));
    assert_eq!(book.approve(9, 2.0, &settings), Err(Wrong::Unknown));

    settings.mode = Mode::Announce;
    book.turn(3.0, &settings, &asked(&both));
    assert_eq!(book.orders(&settings).len(), 2);
    settings.mode = Mode::DryRun;
    book.turn(4.0, &settings, &asked(&both));
    assert_eq!(standings(&book), [Standing::DryRun, Standing::DryRun]);
    assert!(book.orders(&settings).is_empty());
    settings.mode = Mode::Off;
    book.turn(5.0, &settings, &asked(&both));
    assert_eq!(book.entries().count(), 0);
    assert_eq!(
        book.by_hand(6.0, &settings, numbered(7), 60.0, ""),
        Err(Refusal::Off)
    );
}

#[test]
fn a_tightened_configuration_withdraws_what_it_no_longer_allows() {
    let (mut settings, mut book) = (settings(), Book::default());
    book.turn(0.0, &settings, &asked(&[numbered(7)]));
    settings.limits.never.push(net("198.51.100.0/24"));
    let told = book.turn(1.0, &settings, &asked(&[numbered(7)]));
    assert!(
        told[0]
            .text
            .contains("is withdrawn: it is about a prefix in")
    );
    assert!(told[1].text.starts_with("refused route 2, "), "{told:?}");
    assert!(book.orders(&settings).is_empty());
}

#[test]
fn what_was_withdrawn_by_hand_stays_so() {
    let (settings, mut book) = (settings(), Book::default());
    book.turn(0.0, &settings, &asked(&[numbered(7)]));
    book.withdraw(1, 1.0).unwrap();
    assert_eq!(book.withdraw(1, 1.0), Err(Wrong::NotThere));
    book.turn(10_000.0, &settings, &asked(&[numbered(7)]));
    assert_eq!(standings(&book), [Standing::Held]);
    book.approve(1, 10_001.0, &settings).unwrap();
    assert_eq!(book.orders(&settings).len(), 1);
    book.withdraw(1, 10_002.0).unwrap();
    book.turn(10_003.0, &settings, &[]);
    assert_eq!(book.entries().count(), 0, "the incident is over");
    book.turn(10_004.0, &settings, &asked(&[numbered(7)]));
    assert_eq!(book.orders(&settings).len(), 1, "another incident");
}

#[test]
fn by_hand_within_the_limits() {
    let (settings, mut book) = (settings(), Book::default());
    let (id, _) = book
        .by_hand(0.0, &settings, numbered(7), 60.0, "ticket 4711")
        .unwrap();
    assert_eq!(
        book.entry(id).map(|it| it.why.as_str()),
        Some("ticket 4711")
    );
    book.turn(59.0, &settings, &[]);
    assert_eq!(book.orders(&settings).len(), 1, "no incident is needed");
    book.turn(60.0, &settings, &[]);
    assert!(book.orders(&settings).is_empty());
    let wide = rule("192.0.2.53/32", "198.51.0.0/16");
    assert_eq!(
        book.by_hand(61.0, &settings, wide, 60.0, ""),
        Err(Refusal::SourceTooWide)
    );
    assert_eq!(book.refused(Refusal::SourceTooWide), 1);
}

/// Settings under which announced routes linger for five minutes.
fn lingering() -> Settings {
    let mut settings = settings();
    settings.limits.linger = 300.0;
    settings
}

/// An incident that asks for the route opens now, is over the next second, and the route is withdrawn. For how
/// long it lingered.
fn lingered(book: &mut Book, settings: &Settings, now: &mut f64, incident: u64) -> f64 {
    let asked = [(incident, vec![wish(numbered(7))])];
    book.turn(*now, settings, &asked);
    assert_eq!(book.orders(settings).len(), 1);
    *now += 1.0;
    let closed = *now;
    while !book.orders(settings).is_empty() {
        book.turn(*now, settings, &[]);
        *now += 1.0;
    }
    *now - 1.0 - closed
}

#[test]
fn an_announced_route_lingers_after_its_incident() {
    let (settings, mut book) = (lingering(), Book::default());
    book.turn(0.0, &settings, &asked(&[numbered(7)]));
    book.recorded(1, 4);
    let told = book.turn(700.0, &settings, &[]);
    assert_eq!(
        texts(&told),
        [
            "route 1, FlowSpec rule against 198.51.100.7/32 to 192.0.2.53/32 port 53 lingers for 5m, \
             until 1970-01-01 00:16:40 UTC: a flood that it keeps away cannot be seen"
        ]
    );
    assert_eq!((told[0].incident, told[0].what), (Some(1), Telling::Note));
    assert_eq!(book.turn(700.0, &settings, &[]), [], "said once");
    assert_eq!(book.turn(999.0, &settings, &[]), []);
    assert_eq!(book.orders(&settings).len(), 1);
    assert_eq!(book.entry(1).and_then(Entry::lingers_until), Some(1000.0));
    let told = book.turn(1000.0, &settings, &[]);
    assert_eq!(
        texts(&told),
        [
            "route 1, FlowSpec rule against 198.51.100.7/32 to 192.0.2.53/32 port 53 is withdrawn: \
             it lingered for 5m after the incident"
        ]
    );
    assert_eq!(
        (told[0].incident, told[0].what),
        (Some(1), Telling::Undone(4))
    );
    assert!(book.orders(&settings).is_empty());
    assert_eq!(book.totals(), (1, 1));
}

#[test]
fn what_was_not_announced_goes_with_its_incident() {
    for mode in [Mode::DryRun, Mode::Confirm] {
        let (mut settings, mut book) = (lingering(), Book::default());
        settings.mode = mode;
        book.turn(0.0, &settings, &asked(&[numbered(7)]));
        book.turn(1.0, &settings, &[]);
        assert_eq!(book.entries().count(), 0, "{mode:?}");
    }
    let (settings, mut book) = (lingering(), Book::default());
    book.turn(0.0, &settings, &asked(&[numbered(7)]));
    book.withdraw(1, 1.0).unwrap();
    book.turn(2.0, &settings, &[]);
    assert_eq!(book.entries().count(), 0, "it was held");
}

#[test]
fn a_route_that_comes_back_lingers_twice_as_long_to_an_hour() {
    let (mut settings, mut book) = (lingering(), Book::default());
    settings.limits.max_announcements = 100;
    let mut now = 0.0;
    let times: Vec<f64> = (1..=6)
        .map(|incident| lingered(&mut book, &settings, &mut now, incident))
        .collect();
    assert_eq!(
        times,
        [300.0, 600.0, 1200.0, 2400.0, LONGEST_LINGER, 3600.0]
    );
    // less than an hour after the last withdrawal, and more than that
    now += 3_590.0;
    assert_eq!(lingered(&mut book, &settings, &mut now, 7), LONGEST_LINGER);
    now += 3_600.0;
    assert_eq!(lingered(&mut book, &settings, &mut now, 8), 300.0);
    // also where the source was quiet for the TTL while the incident went on
    book.turn(now, &settings, &asked(&[numbered(9)]));
    now += 600.0;
    let told = book.turn(now, &settings, &asked(&[]));
    assert!(told[0].text.ends_with("its time is up"), "{told:?}");
    book.turn(now, &settings, &asked(&[numbered(9)]));
    book.turn(now + 1.0, &settings, &[]);
    let until = book.entries().find_map(Entry::lingers_until);
    assert_eq!(until, Some(now + 601.0));
}

/// What the setting is for: routers hide the flood, the incident closes after 15 s, and opens 5 s after the
/// withdrawal, because the flood is still on.
#[test]
fn a_long_flood_does_not_use_up_the_announcements() {
    let announcements = |linger: f64| {
        let (mut settings, mut book) = (settings(), Book::default());
        settings.limits.linger = linger;
        let (mut incident, mut seen, mut hidden) = (0, 0.0, 0.0);
        let (mut is_open, mut done, mut unprotected) = (false, 0, 0);
        for second in 0..6 * 3600 {
            let now = f64::from(second);
            if book.orders(&settings).is_empty() {
                (seen, hidden) = (seen + 1.0, 0.0);
                unprotected += 1;
            } else {
                (seen, hidden) = (0.0, hidden + 1.0);
            }
            if !is_open && seen >= 5.0 {
                (is_open, incident) = (true, incident + 1);
            }
            is_open &= hidden < 15.0;
            let asked = (incident, vec![wish(numbered(7))]);
            let told = book.turn(
                now,
                &settings,
                if is_open {
                    std::slice::from_ref(&asked)
                } else {
                    &[]
                },
            );
            done += told.iter().filter(|it| it.what == Telling::Done).count();
        }
        (done, unprotected, book.refused(Refusal::TooOften))
    };
    let (done, unprotected, refused) = announcements(0.0);
    assert!(done >= 40 && refused > 0, "{done} {refused}");
    assert!(unprotected > 10_000, "{unprotected} s");
    let (done, unprotected, refused) = announcements(300.0);
    assert!(done <= 10 && refused == 0, "{done} {refused}");
    assert!(unprotected < 100, "{unprotected} s");
}

#[test]
fn a_lingering_route_goes_on_for_the_next_incident() {
    let (mut settings, mut book) = (lingering(), Book::default());
    settings.mode = Mode::Confirm;
    book.turn(0.0, &settings, &asked(&[numbered(7)]));
    book.approve(1, 0.0, &settings).unwrap();
    book.recorded(1, 4);
    book.turn(100.0, &settings, &[]);
    // what the next one may not have does not keep it
    let against = Wish {
        against: Some(Refusal::SourceKnown),
        ..wish(numbered(7))
    };
    assert_eq!(book.turn(200.0, &settings, &[(2, vec![against])]), []);
    let told = book.turn(300.0, &settings, &[(3, vec![wish(numbered(7))])]);
    assert_eq!(
        (told[0].incident, told[0].what),
        (Some(1), Telling::Undone(4))
    );
    assert!(told[0].text.ends_with("goes on for incident 3"), "{told:?}");
    assert_eq!((told[1].incident, told[1].what), (Some(3), Telling::Kept));
    assert_eq!(told.len(), 2);
    assert_eq!(book.totals(), (1, 0), "it was there all the time");
    assert_eq!(standings(&book), [Standing::Wanted]);
    // the TTL counts again, and it lingers as long as it would have
    book.turn(800.0, &settings, &[(3, Vec::new())]);
    assert_eq!(book.orders(&settings).len(), 1);
    book.turn(850.0, &settings, &[]);
    book.turn(1_149.0, &settings, &[]);
    assert_eq!(book.orders(&settings).len(), 1);
    book.turn(1_150.0, &settings, &[]);
    assert!(book.orders(&settings).is_empty());
}

#[test]
fn what_an_operator_says_goes_for_lingering_routes() {
    let (settings, mut book) = (lingering(), Book::default());
    let both = [numbered(7), numbered(8)];
    book.turn(0.0, &settings, &asked(&both));
    book.recorded(1, 4);
    book.turn(1.0, &settings, &[]);
    assert_eq!(book.approve(1, 2.0, &settings), Err(Wrong::NotWaiting));
    let told = book.withdraw(1, 2.0).unwrap();
    assert!(
        told[0].text.ends_with("an operator withdrew it"),
        "{told:?}"
    );
    assert_eq!(told[0].what, Telling::Undone(4));
    assert_eq!(book.withdraw(1, 2.0), Err(Wrong::Unknown));
    assert_eq!(book.orders(&settings).len(), 1);
    // by hand it goes when its time is up, and does not linger
    book.by_hand(3.0, &settings, numbered(8), 60.0, "").unwrap();
    book.turn(62.0, &settings, &[]);
    assert_eq!(book.orders(&settings).len(), 1);
    book.turn(63.0, &settings, &[]);
    assert!(book.orders(&settings).is_empty());

    // withdrawn by hand it was no flood that came back
    let mut now = 100.0;
    assert_eq!(lingered(&mut book, &settings, &mut now, 2), 300.0);
}

#[test]
fn what_a_killed_program_announced_is_undone_in_the_record() {
    let program = crate::control::testing::program(crate::control::testing::PLAIN);
    let shared = &program.supervisor.shared;
    let settings = lingering();
    let mut book = Book::default();
    let mut over = incident(1, Kind::DirectFlood);
    for asked in [asked(&[numbered(7)]), vec![], asked(&[numbered(7)])] {
        for told in book.turn(1.0, &settings, &asked) {
            if matches!(told.what, Telling::Done | Telling::Kept) {
                over.act(1.0, "dnscrub", told.text, true);
            }
        }
    }
    over.act(1.0, "dnscrub", "raises example.com to level attack", true);
    over.closed = Some(2.0);
    let incident = std::sync::Arc::new(over);
    let happened = dnscrub_detection::Happened::Closed;
    shared
        .incidents
        .publish(&crate::incidents::Event { happened, incident });
    super::forget(shared, &Book::default());
    let record = shared.incidents.get(1).unwrap();
    let undone: Vec<bool> = record
        .actions
        .iter()
        .map(|it| it.undone.is_some())
        .collect();
    assert_eq!(undone, [true, true, false], "{record:?}");
    let last = record.timeline.last().map(|it| it.text.as_str());
    assert_eq!(
        last,
        Some(
            "route 1, FlowSpec rule against 198.51.100.7/32 to 192.0.2.53/32 port 53 is withdrawn: \
             dnscrub was started again"
        )
    );
    let said = record.timeline.len();
    super::forget(shared, &Book::default());
    assert_eq!(shared.incidents.get(1).unwrap().timeline.len(), said);
}

#[test]
fn lingering_routes_follow_the_configuration() {
    let start = || {
        let (settings, mut book) = (lingering(), Book::default());
        book.turn(0.0, &settings, &asked(&[numbered(7)]));
        book.turn(1.0, &settings, &[]);
        book.turn(100.0, &settings, &[]);
        assert_eq!(book.orders(&settings).len(), 1);
        (settings, book)
    };
    let ends = |settings: Settings, mut book: Book, why: &str| {
        let told = book.turn(101.0, &settings, &[]);
        assert!(told[0].text.ends_with(why), "{told:?}");
        assert_eq!(book.entries().count(), 0);
    };
    let (mut settings, book) = start();
    settings.limits.linger = 0.0;
    ends(settings, book, "the incident is over");
    let (mut settings, book) = start();
    settings.limits.linger = 60.0;
    ends(settings, book, "it lingered for 1m after the incident");
    let (mut settings, book) = start();
    settings.flowspec = None;
    ends(settings, book, "the configuration has no such routes");
    for mode in [Mode::Off, Mode::DryRun] {
        let (mut settings, book) = start();
        settings.mode = mode;
        ends(settings, book, "the incident is over");
    }
    let (mut settings, mut book) = start();
    settings.limits.linger = 3600.0;
    assert_eq!(book.turn(3_600.0, &settings, &[]), []);
    assert_eq!(book.orders(&settings).len(), 1);
}

#[test]
fn lingering_routes_make_room_for_those_that_are_asked_for() {
    let (mut settings, mut book) = (lingering(), Book::default());
    let five: Vec<Route> = (1..=5).map(numbered).collect();
    book.turn(0.0, &settings, &asked(&five[..2]));
    book.turn(10.0, &settings, &[]);
    book.turn(
        20.0,
        &settings,
        &[(2, five[2..].iter().copied().map(wish).collect())],
    );
    book.turn(30.0, &settings, &[]);
    assert_eq!(book.orders(&settings).len(), 5);
    let next = [(3, vec![wish(numbered(6)), wish(numbered(3))])];
    let told = book.turn(40.0, &settings, &next);
    let gone = told
        .iter()
        .filter(|it| it.text.contains("another route needs its place"));
    assert_eq!(gone.count(), 1, "{told:?}");
    let orders = book.orders(&settings);
    let has = |route: Route| orders.contains(&route.order(&settings));
    assert_eq!(orders.len(), 5);
    assert!(
        has(numbered(6)) && has(numbered(3)) && !has(numbered(1)),
        "the first to go"
    );
    // not for one that could not be announced even so
    settings.limits.max_announcements = 6;
    book.turn(41.0, &settings, &[(3, vec![wish(numbered(8))])]);
    assert_eq!(book.orders(&settings).len(), 5);
    assert_eq!(book.refused(Refusal::TooMany), 1);
}

#[test]
fn of_past_withdrawals_the_latest_are_remembered() {
    let (mut settings, mut book) = (lingering(), Book::default());
    settings.limits.max_routes = 1000;
    settings.limits.max_announcements = 10_000;
    let many: Vec<Route> = (0..=MOST_REMEMBERED)
        .map(|number| {
            let source = format!("198.51.{}.{}/32", number / 256, number % 256);
            rule("192.0.2.53/32", &source)
        })
        .collect();
    let mut now = 0.0;
    for some in many.chunks(900) {
        book.turn(now, &settings, &asked(some));
        book.turn(now + 1.0, &settings, &[]);
        book.turn(now + 301.0, &settings, &[]);
        now += 400.0;
    }
    assert!(book.orders(&settings).is_empty());
    book.turn(now, &settings, &asked(&[many[0], many[1]]));
    book.turn(now + 1.0, &settings, &[]);
    let until: Vec<f64> = book.entries().filter_map(Entry::lingers_until).collect();
    assert_eq!(until, [now + 301.0, now + 601.0]);
}

#[test]
fn an_incident_from_its_opening_to_its_end() {
    let mut settings = settings();
    settings.blackhole.as_mut().unwrap().sources = Some(SourceBlackhole {
        community: super::settings::Community(65010, 667),
        kinds: vec![Kind::DirectFlood],
        min_rate: 50_000,
    });
    let mut incident = incident(1, Kind::DirectFlood);
    incident.sources.spoofed = Spoofed::Unlikely;
    incident.sources.top = vec![
        source("198.51.100.7/32", 60_000.0),
        source("203.0.113.9/32", 20_000.0),
    ];
    let mut book = Book::default();
    let asked = [(1, super::plan::wishes(&incident, &settings))];
    book.turn(0.0, &settings, &asked);
    let texts: Vec<String> = book
        .orders(&settings)
        .into_iter()
        .map(|order| order.text)
        .collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(
        texts.contains(
            &"route 198.51.100.7/32 next-hop self community [ 65010:667 65535:65281 ]".to_owned()
        ),
        "{texts:?}"
    );
    assert_eq!(
        book.refused(Refusal::Never),
        2,
        "203.0.113.9 for two services"
    );
}

/// A book that goes on after a restart with what was in the file, and what it tells.
fn restarted(book: &Book, now: f64, settings: &Settings) -> (Book, Vec<Told>) {
    let file = serde_json::to_string(&book.kept()).unwrap();
    let mut again = Book::default();
    let kept = serde_json::from_str(&file).unwrap();
    let told = again.restore(kept, now, settings, |_, _, _| true);
    (again, told)
}

#[test]
fn a_restart_forgets_no_route_that_is_in_force_held_or_lingers() {
    let mut settings = lingering();
    settings.mode = Mode::Confirm;
    let mut book = Book::default();
    let three = [numbered(1), numbered(2), numbered(3)];
    book.turn(0.0, &settings, &asked(&three));
    book.approve(1, 1.0, &settings).unwrap();
    book.recorded(1, 4);
    book.approve(2, 1.0, &settings).unwrap();
    book.withdraw(2, 2.0).unwrap();
    book.by_hand(2.0, &settings, numbered(9), 60.0, "a try")
        .unwrap();
    let stands = |book: &Book| -> Vec<(u64, Standing)> {
        book.entries().map(|it| (it.id, it.standing)).collect()
    };
    let before = [
        (1, Standing::Wanted),
        (2, Standing::Held),
        (3, Standing::Waiting),
        (4, Standing::Wanted),
    ];
    assert_eq!(stands(&book), before);

    let (mut book, told) = restarted(&book, 30.0, &settings);
    let said: Vec<(u64, &str)> = told.iter().map(|it| (it.id, it.text.as_str())).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.iter()
            .all(|(_, it)| it.ends_with("goes on: dnscrub was started again"))
    );
    assert_eq!(
        book.turn(30.0, &settings, &asked(&three)),
        [],
        "nothing is announced anew"
    );
    assert_eq!(stands(&book), before);

    // the record was not written any more that had it
    let mut without = Book::default();
    let told = without.restore(book.kept(), 30.0, &settings, |_, _, _| false);
    assert_eq!((told[0].id, told[0].what), (1, Telling::Kept));
    assert_eq!(
        super::book::announced_in(&told[0].text),
        Some("route 1, FlowSpec rule against 198.51.100.1/32 to 192.0.2.53/32 port 53")
    );

    // the incident is over: what lingers goes when it would have gone, however often it is started again
    let told = book.turn(40.0, &settings, &[]);
    assert!(
        told.iter().any(|it| it.text.contains("lingers for 5m")),
        "{told:?}"
    );
    let (mut book, _) = restarted(&book, 200.0, &settings);
    book.turn(200.0, &settings, &[]);
    assert_eq!(stands(&book), [(1, Standing::Wanted)]);
    assert_eq!(book.turn(339.0, &settings, &[]), []);
    let told = book.turn(340.0, &settings, &[]);
    assert_eq!(told[0].what, Telling::Undone(4));
    assert!(
        told[0]
            .text
            .ends_with("it lingered for 5m after the incident"),
        "{told:?}"
    );

    // and how long it lingered is known after the next start as well
    let (mut book, _) = restarted(&book, 400.0, &settings);
    settings.mode = Mode::Announce;
    book.turn(400.0, &settings, &asked(&[numbered(1)]));
    book.turn(410.0, &settings, &[]);
    let until: Vec<f64> = book.entries().filter_map(Entry::lingers_until).collect();
    assert_eq!(until, [410.0 + 600.0]);
}

#[test]
fn routes_are_in_the_state_folder_and_damage_is_set_aside() {
    let program = crate::control::testing::program(crate::control::testing::PLAIN);
    let (shared, folder) = (&program.supervisor.shared, program.folder.path());
    let owner = super::RouteOwner::default();
    owner.restore(shared, folder);
    owner.save();
    let path = folder.join("routes.json");
    assert!(!path.exists(), "there is nothing to keep");
    let settings = lingering();
    owner
        .inner()
        .book
        .turn(0.0, &settings, &asked(&[numbered(7)]));
    owner.inner().node.hold(1.0);
    owner.save();
    let kept = owner.inner().book.kept();

    let again = super::RouteOwner::default();
    again.restore(shared, folder);
    assert_eq!(again.inner().book.kept(), kept);
    // what is over by now is not there at the next start either
    again.inner().book = Book::default();
    again.inner().node = super::node::Node::default();
    again.save();
    let last = super::RouteOwner::default();
    last.restore(shared, folder);
    assert_eq!(last.inner().book.entries().count(), 0);
    std::fs::write(&path, "{}").unwrap();
    let damaged = super::RouteOwner::default();
    damaged.restore(shared, folder);
    assert_eq!(damaged.inner().book.entries().count(), 0);
    assert!(folder.join("routes.json.damaged").exists() && !path.exists());
}

/// Things that can happen to a book.
#[derive(Clone, Debug)]
enum Step {
    Turn { after: f64, routes: Vec<Route> },
    Close,
    Approve(u64),
    Withdraw(u64),
    ByHand(Route),
    Mode(Mode),
    Restart,
}

fn any_route() -> impl Strategy<Value = Route> {
    let destination = prop_oneof![
        Just(net("192.0.2.53/32")),
        Just(net("192.0.2.54/32")),
        Just(net("2001:db8:53::53/128")),
        Just(net("192.0.2.0/23")),
        Just(net("198.51.100.1/32")),
    ];
    let source = prop_oneof![
        (any::<u32>(), 0..=32_u8).prop_map(|(address, len)| {
            ipnet::Ipv4Net::new(address.into(), len)
                .unwrap()
                .trunc()
                .into()
        }),
        (any::<u128>(), 0..=128_u8).prop_map(|(address, len)| {
            ipnet::Ipv6Net::new(address.into(), len)
                .unwrap()
                .trunc()
                .into()
        }),
        (0..4_u8).prop_map(|it| net(&format!("198.51.100.{it}/32"))),
    ];
    prop_oneof![
        4 => (destination.clone(), source.clone())
            .prop_map(|(destination, source)| Route::FromSource { destination, source }),
        1 => destination.clone().prop_map(|destination| Route::LongPackets { destination, over: 600 }),
        2 => destination.prop_map(Route::Blackhole),
        1 => source.prop_map(Route::SourceBlackhole),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0.0..900.0, prop::collection::vec(any_route(), 0..8))
            .prop_map(|(after, routes)| Step::Turn { after, routes }),
        1 => Just(Step::Close),
        2 => (1..40_u64).prop_map(Step::Approve),
        1 => (1..40_u64).prop_map(Step::Withdraw),
        2 => any_route().prop_map(Step::ByHand),
        1 => prop::sample::select(vec![Mode::Off, Mode::DryRun, Mode::Confirm, Mode::Announce])
            .prop_map(Step::Mode),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_limits_hold(
        steps in prop::collection::vec(any_step(), 1..60),
        linger in prop::sample::select(vec![0.0, 300.0, LONGEST_LINGER]),
    ) {
        let (mut settings, mut book) = (settings(), Book::default());
        settings.limits.linger = linger;
        let limits = settings.limits.clone();
        let (mut now, mut wishes) = (0.0, Vec::new());
        let mut announced_at: Vec<f64> = Vec::new();
        for step in steps {
            let mut told = Vec::new();
            match step {
                Step::Turn { after, routes } => {
                    now += after;
                    wishes = asked(&routes);
                }
                Step::Close => wishes.clear(),
                Step::Approve(id) => told.extend(book.approve(id, now, &settings).unwrap_or_default()),
                Step::Withdraw(id) => told.extend(book.withdraw(id, now).unwrap_or_default()),
                Step::ByHand(route) => {
                    if let Ok((_, more)) = book.by_hand(now, &settings, route, 300.0, "") {
                        told.extend(more);
                    }
                }
                Step::Mode(mode) => settings.mode = mode,
                Step::Restart => {
                    let before = book.orders(&settings);
                    let again = restarted(&book, now, &settings);
                    told.extend(again.1);
                    book = again.0;
                    prop_assert_eq!(book.orders(&settings), before);
                }
            }
            told.extend(book.turn(now, &settings, &wishes));
            announced_at.extend(told.iter().filter(|it| it.what == Telling::Done).map(|_| now));

            let wanted: Vec<Route> = book
                .entries()
                .filter(|entry| entry.standing == Standing::Wanted)
                .map(|entry| entry.route)
                .collect();
            prop_assert_eq!(book.orders(&settings).len(), wanted.len());
            prop_assert!(settings.mode >= Mode::Confirm || wanted.is_empty());
            prop_assert!(wanted.len() <= limits.max_routes);
            for route in &wanted {
                prop_assert_eq!(allowed(route, &settings), Ok(()), "{}", route);
            }
            for v4 in [true, false] {
                let left = settings.services.iter().filter(|service| {
                    super::plan::is_v4(**service) == v4
                        && !wanted.contains(&Route::Blackhole(**service))
                });
                prop_assert!(left.count() > 0, "an address is left");
            }
            let last_hour = announced_at.iter().filter(|at| **at > now - 3600.0).count();
            prop_assert!(last_hour <= limits.max_announcements, "{} in an hour", last_hour);
            prop_assert!(book.entries().count() <= 300 && book.ended().count() <= 50);
            if wishes.is_empty() {
                // only announced ones linger, and not for ever
                for entry in book.entries().filter(|it| it.origin != Origin::Hand) {
                    let until = entry.lingers_until().unwrap_or(0.0);
                    prop_assert_eq!(entry.standing, Standing::Wanted);
                    prop_assert!(linger > 0.0 && until > now && until <= now + LONGEST_LINGER);
                }
            }
        }
    }
}
