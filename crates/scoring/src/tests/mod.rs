//! Signals, rules and bands together.

mod conditions;
mod equivalence;
mod errors;
mod order;
