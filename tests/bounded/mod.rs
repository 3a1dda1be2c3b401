//! Promise 7: memory is bounded, whatever a client does.

pub mod account;
pub mod bounds;
pub mod isolation;
pub mod leaving;
pub mod node_limits;
pub mod open_files;
