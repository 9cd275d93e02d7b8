//! Signals, rules and bands together.

mod conditions;
mod documentation;
mod equivalence;
mod errors;
mod order;
mod orders;
mod state;
