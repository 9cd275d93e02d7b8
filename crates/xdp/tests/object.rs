//! The object that is committed is what the source compiles to.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::process::Command;

#[test]
fn the_object_is_what_the_source_compiles_to() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/compile");
    let output = Command::new(script).arg("--check").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
