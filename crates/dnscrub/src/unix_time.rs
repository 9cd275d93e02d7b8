//! Instants of the wall clock in JSON: seconds since 1970 in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// Now, in seconds since 1970 as 32 bits, which come round in 2106 (RFC 9018 section 4.3).
pub(crate) fn seconds_now() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() as u32
}

pub(crate) fn serialize<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64(),
    )
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    let since = Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)?;
    Ok(UNIX_EPOCH + since)
}
