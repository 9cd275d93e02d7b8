//! Upstreams that behave and such that do not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use dnscrub_embedded_authority::{Settings, TcpOrder};
use dnscrub_scoring::Transport;
use dnscrub_testkit::message::{a_query, answer};
use dnscrub_wire::{Query, Rcode, Response};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::outcome::{Answer, Reason, ResponseOutcome};

/// Sends `count` queries at once and checks that each gets its own answer, in whatever order.
pub(super) async fn pipeline(stream: &mut Stream, count: u16) -> Vec<u16> {
    let mut octets = Vec::new();
    for number in 0..count {
        octets.extend(framed(&host(number)));
    }
    let mut ids = Vec::new();
    let (mut reader, mut writer) = stream.0.split();
    let read = async {
        use tokio::io::AsyncReadExt;
        while ids.len() < usize::from(count) {
            let len = reader.read_u16().await.unwrap();
            let mut message = vec![0; len.into()];
            reader.read_exact(&mut message).await.unwrap();
            let response = Response::parse(&message).unwrap();
            assert_eq!((response.rcode, response.answers), (Rcode::NOERROR, 1));
            let query = host(response.id);
            let question = Query::parse(&query).unwrap();
            assert!(response.answers_question(&message, question.question(&query)));
            ids.push(response.id);
        }
    };
    let write = async { writer.write_all(&octets).await.unwrap() };
    tokio::join!(read, write);
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert!(
        sorted.into_iter().eq(0..count),
        "an answer is missing or twice there"
    );
    ids
}

#[test]
fn ten_thousand_pipelined_queries_are_all_answered() {
    run(async {
        for order in [TcpOrder::InOrder, TcpOrder::OutOfOrder] {
            let server = authority(
                false,
                &Settings {
                    tcp_order: order,
                    ..Settings::default()
                },
            );
            let proxy = Proxy::start(&[server.address()], "");
            let mut client = proxy.connect().await;
            let ids = pipeline(&mut client, 10_000).await;
            assert_eq!(
                ids.is_sorted(),
                order == TcpOrder::InOrder,
                "answers go back as they come"
            );
            assert_eq!(proxy.outcome(Outcome::Forwarded), 10_000);
            assert!(server.counts().tcp_connections <= 8);
            drop(client);
            proxy.quiet().await;
        }
    });
}

#[test]
fn many_clients_share_few_connections() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[server.address()], "");
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut client = proxy.connect().await;
            clients.spawn_local(async move {
                pipeline(&mut client, 100).await;
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        assert_eq!(proxy.outcome(Outcome::Forwarded), 5_000);
        assert!(
            server.counts().tcp_connections <= 8,
            "{:?}",
            server.counts()
        );
        proxy.quiet().await;
    });
}

#[test]
fn a_connection_is_used_again_and_closed_when_idle() {
    run(async {
        let server = authority(false, &Settings::default());
        let proxy = Proxy::start(&[server.address()], "");
        let mut client = proxy.connect().await;
        for number in 0..20 {
            assert_eq!(id(&client.ask(&host(number)).await), number);
        }
        assert_eq!(server.counts().tcp_connections, 1);
        proxy.sweep(Duration::from_secs(6));
        client.ask(&host(1)).await;
        assert_eq!(server.counts().tcp_connections, 2);
    });
}

#[test]
fn an_upstream_that_closes_after_each_answer_serves_all() {
    run(async {
        let upstream = upstream(|_, mut stream| async move {
            let query = stream.receive().await.unwrap();
            stream.send(&answer(&query, Rcode::NOERROR, 1)).await;
        })
        .await;
        let proxy = Proxy::start(&[upstream], "");
        let mut client = proxy.connect().await;
        pipeline(&mut client, 500).await;
        assert_eq!(proxy.outcome(Outcome::Forwarded), 500);
        drop(client);
        proxy.quiet().await;
    });
}

#[test]
fn an_upstream_that_serves_one_query_at_a_time_serves_all() {
    run(async {
        let upstream = upstream(|_, stream| answer_all(stream)).await;
        let proxy = Proxy::start(&[upstream], "");
        let mut client = proxy.connect().await;
        pipeline(&mut client, 1_000).await;
    });
}

#[test]
fn an_upstream_that_dies_within_an_answer_is_replaced_by_another() {
    run(async {
        let dying = upstream(|_, mut stream| async move {
            let query = stream.receive().await.unwrap();
            let octets = framed(&answer(&query, Rcode::NOERROR, 1));
            stream
                .0
                .write_all(&octets[..octets.len() - 1])
                .await
                .unwrap();
        })
        .await;
        let good = upstream(|_, stream| answer_all(stream)).await;
        let proxy = Proxy::start(&[dying, good], "");
        let mut client = proxy.connect().await;
        pipeline(&mut client, 100).await;
        assert!(proxy.count(|counters| counters.retries.get()) >= 1);
        drop(client);
        proxy.quiet().await;
    });
}

#[test]
fn one_that_dies_and_has_no_other_is_asked_once_more_then_the_client_is_told() {
    run(async {
        let attempts = Rc::new(Cell::new(0));
        let counted = Rc::clone(&attempts);
        let dying = upstream(move |_, mut stream| {
            counted.set(counted.get() + 1);
            async move {
                stream.receive().await;
            }
        })
        .await;
        let proxy = Proxy::start(&[dying], "");
        let mut client = proxy.connect().await;
        let told = client.ask(&host(9)).await;
        assert_eq!((id(&told), rcode(&told)), (9, Rcode::SERVFAIL));
        assert_eq!(attempts.get(), 2);
        assert_eq!(
            proxy.outcome(Outcome::Answered(Answer::ServFail, Reason::NoUpstream)),
            1
        );
    });
}

#[test]
fn where_nobody_listens_another_is_asked_and_then_the_client_is_told() {
    run(async {
        let good = upstream(|_, stream| answer_all(stream)).await;
        let proxy = Proxy::start(&[nobody(), nobody(), good], "");
        let mut client = proxy.connect().await;
        pipeline(&mut client, 50).await;

        let proxy = Proxy::start(&[nobody(), nobody()], "");
        let mut client = proxy.connect().await;
        let told = client.ask(&host(9)).await;
        assert_eq!((id(&told), rcode(&told)), (9, Rcode::SERVFAIL));
        drop(client);
        proxy.quiet().await;
    });
}

#[test]
fn a_silent_upstream_is_left_for_another() {
    run(async {
        let silent =
            upstream(|_, mut stream| async move { while stream.receive().await.is_some() {} })
                .await;
        let good = upstream(|_, stream| answer_all(stream)).await;
        let proxy = Proxy::start(&[silent, good], "");
        let mut client = proxy.connect().await;
        client.send(&host(1)).await;
        proxy
            .until("the query", |proxy| proxy.in_flight() == 1)
            .await;
        proxy.sweep(Duration::from_millis(400));
        assert_eq!(id(&client.receive().await.unwrap()), 1);
        // the next ones go there directly
        assert_eq!(id(&client.ask(&host(2)).await), 2);
        assert_eq!(proxy.count(|counters| counters.retries.get()), 1);
    });
}

#[test]
fn a_silent_upstream_without_another_ends_the_clients_wait() {
    run(async {
        let silent =
            upstream(|_, mut stream| async move { while stream.receive().await.is_some() {} })
                .await;
        let proxy = Proxy::start(&[silent], "");
        let mut client = proxy.connect().await;
        client.send(&host(1)).await;
        proxy
            .until("the query", |proxy| proxy.in_flight() == 1)
            .await;
        proxy.check_books();
        proxy.sweep(EXPIRED);
        assert_eq!(rcode(&client.receive().await.unwrap()), Rcode::SERVFAIL);
        assert_eq!(
            proxy.outcome(Outcome::Answered(Answer::ServFail, Reason::Expired)),
            1
        );
        proxy.check_books();
    });
}

#[test]
fn answers_to_something_else_are_ignored() {
    run(async {
        let confused = upstream(|_, mut stream| async move {
            while let Some(query) = stream.receive().await {
                let mut other_id = answer(&query, Rcode::NXDOMAIN, 0);
                other_id[1] ^= 1;
                stream.send(&other_id).await;
                let other_question = a_query("other.example.com", id(&query));
                stream
                    .send(&answer(&other_question, Rcode::NXDOMAIN, 0))
                    .await;
                stream.send(b"nonsense").await;
                let right = answer(&query, Rcode::NOERROR, 1);
                stream.send(&right).await;
                stream.send(&right).await;
            }
        })
        .await;
        let proxy = Proxy::start(&[confused], "");
        let mut client = proxy.connect().await;
        for number in 0..10 {
            let got = client.ask(&host(number)).await;
            assert_eq!((id(&got), rcode(&got)), (number, Rcode::NOERROR));
        }
        let counters = &proxy.shared.counters[0];
        proxy
            .until("the last of them", |_| {
                counters.responses().map(|(_, count)| count).sum::<u64>() == 50
            })
            .await;
        for (outcome, count) in counters.responses() {
            let expected = match outcome {
                ResponseOutcome::Delivered
                | ResponseOutcome::WrongQuestion
                | ResponseOutcome::Malformed => 10,
                ResponseOutcome::Late => 20,
                ResponseOutcome::UnknownId => 0,
            };
            assert_eq!(count, expected, "{outcome:?}");
        }
    });
}

#[test]
fn a_truncated_answer_goes_back_truncated() {
    run(async {
        let cutting = upstream(|_, mut stream| async move {
            while let Some(query) = stream.receive().await {
                let mut cut = answer(&query, Rcode::NOERROR, 2);
                cut[2] |= 2;
                cut.truncate(cut.len() - 7);
                stream.send(&cut).await;
            }
        })
        .await;
        let proxy = Proxy::start(&[cutting], "");
        let mut client = proxy.connect().await;
        let query = host(3);
        let got = client.ask(&query).await;
        let mut expected = answer(&query, Rcode::NOERROR, 2);
        expected[2] |= 2;
        expected.truncate(expected.len() - 7);
        assert_eq!(got, expected);
        assert_eq!(proxy.count(|counters| counters.retries.get()), 0);
    });
}

#[test]
fn a_query_reaches_the_upstream_as_it_was_but_for_its_id() {
    run(async {
        let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen_there = Rc::clone(&seen);
        let upstream = upstream(move |_, mut stream| {
            let seen = Rc::clone(&seen_there);
            async move {
                while let Some(query) = stream.receive().await {
                    stream.send(&answer(&query, Rcode::NOERROR, 1)).await;
                    seen.borrow_mut().push(query);
                }
            }
        })
        .await;
        let proxy = Proxy::start(&[upstream], "");
        let mut client = proxy.connect().await;
        let query = dnscrub_testkit::message::query("wWw.Example.COM", 1)
            .id(77)
            .udp_size(1400)
            .dnssec_ok(true)
            .build();
        for _ in 0..20 {
            client.ask(&query).await;
        }
        let seen = seen.borrow();
        assert!(seen.iter().all(|packet| packet[2..] == query[2..]));
        assert!(
            seen.iter().any(|packet| id(packet) != 77),
            "ids are drawn anew"
        );
    });
}

#[test]
fn a_worker_that_stops_finishes_what_is_in_flight() {
    use crate::worker::{Command, EndpointSockets, WorkerSetup, start};
    let server = authority(false, &Settings::default());
    server
        .behaviour()
        .set_delay(Duration::from_millis(200), Duration::ZERO);
    let mut proxy = None;
    run(async { proxy = Some(Proxy::start(&[server.address()], "")) });
    let Proxy { worker, shared, .. } = proxy.unwrap();
    let path = Rc::into_inner(worker)
        .map(|worker| worker.path.into_inner())
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint {
        index: 0,
        listener: 0,
    };
    let handle = start(WorkerSetup {
        index: 0,
        endpoints: vec![EndpointSockets {
            endpoint,
            udp: None,
            tcp: Some(listener),
        }],
        path,
        shared: Arc::clone(&shared),
        coalesce: Duration::ZERO,
        batch: dnscrub_net::BATCH,
    })
    .unwrap();
    run(async {
        let mut client = Stream::connect(address).await;
        client.send(&host(5)).await;
        let counters = &shared.counters[0];
        until("the query", || counters.in_flight_tcp.get() == 1).await;
        handle.commands.send(Command::Stop).await.unwrap();
        assert_eq!(id(&client.receive().await.unwrap()), 5);
        assert_eq!(client.receive().await, None);
        assert!(handle.join());
        assert_eq!(counters.queries(Transport::Tcp).received(), 1);
    });
}
