//! Any packet as an upstream's response: no panic, and the same reading as hickory-proto's.
#![no_main]

#[allow(dead_code, reason = "the other target calls the other half")]
#[path = "../../crates/wire/tests/agreement/mod.rs"]
mod agreement;

libfuzzer_sys::fuzz_target!(|packet: &[u8]| agreement::response(packet));
