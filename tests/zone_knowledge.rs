//! What is known of zones' names comes from Debian's NSD and BIND and from files, follows their
//! changes, and is given up when it is too old.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub::zone_loader::ZoneStatus;
use dnscrub_testkit::message::{parse, query};
use dnscrub_testkit::servers::{RealServer, free_port};
use dnscrub_tests::{Proxy, wait_until};
use dnscrub_wire::edit::name_error;
use dnscrub_wire::{Name, Query, qtype};
use dnscrub_zones::Presence::{
    self, Delegated, EmptyNonTerminal, Exists, Missing, Unknown, Wildcard,
};

const ORIGIN: &str = "example.com";
const KEY: (&str, &str) = (
    "transfers",
    "a2V5IG9mIHRoZSB0ZXN0cyBvZiB6b25lIHRyYW5zZmVycw==",
);

fn zone(serial: u32, expire: u32, more: &str) -> String {
    format!(
        "@ IN SOA ns1 hostmaster {serial} 3600 600 {expire} 300\n@ IN NS ns1\n\
         ns1 IN A 192.0.2.1\nwww IN A 192.0.2.80\na.deep IN TXT \"deep\"\n\
         *.wild IN TXT \"wild\"\nsub IN NS ns.sub\nns.sub IN A 192.0.2.53\n{more}"
    )
}

fn configuration(server: SocketAddr, names: &str) -> String {
    format!(
        "pools: {{ default: {{ upstreams: [ {{ address: \"{server}\" }} ] }} }}\n\
         opcodes: {{ notify: {{ from: [ 127.0.0.1 ] }} }}\n\
         zones:\n  - {{ name: {ORIGIN}, names: {names} }}\n"
    )
}

fn presence(proxy: &Proxy, qname: &str) -> Presence {
    let policy = proxy.supervisor().shared.policy.load();
    let qname = Name::from_text(qname).expect("a name");
    let (_, zone) = policy.zones.find(&qname).expect("a zone");
    zone.look_up(&qname, Instant::now()).presence
}

fn status(proxy: &Proxy) -> ZoneStatus {
    let mut zones = proxy.supervisor().zones.status();
    assert_eq!(zones.len(), 1);
    zones.remove(0)
}

fn wait_for(proxy: &Proxy, qname: &str, expected: Presence) {
    wait_until(
        &format!("{qname} is {expected:?}: {:?}", status(proxy)),
        || presence(proxy, qname) == expected,
    );
}

fn expect_the_zone(proxy: &Proxy) {
    for (qname, expected) in [
        ("example.com", Exists),
        ("www.example.com", Exists),
        ("deep.example.com", EmptyNonTerminal),
        ("x.wild.example.com", Wildcard),
        ("x.sub.example.com", Delegated),
        ("missing.example.com", Missing),
    ] {
        assert_eq!(presence(proxy, qname), expected, "{qname}");
    }
}

#[test]
fn a_zone_from_nsd_is_polled_becomes_stale_and_expires() {
    let mut nsd = RealServer::nsd(ORIGIN, &zone(1, 6, ""));
    let names = format!("{{ axfr: \"{}\", refresh: 1s }}", nsd.address());
    let proxy = Proxy::start(&configuration(nsd.address(), &names));
    wait_for(&proxy, "www.example.com", Exists);
    expect_the_zone(&proxy);
    assert_eq!(status(&proxy).serial, Some(1));
    assert_eq!(status(&proxy).proof.as_deref(), Some("unsigned"));

    nsd.replace_zone(&zone(2, 6, "new IN A 192.0.2.9\n"));
    wait_for(&proxy, "new.example.com", Exists);
    assert_eq!(status(&proxy).serial, Some(2));
    wait_until("an unchanged zone is confirmed", || {
        status(&proxy).refreshes["unchanged"] > 0
    });

    nsd.kill();
    wait_until("the zone is stale", || status(&proxy).state == "stale");
    let stale = status(&proxy);
    assert!(
        stale
            .failure
            .is_some_and(|why| why.contains("cannot connect"))
    );
    wait_until("the zone expires", || status(&proxy).state == "expired");
    assert_eq!(presence(&proxy, "missing.example.com"), Unknown);
    assert_eq!(presence(&proxy, "www.example.com"), Unknown);
}

/// Has BIND add an A record at `owner`, or remove all that is there (RFC 2136 section 2.5), and
/// expects it to have done so.
fn update(server: SocketAddr, owner: &str, add: bool) {
    let origin = Name::from_text(ORIGIN).expect("a name");
    let owner = Name::from_text(owner).expect("a name");
    let mut message = b"\x12\x34\x28\0\0\x01\0\0\0\x01\0\0".to_vec();
    message.extend_from_slice(origin.as_wire());
    message.extend_from_slice(&qtype::SOA.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message.extend_from_slice(owner.as_wire());
    if add {
        message.extend_from_slice(&qtype::A.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    } else {
        message.extend_from_slice(&[0, 255, 0, 255, 0, 0, 0, 0, 0, 0]);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server).expect("loopback");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time");
    socket.send(&message).expect("loopback");
    let mut answer = [0; 512];
    let len = socket.recv(&mut answer).expect("an answer");
    assert!(len >= 12 && answer[3] & 0x0f == 0, "{:?}", &answer[..len]);
}

#[test]
fn a_signed_transfer_from_bind_is_followed_by_notify_and_ixfr() {
    let port = free_port(false);
    let options = format!(
        "notify explicit;\nalso-notify {{ 127.0.0.1 port {port}; }};\nnotify-delay 0;\n\
         allow-update {{ 127.0.0.1; }};"
    );
    let bind = RealServer::bind_with_key(ORIGIN, &zone(1, 3600, ""), KEY, &options);
    let secrets = tempfile::tempdir().expect("a folder");
    let secret = secrets.path().join("secret");
    fs::write(&secret, format!("{}\n", KEY.1)).expect("the folder is ours");
    let names = |key: &str| {
        format!(
            "{{ axfr: \"{}\", refresh: 1h, tsig: {{ name: {key}, secret-file: \"{}\" }} }}",
            bind.address(),
            secret.display()
        )
    };
    let yaml = configuration(bind.address(), &names(KEY.0));
    let proxy = Proxy::listening(&format!("\"127.0.0.1:{port}\""), &yaml);
    wait_for(&proxy, "www.example.com", Exists);
    expect_the_zone(&proxy);
    wait_until("the transfer is counted", || {
        status(&proxy).refreshes["whole"] == 1
    });

    update(bind.address(), "added.below.example.com", true);
    wait_for(&proxy, "added.below.example.com", Exists);
    assert_eq!(presence(&proxy, "below.example.com"), EmptyNonTerminal);
    wait_until("the change is counted", || {
        status(&proxy).refreshes["incremental"] == 1
    });
    assert_eq!(status(&proxy).serial, Some(2));

    update(bind.address(), "a.deep.example.com", false);
    wait_for(&proxy, "a.deep.example.com", Missing);
    wait_for(&proxy, "deep.example.com", Missing);
    assert_eq!(presence(&proxy, "www.example.com"), Exists);
    wait_until("the change is counted", || {
        status(&proxy).refreshes["incremental"] == 2
    });
    assert_eq!(status(&proxy).refreshes["whole"], 1);

    // a reload that changes nothing about the zone keeps what is known
    let zone_of = || {
        Arc::clone(
            proxy
                .supervisor()
                .shared
                .policy
                .load()
                .zones
                .iter()
                .next()
                .expect("a zone"),
        )
    };
    let before = zone_of();
    proxy
        .reload(&format!("{yaml}udp: {{ batch: 32 }}\n"))
        .expect("it is right");
    assert!(Arc::ptr_eq(&before, &zone_of()));
    assert_eq!(presence(&proxy, "added.below.example.com"), Exists);

    proxy
        .reload(&configuration(bind.address(), &names("another")))
        .expect("it is right, as far as can be seen");
    wait_until("the wrong key is told", || status(&proxy).failure.is_some());
    let refused = status(&proxy);
    assert_eq!(refused.state, "not loaded");
    let why = refused.failure.unwrap_or_default();
    assert!(why.contains("TSIG"), "{why}");
    assert_eq!(presence(&proxy, "missing.example.com"), Unknown);
}

#[test]
fn a_transfer_may_be_signed_in_part() {
    let hosts: String = (0..20_000)
        .map(|host| format!("host{host} IN A 192.0.2.2\n"))
        .collect();
    let nsd = RealServer::nsd_with_key(ORIGIN, &zone(1, 3600, &hosts), KEY);
    let secrets = tempfile::tempdir().expect("a folder");
    let secret = secrets.path().join("secret");
    fs::write(&secret, KEY.1).expect("the folder is ours");
    let names = format!(
        "{{ axfr: \"{}\", tsig: {{ name: {}, secret-file: \"{}\" }} }}",
        nsd.address(),
        KEY.0,
        secret.display()
    );
    let proxy = Proxy::start(&configuration(nsd.address(), &names));
    wait_for(&proxy, "host19999.example.com", Exists);
    expect_the_zone(&proxy);
    assert_eq!(presence(&proxy, "host20000.example.com"), Missing);
    let loaded = status(&proxy);
    assert!(loaded.names > Some(20_000) && loaded.memory < Some(1 << 20));
    wait_until("the metrics say so", || {
        let page = dnscrub::metrics::exposition(proxy.supervisor());
        page.contains("dnscrub_zone_loaded{zone=\"example.com\"} 1\n")
            && page.contains("dnscrub_zone_stale{zone=\"example.com\"} 0\n")
            && page.contains("dnscrub_zone_serial{zone=\"example.com\"} 1\n")
            && page.contains(
                "dnscrub_zone_transfers_in_total{zone=\"example.com\",result=\"whole\"} 1\n",
            )
    });
}

/// Rcode, AA, and the authority section, in an order of its own.
fn denial(packet: &[u8]) -> (u16, bool, Vec<String>) {
    let message = parse(packet);
    let mut records: Vec<String> = message
        .authorities
        .iter()
        .map(|record| {
            let owner = record.name.to_string().to_lowercase();
            format!(
                "{owner} {} {} {:?}",
                record.ttl,
                record.record_type(),
                record.data
            )
        })
        .collect();
    records.sort();
    let rcode = message.metadata.response_code.into();
    (rcode, message.metadata.authoritative, records)
}

#[test]
fn a_signed_zone_is_denied_as_bind_denies_it() {
    let bind = RealServer::bind_with(
        ORIGIN,
        &zone(1, 3600, "b.ent IN A 192.0.2.4\nz IN A 192.0.2.5\n"),
        "dnssec-policy default;\nallow-update { 127.0.0.1; };",
    );
    let names = format!("{{ axfr: \"{}\", refresh: 1s }}", bind.address());
    let proxy = Proxy::start(&configuration(bind.address(), &names));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(bind.address()).expect("loopback");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time");
    let same = |qname: &str, dnssec_ok: bool| {
        let packet = query(qname, qtype::A)
            .udp_size(4096)
            .dnssec_ok(dnssec_ok)
            .build();
        socket.send(&packet).expect("loopback");
        let mut theirs = [0; 4096];
        let len = socket.recv(&mut theirs).expect("an answer");
        let theirs = denial(&theirs[..len]);
        let query = Query::parse(&packet).expect("ours");
        let policy = proxy.supervisor().shared.policy.load();
        let (_, zone) = policy.zones.find(&query.qname).expect("a zone");
        let mut room = [0; 4096];
        let now = Instant::now();
        let authority = match zone.negative_answer(&query.qname, dnssec_ok, now, &mut room) {
            Ok(authority) => authority,
            Err(why) => return Err(format!("{qname}: {why:?}")),
        };
        let mut buffer = packet.clone();
        buffer.resize(4096, 0);
        let records = &room[..authority.octets];
        let len = name_error(&mut buffer, &query, records, authority.records, 4096);
        let ours = denial(&buffer[..len.expect("room")]);
        if ours == theirs {
            Ok(ours.2.len())
        } else {
            Err(format!("{qname}:\n{ours:#?}\n{theirs:#?}"))
        }
    };
    // signing takes BIND several versions of the zone
    let mut last = String::new();
    wait_until("both know the same version", || {
        match same("missing.example.com", true) {
            Ok(_) => true,
            Err(why) => {
                last = why;
                false
            }
        }
    });
    for qname in [
        "missing.example.com",
        "a.example.com",
        "zz.example.com",
        "x.y.z.example.com",
        "a.ent.example.com",
        "c.ent.example.com",
        "x.deep.example.com",
        "a.www.example.com",
        "\\000.example.com",
    ] {
        wait_until(&format!("{qname} is denied with proof, {last}"), || {
            same(qname, true).is_ok_and(|records| records >= 4)
        });
        wait_until(&format!("{qname} is denied"), || {
            same(qname, false) == Ok(1)
        });
    }
    assert_eq!(status(&proxy).proof.as_deref(), Some("held"));
}

#[test]
fn a_wrong_secret_and_a_missing_right_are_told() {
    let bind = RealServer::bind_with_key(ORIGIN, &zone(1, 3600, ""), KEY, "");
    let secrets = tempfile::tempdir().expect("a folder");
    let secret = secrets.path().join("secret");
    fs::write(&secret, "d3Jvbmc=\n").expect("the folder is ours");
    let with_key = format!(
        "{{ axfr: \"{}\", tsig: {{ name: {}, secret-file: \"{}\" }} }}",
        bind.address(),
        KEY.0,
        secret.display()
    );
    let without = format!("{{ axfr: \"{}\" }}", bind.address());
    for (names, part) in [(with_key, "TSIG"), (without, "allow-transfer")] {
        let proxy = Proxy::start(&configuration(bind.address(), &names));
        wait_until("the failure is told", || status(&proxy).failure.is_some());
        let why = status(&proxy).failure.unwrap_or_default();
        assert!(why.contains(part), "{why}");
        assert_eq!(presence(&proxy, "missing.example.com"), Unknown);
    }
}

#[test]
fn a_zone_file_is_followed_and_a_wrong_version_is_doubted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("example.com.zone");
    let write = |text: &str| {
        let aside = folder.path().join("aside");
        fs::write(&aside, format!("$TTL 3600\n{text}")).expect("the folder is ours");
        fs::rename(&aside, &path).expect("the folder is ours");
    };
    write(&zone(1, 3600, ""));
    let names = format!("{{ file: \"{}\" }}", path.display());
    let proxy = Proxy::start(&configuration(
        "127.0.0.1:9".parse().expect("an address"),
        &names,
    ));
    wait_for(&proxy, "www.example.com", Exists);
    expect_the_zone(&proxy);

    write(&zone(2, 3600, "new IN A 192.0.2.9\n"));
    wait_for(&proxy, "new.example.com", Exists);

    write(&zone(3, 3600, "newer IN NONSENSE 192.0.2.9\n"));
    wait_until("the wrong version is told", || {
        status(&proxy).failure.is_some()
    });
    let doubted = status(&proxy);
    assert_eq!((doubted.state.as_str(), doubted.serial), ("stale", Some(2)));
    let why = doubted.failure.unwrap_or_default();
    assert!(
        why.contains("example.com.zone:10:10: \"NONSENSE\""),
        "{why}"
    );
    assert_eq!(presence(&proxy, "newer.example.com"), Missing, "but stale");

    write(&zone(4, 3600, "newer IN A 192.0.2.9\n"));
    wait_for(&proxy, "newer.example.com", Exists);
    assert_eq!(status(&proxy).state, "fresh");
}
