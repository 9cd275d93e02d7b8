//! The packet path allocates nothing, and touches memory only as far as queries are in flight.

mod common;

use std::sync::Arc;

use common::*;
use dnscrub_forwarding::*;
use dnscrub_testkit::{CountingAllocator, VirtualClock};
use dnscrub_wire::Query;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn nothing_is_allocated_after_construction() {
    assert!(CountingAllocator::is_installed());
    for policy in [
        "least-outstanding",
        "weighted-random",
        "round-robin",
        "consistent-hash",
        "ordered",
    ] {
        let mut clock = VirtualClock::new();
        let pools = pool(3, &format!(r#", "policy": "{policy}""#))
            .replace(r#""}, {"#, r#"", "max-outstanding": 100}, {"#)
            .replace(r#""},{"#, r#"", "max-outstanding": 100},{"#);
        let policy = Arc::new(build(&pools, None, &clock));
        let mut forwarder = Forwarder::new(policy, 4, 512, [3; 32], clock.now());
        let mut released = Vec::with_capacity(64);
        let packet = query("www.example.com", 1);
        let parsed = Query::parse(&packet).unwrap();
        let mut sent = [(
            SocketRef {
                upstream: UpstreamIndex(0),
                socket: 0,
            },
            [0; 128],
        ); 600];
        let start = CountingAllocator::start();
        let (mut steps, mut queued, mut sends) = (0, 0, 0);
        for _ in 0..20 {
            forwarder.begin_batch();
            for slot in &mut sent {
                slot.1[..packet.len()].copy_from_slice(&packet);
                let admission = forwarder.admit(
                    0,
                    &parsed,
                    &mut slot.1[..packet.len()],
                    client(1),
                    (steps % 90) as u16,
                    clock.now(),
                );
                if let Admission::Forward(socket) = admission {
                    slot.0 = socket;
                }
            }
            forwarder.on_tick(clock.advance(MS), &mut |_| steps += 1);
            forwarder.on_refused(sent[0].0, clock.now(), &mut |_| steps += 1);
            forwarder.release(&mut released, clock.now());
            queued += forwarder.queued();
            for slot in sent.iter_mut().skip(150) {
                slot.1[2] |= 0x80;
                let _ = forwarder.on_response(slot.0, &mut slot.1[..packet.len()], clock.now());
            }
            forwarder.release(&mut released, clock.now());
            sends += released.len();
            released.clear();
            for _ in 0..30 {
                forwarder.on_tick(clock.advance(100 * MS), &mut |_| steps += 1);
            }
        }
        assert!(
            steps > 1000 && queued > 100 && sends > 50,
            "{queued} {sends}"
        );
        assert_eq!(CountingAllocator::since(start).allocations, 0);
    }
}
