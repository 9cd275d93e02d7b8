//! Instants of the wall clock as seconds since 1970 in UTC: in JSON, in records, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// The last second that is written as a date; calendars of four digits hold no later ones.
const LAST: f64 = 2e11;

/// Now.
pub(crate) fn now() -> f64 {
    from(SystemTime::now())
}

/// Now, in whole seconds.
pub(crate) fn seconds_now() -> u64 {
    now() as u64
}

/// An instant in seconds since 1970; 0 for what was before.
pub(crate) fn from(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

/// The instant so many seconds after 1970. What no calendar holds is the nearest that one does.
pub(crate) fn to_system(at: f64) -> SystemTime {
    UNIX_EPOCH + Duration::try_from_secs_f64(at.clamp(0.0, LAST)).unwrap_or_default()
}

/// `2026-01-31 14:05:09`, in UTC.
pub(crate) fn date(at: f64) -> String {
    let text = humantime::format_rfc3339_seconds(to_system(at)).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}

/// `14:05:09`, in UTC.
pub(crate) fn time_of_day(at: f64) -> String {
    let date = date(at);
    date.split(' ').next_back().unwrap_or_default().to_owned()
}

pub(crate) fn serialize<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(from(*time))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    let since = Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)?;
    Ok(UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates_and_nonsense_is_the_nearest_date() {
        let at = 1_700_000_252.5;
        assert_eq!(date(at), "2023-11-14 22:17:32");
        assert_eq!(time_of_day(at), "22:17:32");
        assert!((from(to_system(at)) - at).abs() < 1e-6);
        assert_eq!(date(f64::NEG_INFINITY), "1970-01-01 00:00:00");
        assert_eq!(date(f64::NAN), "1970-01-01 00:00:00");
        assert_eq!(time_of_day(f64::INFINITY), time_of_day(LAST));
        assert_eq!(from(UNIX_EPOCH - Duration::from_secs(1)), 0.0);
    }
}
