//! Promise 9: operators see every node, and what was absorbed for them.

pub mod cli;
pub mod databases;
pub mod doctor;
pub mod lifecycle;
pub mod observed;
pub mod reload;
pub mod succession;
pub mod told;
