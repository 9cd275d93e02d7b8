//! Numbers as people read them.

use std::time::Duration;

/// "0.31 ms", "12.4 ms", "1.2 s"; "-" for none.
pub(super) fn latency(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return "-".to_owned();
    };
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// A share of `whole` as a percentage that never rounds a loss away: "100 %", "99.99 %".
pub(super) fn percent(part: u64, whole: u64) -> String {
    if part >= whole {
        return "100 %".to_owned();
    }
    let share = part as f64 / whole as f64 * 100.0;
    format!("{:.2} %", (share * 100.0).floor() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(latency(Some(Duration::from_micros(312))), "0.31 ms");
        assert_eq!(latency(Some(Duration::from_micros(12_400))), "12 ms");
        assert_eq!(latency(Some(Duration::from_millis(1_240))), "1.2 s");
        assert_eq!(latency(None), "-");
    }

    #[test]
    fn a_loss_is_never_rounded_away() {
        assert_eq!(percent(0, 0), "100 %");
        assert_eq!(percent(9000, 9000), "100 %");
        assert_eq!(percent(99_999, 100_000), "99.99 %");
        assert_eq!(percent(1, 3), "33.33 %");
    }
}
