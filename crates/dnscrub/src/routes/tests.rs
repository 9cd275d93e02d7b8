//! The limits, one by one and all together.
