//! What reading a packet costs.
#![allow(clippy::unwrap_used, missing_docs, reason = "benchmarks")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dnscrub_wire::{Name, Query, QueryBuilder, Rcode, Response, edit, qtype};

fn packets() -> [(&'static str, Vec<u8>); 4] {
    let query = |text: &str| QueryBuilder::new(&Name::from_text(text).unwrap(), qtype::A).id(7);
    let long = format!("{0}.{0}.example.com", "x".repeat(50));
    [
        ("29 octets", query("example.com").build()),
        (
            "40 octets with OPT",
            query("example.com").dnssec_ok(true).build(),
        ),
        (
            "with cookie",
            query("www.example.com").option(10, &[5; 8]).build(),
        ),
        ("long name", query(&long).udp_size(1232).build()),
    ]
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Query::parse");
    group.throughput(Throughput::Elements(1));
    for (what, packet) in packets() {
        group.bench_function(what, |bencher| {
            bencher.iter(|| Query::parse(black_box(&packet)).map(|query| black_box(&query).qtype));
        });
    }
    group.finish();
}

fn answer(criterion: &mut Criterion) {
    let [_, (_, packet), ..] = packets();
    let query = Query::parse(&packet).unwrap();
    let mut buffer = packet;
    let len = edit::answer(&mut buffer, &query, Rcode::REFUSED, false, None);
    criterion.bench_function("edit::answer", |bencher| {
        bencher.iter(|| edit::answer(black_box(&mut buffer), &query, Rcode::REFUSED, false, None));
    });
    buffer.truncate(len);
    criterion.bench_function("Response::parse", |bencher| {
        bencher.iter(|| Response::parse(black_box(&buffer)));
    });
}

criterion_group!(benches, parse, answer);
criterion_main!(benches);
