//! Debian's NSD and BIND as upstreams.

use dnscrub_testkit::message::{name, parse};
use dnscrub_testkit::servers::RealServer;
use dnscrub_wire::{QueryBuilder, qtype};
use hickory_proto::rr::RecordType;

use super::*;

const HOSTS: usize = 5_000;

fn zone() -> String {
    let mut text = String::from(
        "$TTL 300\n@ IN SOA ns1 hostmaster 7 3600 600 604800 300\n@ IN NS ns1\nns1 IN A 192.0.2.1\n",
    );
    for number in 0..HOSTS {
        text += &format!("host{number} IN A 192.0.2.7\n");
    }
    text
}

#[test]
fn nsd_is_pipelined_and_transfers_its_zone() {
    pipeline_and_transfer(&RealServer::nsd("example.com", &zone()));
}

#[test]
fn bind_is_pipelined_and_transfers_its_zone() {
    pipeline_and_transfer(&RealServer::bind("example.com", &zone()));
}

fn pipeline_and_transfer(server: &RealServer) {
    run(async {
        let upstreams = [Some(server.address()), server.address_v6()];
        for upstream in upstreams.into_iter().flatten() {
            let proxy = Proxy::start(&[upstream], "");
            let mut client = proxy.connect().await;
            upstreams::pipeline(&mut client, 2_000).await;
            assert_eq!(proxy.outcome(Outcome::Forwarded), 2_000);

            let axfr = QueryBuilder::new(&name("example.com"), qtype::AXFR)
                .id(7)
                .build();
            client.send(&axfr).await;
            let (mut records, mut soas) = (0, 0);
            while soas < 2 {
                for record in &parse(&client.receive().await.unwrap()).answers {
                    records += 1;
                    soas += u32::from(record.record_type() == RecordType::SOA);
                }
            }
            assert_eq!(records, HOSTS + 4);
            proxy
                .until("its end", |proxy| {
                    proxy.count(|counters| counters.transfers.get()) == 1
                })
                .await;

            // no EDNS, serial as it is: one SOA
            let mut ixfr = QueryBuilder::new(&name("example.com"), qtype::IXFR)
                .id(8)
                .build();
            ixfr[9] = 1;
            ixfr.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0, 0, 0, 0, 7]);
            ixfr.extend_from_slice(&[0; 16]);
            client.send(&ixfr).await;
            while client
                .receive()
                .await
                .is_some_and(|message| id(&message) != 8)
            {}
            proxy.until("its end", |proxy| proxy.in_flight() == 0).await;
            drop(client);
            proxy.quiet().await;
        }
    });
}
