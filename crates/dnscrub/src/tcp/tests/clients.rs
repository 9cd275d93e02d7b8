//! Clients that behave and such that do not.

use std::time::Duration;

use dnscrub_embedded_authority::Settings;
use dnscrub_packet_filter::FilterReason;
use dnscrub_testkit::message::malformed_sample;
use dnscrub_wire::Malformed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::outcome::Reason;

/// A server that never answers.
async fn silent() -> SocketAddr {
    upstream(|_, mut stream| async move { while stream.receive().await.is_some() {} }).await
}

#[test]
fn a_query_may_come_octet_by_octet() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[server.address()], "");
        let mut client = proxy.connect().await;
        for octet in framed(&host(1)) {
            client.0.write_all(&[octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(id(&client.receive().await.unwrap()), 1);
    });
}

#[test]
fn a_client_that_takes_too_long_over_a_message_is_cut_off() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(
            &[server.address()],
            "tcp: { receive-timeout: 2s, idle-timeout: 60s }",
        );
        let mut client = proxy.connect().await;
        client.ask(&host(1)).await;
        // the clock of a message starts with its first octet
        proxy.sweep(Duration::from_secs(3));
        client.0.write_all(&framed(&host(2))[..5]).await.unwrap();
        // how far the proxy has read cannot be seen from outside: another connection's answer shows it
        proxy.connect().await.ask(&host(3)).await;
        proxy.sweep(Duration::from_secs(1));
        assert_eq!(proxy.count(|counters| counters.tcp_too_slow.get()), 0);
        proxy.sweep(Duration::from_secs(9));
        assert_eq!(client.receive().await, None);
        assert_eq!(proxy.count(|counters| counters.tcp_too_slow.get()), 1);
        assert_eq!(proxy.received(), 2, "half a message is no query");
        proxy.quiet().await;
    });
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    run(async {
        // answers of 60,000 octets
        let upstream = upstream(|_, mut stream| async move {
            while let Some(query) = stream.receive().await {
                let mut long = answer(&query, Rcode::NOERROR, 1);
                long.resize(60_000, 0);
                stream.send(&long).await;
            }
        })
        .await;
        let proxy = Proxy::start(&[upstream], "");
        let mut client = proxy.connect().await;
        let mut queries = Vec::new();
        for number in 0..10_000 {
            queries.extend(framed(&host(number)));
        }
        let (mut reader, mut writer) = client.0.split();
        // what it sends fills the buffers on both sides at last; then it is cut off
        let write = async {
            let _ = writer.write_all(&queries).await;
        };
        let sweep = async {
            for round in 1.. {
                proxy.sweep(Duration::from_secs(6 * round));
                proxy.check_books();
                tokio::time::sleep(Duration::from_millis(10)).await;
                if proxy.count(|counters| counters.tcp_too_slow.get()) == 1 {
                    break;
                }
            }
        };
        tokio::join!(write, sweep);
        assert!(proxy.received() < 10_000, "it was held back");
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        proxy.quiet().await;
    });
}

#[test]
fn a_client_that_has_sent_everything_still_gets_everything() {
    run(async {
        let server = authority(false, &Settings::default());
        server
            .behaviour()
            .set_delay(Duration::from_millis(20), Duration::from_millis(20));
        let proxy = Proxy::start(&[server.address()], "tcp: { max-queries-in-flight: 7 }");
        let mut client = proxy.connect().await;
        for number in 0..100 {
            client.send(&host(number)).await;
        }
        client.0.shutdown().await.unwrap();
        let mut ids = Vec::new();
        while let Some(message) = client.receive().await {
            ids.push(id(&message));
        }
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..100));
        proxy.quiet().await;
    });
}

#[test]
fn no_more_queries_are_taken_than_may_be_in_flight() {
    run(async {
        let upstream = silent().await;
        let proxy = Proxy::start(&[upstream], "tcp: { max-queries-in-flight: 5 }");
        let mut client = proxy.connect().await;
        for number in 0..20 {
            client.send(&host(number)).await;
        }
        proxy
            .until("five queries", |proxy| proxy.in_flight() == 5)
            .await;
        proxy.connect().await;
        proxy
            .until("another client", |proxy| {
                proxy.count(|counters| counters.tcp_accepted.get()) == 2
            })
            .await;
        assert_eq!(proxy.received(), 5);
        // they are given up: the next ones are taken
        for expected in [10, 15, 20] {
            proxy.sweep(EXPIRED);
            proxy
                .until("five more", |proxy| proxy.received() == expected)
                .await;
        }
        proxy.sweep(EXPIRED);
        for _ in 0..20 {
            assert_eq!(rcode(&client.receive().await.unwrap()), Rcode::SERVFAIL);
        }
        drop(client);
        proxy.quiet().await;
    });
}

#[test]
fn a_client_that_has_gone_is_still_in_the_books() {
    run(async {
        let upstream = silent().await;
        let proxy = Proxy::start(&[upstream], "");
        let mut client = proxy.connect().await;
        for number in 0..10 {
            client.send(&host(number)).await;
        }
        proxy
            .until("the queries", |proxy| proxy.in_flight() == 10)
            .await;
        client.0.set_zero_linger().unwrap();
        drop(client);
        proxy
            .until("it to be gone", |proxy| {
                proxy.count(|counters| counters.tcp_open.get()) == 0
            })
            .await;
        proxy.check_books();
        proxy.quiet().await;
        assert_eq!(
            proxy.outcome(Outcome::Dropped(Reason::ConnectionClosed)),
            10
        );
    });
}

#[test]
fn what_is_not_a_query_ends_the_connection_after_the_answers_due() {
    run(async {
        let server = authority(false, &Settings::default());
        server
            .behaviour()
            .set_delay(Duration::from_millis(20), Duration::ZERO);
        let proxy = Proxy::start(&[server.address()], "");
        for kind in [
            Malformed::ShortHeader,
            Malformed::Response,
            Malformed::QnameCut,
        ] {
            let mut client = proxy.connect().await;
            let mut octets = framed(&host(1));
            octets.extend(framed(&malformed_sample(kind)));
            octets.extend(framed(&host(2)));
            client.0.write_all(&octets).await.unwrap();
            assert_eq!(id(&client.receive().await.unwrap()), 1);
            assert_eq!(client.receive().await, None);
            assert_eq!(proxy.outcome(Outcome::Dropped(Reason::Malformed(kind))), 1);
        }
        let mut client = proxy.connect().await;
        client.send(&[]).await;
        assert_eq!(client.receive().await, None);
        proxy.quiet().await;
    });
}

#[test]
fn answers_of_ours_keep_the_connection() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(
            &[server.address()],
            "rules: [ { name: no-any, when: { qtype: ANY }, do: refuse } ]",
        );
        let mut client = proxy.connect().await;
        for number in 0..10 {
            let any = dnscrub_testkit::message::query("example.com", 255)
                .id(number)
                .udp_size(1232)
                .build();
            let refused = client.ask(&any).await;
            assert_eq!((id(&refused), rcode(&refused)), (number, Rcode::REFUSED));
            assert_eq!(rcode(&client.ask(&host(number)).await), Rcode::NOERROR);
        }
        proxy.check_books();
    });
}

#[test]
fn at_the_limit_the_connection_idle_longest_makes_room() {
    run(async {
        let upstream = upstream(|_, stream| answer_all(stream)).await;
        let proxy = Proxy::start(&[upstream], "tcp: { max-connections: 3 }");
        let mut first = proxy.connect().await;
        first.ask(&host(1)).await;
        let mut second = proxy.connect().await;
        second.ask(&host(2)).await;
        let mut third = proxy.connect().await;
        third.ask(&host(3)).await;
        first.ask(&host(4)).await;
        let mut fourth = proxy.connect().await;
        fourth.ask(&host(5)).await;
        assert_eq!(second.receive().await, None);
        for client in [&mut first, &mut third, &mut fourth] {
            client.ask(&host(6)).await;
        }
        assert_eq!(proxy.count(|counters| counters.tcp_open.get()), 3);
        assert_eq!(proxy.count(|counters| counters.tcp_turned_away.get()), 0);
    });
}

#[test]
fn where_all_are_busy_a_new_connection_is_turned_away() {
    run(async {
        let upstream = silent().await;
        let proxy = Proxy::start(&[upstream], "tcp: { max-connections: 2 }");
        let mut clients = Vec::new();
        for number in 0..2 {
            let mut client = proxy.connect().await;
            client.send(&host(number)).await;
            clients.push(client);
        }
        proxy
            .until("both queries", |proxy| proxy.in_flight() == 2)
            .await;
        assert_eq!(proxy.connect().await.receive().await, None);
        assert_eq!(proxy.count(|counters| counters.tcp_turned_away.get()), 1);
        drop(clients);
        proxy.quiet().await;
    });
}

#[test]
fn a_prefix_gets_its_share_and_no_more() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(
            &[server.address()],
            "tcp: { max-connections-per-prefix: 2 }",
        );
        let mut first = proxy.connect().await;
        first.ask(&host(1)).await;
        let mut second = proxy.connect().await;
        second.ask(&host(2)).await;
        assert_eq!(proxy.connect().await.receive().await, None);
        assert_eq!(proxy.count(|counters| counters.tcp_turned_away.get()), 1);
        drop(first);
        proxy
            .until("room", |proxy| {
                proxy.count(|counters| counters.tcp_open.get()) == 1
            })
            .await;
        proxy.connect().await.ask(&host(3)).await;
        drop(second);
        proxy.quiet().await;
    });
}

#[test]
fn a_source_that_is_not_served_gets_no_connection() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[server.address()], "acl: { deny: [ 127.0.0.0/8 ] }");
        assert_eq!(proxy.connect().await.receive().await, None);
        assert_eq!(proxy.count(|counters| counters.tcp_turned_away.get()), 1);
        assert_eq!(
            proxy.outcome(Outcome::Dropped(Reason::Filter(FilterReason::AclDenied))),
            0
        );
        proxy.quiet().await;
    });
}

#[test]
fn idle_connections_and_old_ones_are_closed() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(
            &[server.address()],
            "tcp: { idle-timeout: 10s, connection-lifetime: 60s }",
        );
        let mut idle = proxy.connect().await;
        idle.ask(&host(1)).await;
        proxy.sweep(Duration::from_secs(9));
        idle.ask(&host(2)).await;
        proxy.sweep(Duration::from_secs(13));
        assert_eq!(idle.receive().await, None);

        // an old one gets the answer it waits for
        server
            .behaviour()
            .set_delay(Duration::from_millis(50), Duration::ZERO);
        let mut old = proxy.connect().await;
        old.send(&host(3)).await;
        proxy
            .until("the query", |proxy| proxy.in_flight() == 1)
            .await;
        turn(
            &proxy.worker,
            Instant::now() + Duration::from_secs(61),
            |turn| turn.sweep_clients(),
        );
        assert_eq!(id(&old.receive().await.unwrap()), 3);
        assert_eq!(old.receive().await, None);
        proxy.quiet().await;
    });
}
