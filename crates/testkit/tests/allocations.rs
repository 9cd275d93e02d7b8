//! The allocator that counts, installed.

use dnscrub_testkit::CountingAllocator;
use dnscrub_testkit::message::a_query;
use dnscrub_wire::Query;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn allocations_of_this_thread_are_counted_and_no_others() {
    assert!(CountingAllocator::is_installed());
    let ((), counts) = CountingAllocator::count(|| {
        let mut block = std::hint::black_box(Vec::<u8>::with_capacity(100));
        block.reserve_exact(1000);
        drop(std::hint::black_box(block));
    });
    assert_eq!(
        (counts.allocations, counts.octets, counts.frees),
        (2, 1100, 1)
    );

    let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
    let (done, finished) = std::sync::mpsc::sync_channel::<()>(0);
    let other = std::thread::spawn(move || {
        wait.recv().unwrap();
        drop(std::hint::black_box(vec![1_u8; 100_000]));
        done.send(()).unwrap();
    });
    let ((), counts) = CountingAllocator::count(|| {
        go.send(()).unwrap();
        finished.recv().unwrap();
    });
    other.join().unwrap();
    assert!(counts.octets < 100_000, "{counts:?}");
}

#[test]
fn parsing_a_query_allocates_nothing() {
    let packet = a_query("www.example.com", 1);
    let (query, counts) = CountingAllocator::count(|| Query::parse(std::hint::black_box(&packet)));
    assert!(query.is_ok());
    assert_eq!(counts.allocations, 0);
}
