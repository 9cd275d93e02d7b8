//! What reports that are one HTML file share: on a replay, and on an incident.

pub(crate) mod markup;
pub(crate) mod plot;
