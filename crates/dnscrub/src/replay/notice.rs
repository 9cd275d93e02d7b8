//! The detector of a replay: the same as the proxy's, on the trace's clock.

use std::time::{Duration, Instant};

use dnscrub_detection::{Book, Detector, Incident};

use crate::data_path::DataPath;

/// How often the detector looks.
const EVERY: Duration = Duration::from_secs(1);

/// Notices incidents in a trace. Their times are seconds since the trace's beginning.
pub(super) struct Notice {
    detector: Detector,
    book: Book,
    next: Duration,
}

impl Default for Notice {
    fn default() -> Self {
        Self {
            detector: Detector::new(),
            book: Book::default(),
            next: EVERY,
        }
    }
}

impl Notice {
    /// Looks at all seconds that are over at this time.
    pub(super) fn advance(&mut self, path: &mut DataPath, began: Instant, at: Duration) {
        while at >= self.next {
            let window = path.take_window(began + self.next);
            self.detector
                .observe(&window, self.next.as_secs_f64(), &mut self.book);
            self.next += EVERY;
        }
    }

    /// All incidents in order, those that were not over at the end among them.
    pub(super) fn incidents(&self) -> &[Incident] {
        &self.book.open
    }
}
