//! Promise 9: operators see every node, and what was absorbed for them.

pub mod cli;
pub mod databases;
pub mod doctor;
pub mod hot_and_slow;
pub mod lifecycle;
pub mod observed;
pub mod page;
pub mod release;
pub mod reload;
pub mod succession;
pub mod told;
