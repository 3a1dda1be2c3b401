//! Promises 5 and 8: at most once, and never out of step.

pub mod frames;
pub mod fuzzing;
pub mod hostile;
pub mod renamed;
pub mod rights;
pub mod safety;
