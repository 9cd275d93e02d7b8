//! Zone transfers, whole and not.

use std::time::Duration;

use dnscrub_embedded_authority::Settings;
use dnscrub_testkit::message::{name, parse};
use dnscrub_wire::{QueryBuilder, qtype};

use super::super::client::TRANSFER_ROOM;
use super::super::link::READ;
use super::*;
use crate::outcome::{Answer, Reason};

fn axfr(id: u16) -> Vec<u8> {
    QueryBuilder::new(&name("example.com"), qtype::AXFR)
        .id(id)
        .build()
}

/// A message of a made-up transfer: an opening SOA if asked for, and as many octets as told.
fn part(request: &[u8], soa: bool, octets: usize) -> Vec<u8> {
    let mut packet = request.to_vec();
    packet[2] = 0x84;
    packet[7] = if soa { 2 } else { 1 };
    if soa {
        packet.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0, 0, 0, 0, 9]);
        packet.extend_from_slice(&[0; 16]);
    }
    packet.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
    packet.extend_from_slice(&(octets as u16).to_be_bytes());
    packet.resize(packet.len() + octets, 0);
    packet
}

/// Sends a zone without end; the first message at once, the others only if `more`.
async fn endless(more: bool) -> SocketAddr {
    upstream(move |_, mut stream| async move {
        let Some(request) = stream.receive().await else {
            return;
        };
        stream.send(&part(&request, true, 10)).await;
        let message = framed(&part(&request, false, 60_000));
        while more && stream.0.write_all(&message).await.is_ok() {}
        // until the other side has had enough
        let _ = stream.receive().await;
    })
    .await
}

/// Octets of a transfer, the only one, that wait for the client to take them.
fn waiting(proxy: &Proxy) -> usize {
    turn(&proxy.worker, Instant::now(), |turn| {
        let [transfer] = turn.relay.transfers.as_slice() else {
            panic!("one transfer: {:?}", turn.relay.transfers)
        };
        transfer.client.state.borrow().link.outbox.len()
    })
}

#[test]
fn a_zone_comes_whole_with_other_answers_in_between() {
    run(async {
        let server = authority(
            true,
            &Settings {
                threads: 2,
                ..Settings::default()
            },
        );
        let proxy = Proxy::start(&[server.address()], "");
        let mut client = proxy.connect().await;
        client.send(&axfr(7)).await;
        for number in 100..200 {
            client.send(&host(number)).await;
        }
        let (mut records, mut soas, mut answers) = (0, 0, Vec::new());
        while soas < 2 || answers.len() < 100 {
            let message = client.receive().await.expect("more messages");
            if id(&message) == 7 {
                assert!(soas < 2, "nothing comes after the closing SOA");
                for record in &parse(&message).answers {
                    records += 1;
                    soas += u32::from(record.record_type() == hickory_proto::rr::RecordType::SOA);
                }
            } else {
                answers.push(id(&message));
            }
        }
        assert_eq!(records, 21_000 + 4);
        answers.sort_unstable();
        assert!(answers.into_iter().eq(100..200));
        assert_eq!(proxy.count(|counters| counters.transfers.get()), 1);
        // the connection is as good as before
        assert_eq!(id(&client.ask(&host(300)).await), 300);
        drop(client);
        proxy.quiet().await;
    });
}

#[test]
fn a_client_that_is_up_to_date_gets_its_one_soa() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[server.address()], "");
        let mut client = proxy.connect().await;
        let mut ixfr = QueryBuilder::new(&name("example.com"), qtype::IXFR)
            .id(3)
            .build();
        ixfr[9] = 1;
        ixfr.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0, 0, 0, 0, 7]);
        ixfr.extend_from_slice(&[0; 16]);
        let got = client.ask(&ixfr).await;
        assert_eq!(parse(&got).answers.len(), 1);
        proxy
            .until("its end", |proxy| {
                proxy.count(|counters| counters.transfers.get()) == 1
            })
            .await;

        // an older serial: the whole zone, as this server does it
        let serial_at = ixfr.len() - 17;
        ixfr[serial_at] = 6;
        client.send(&ixfr).await;
        proxy
            .until("its end", |proxy| {
                proxy.count(|counters| counters.transfers.get()) == 2
            })
            .await;
        assert_eq!(proxy.outcome(Outcome::Forwarded), 2);
        assert_eq!(proxy.in_flight(), 0);
    });
}

#[test]
fn a_refused_transfer_is_passed_on() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[server.address()], "");
        let mut client = proxy.connect().await;
        let elsewhere = QueryBuilder::new(&name("example.net"), qtype::AXFR)
            .id(5)
            .build();
        assert_eq!(rcode(&client.ask(&elsewhere).await), Rcode::REFUSED);
        client.ask(&host(1)).await;
        proxy.check_books();
    });
}

#[test]
fn no_more_is_read_than_the_client_takes_and_one_that_takes_nothing_is_cut_off() {
    run(async {
        let upstream = endless(true).await;
        let proxy = Proxy::start(&[upstream], "tcp: { write-timeout: 5s }");
        let mut client = proxy.connect().await;
        client.send(&axfr(7)).await;
        client.receive().await.unwrap();
        let full = async || {
            let is_full = |proxy: &Proxy| waiting(proxy) >= TRANSFER_ROOM;
            proxy.until("no room to be left", is_full).await;
        };
        full().await;
        // the upstream has more at any time, and everybody may go on
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
            // room for an octet was enough for a last read, behind one half of a message
            assert!(waiting(&proxy) <= TRANSFER_ROOM + 2 * READ);
        }
        let idle = turn(&proxy.worker, Instant::now(), |turn| {
            turn.relay.clients.longest_idle()
        });
        assert!(idle.is_none(), "a transfer is no idleness");
        // the kernel may have taken some meanwhile
        full().await;
        for seconds in [10, 20] {
            proxy.sweep(Duration::from_secs(seconds));
        }
        assert_eq!(proxy.count(|counters| counters.tcp_too_slow.get()), 1);
        proxy.quiet().await;
        assert_eq!(proxy.outcome(Outcome::Dropped(Reason::ConnectionClosed)), 1);
    });
}

#[test]
fn a_transfer_that_stands_still_or_takes_too_long_is_ended() {
    run(async {
        let limits = "tcp: { transfers: { idle-limit: 30s, time-limit: 600s } }";
        for (more, later) in [(false, 31), (true, 601)] {
            let upstream = endless(more).await;
            let proxy = Proxy::start(&[upstream], limits);
            let mut client = proxy.connect().await;
            client.send(&axfr(7)).await;
            assert_eq!(id(&client.receive().await.unwrap()), 7);
            let sweep = Duration::from_secs(later);
            turn(&proxy.worker, Instant::now() + sweep, |turn| {
                super::super::transfer::sweep(turn)
            });
            // what was on its way comes whole, then the stream ends
            while let Some(message) = client.receive().await {
                assert_eq!(id(&message), 7);
            }
            assert_eq!(proxy.outcome(Outcome::Dropped(Reason::Expired)), 1);
            proxy.quiet().await;
        }
    });
}

#[test]
fn a_transfer_that_never_starts_is_answered() {
    run(async {
        let silent =
            upstream(|_, mut stream| async move { while stream.receive().await.is_some() {} })
                .await;
        let proxy = Proxy::start(&[silent], "");
        let mut client = proxy.connect().await;
        client.send(&axfr(7)).await;
        proxy
            .until("the transfer", |proxy| proxy.in_flight() == 1)
            .await;
        let later = Instant::now() + Duration::from_secs(3_600);
        turn(&proxy.worker, later, |turn| {
            super::super::transfer::sweep(turn)
        });
        assert_eq!(rcode(&client.receive().await.unwrap()), Rcode::SERVFAIL);
        // the connection stays
        client.send(&host(1)).await;
        proxy
            .until("the query", |proxy| proxy.in_flight() == 1)
            .await;
        drop(client);
        proxy.quiet().await;
    });
}

#[test]
fn another_upstream_is_asked_if_one_sends_nothing() {
    run(async {
        let closing = upstream(|_, mut stream| async move {
            stream.receive().await;
        })
        .await;
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[nobody(), closing, server.address()], "");
        let mut client = proxy.connect().await;
        client.send(&axfr(7)).await;
        proxy
            .until("its end", |proxy| {
                proxy.count(|counters| counters.transfers.get()) == 1
            })
            .await;
        assert_eq!(rcode(&client.receive().await.unwrap()), Rcode::NOERROR);
    });
}

#[test]
fn half_a_zone_ends_the_connection() {
    run(async {
        let breaking = upstream(|_, mut stream| async move {
            let request = stream.receive().await.unwrap();
            stream.send(&part(&request, true, 10)).await;
        })
        .await;
        let proxy = Proxy::start(&[breaking], "");
        let mut client = proxy.connect().await;
        client.send(&axfr(7)).await;
        assert_eq!(id(&client.receive().await.unwrap()), 7);
        assert_eq!(client.receive().await, None);
        assert_eq!(proxy.outcome(Outcome::Dropped(Reason::NoUpstream)), 1);
        proxy.quiet().await;
    });
}

#[test]
fn too_many_transfers_are_refused() {
    run(async {
        let upstream = endless(false).await;
        let proxy = Proxy::start(&[upstream], "tcp: { transfers: { max-concurrent: 1 } }");
        let mut client = proxy.connect().await;
        client.send(&axfr(7)).await;
        assert_eq!(id(&client.receive().await.unwrap()), 7);
        let refused = client.ask(&axfr(8)).await;
        assert_eq!((id(&refused), rcode(&refused)), (8, Rcode::REFUSED));
        assert_eq!(
            proxy.outcome(Outcome::Answered(Answer::Refused, Reason::TransferLimit)),
            1
        );
        drop(client);
        proxy
            .until("the client to be gone", |proxy| {
                proxy.count(|counters| counters.tcp_open.get()) <= 1
            })
            .await;
    });
}
