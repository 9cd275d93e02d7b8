//! For the end-to-end tests: the program in this process, its books, and a packet path without
//! sockets on virtual time.

mod books;
mod proxy;
mod simulation;

use std::time::{Duration, Instant};

pub use books::Books;
pub use proxy::{Proxy, TOKEN};
pub use simulation::{Simulation, Transmission, configuration, listener, path_of};

/// How long a condition may take to come true. A busy machine is slow, not broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within a minute.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
