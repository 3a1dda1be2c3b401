//! Promise 4: one connection's commands on one key take effect in the order sent.

pub mod given_up;
pub mod order;
pub mod replica_reads;
