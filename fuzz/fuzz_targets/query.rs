//! Any packet as a query: no panic, the same reading as hickory-proto's, and own answers that
//! hickory-proto understands.
#![no_main]

#[allow(dead_code, reason = "the other target calls the other half")]
#[path = "../../crates/wire/tests/agreement/mod.rs"]
mod agreement;

libfuzzer_sys::fuzz_target!(|packet: &[u8]| agreement::query(packet));
