//! Cost of judging.
fn main() {}
