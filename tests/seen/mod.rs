//! Promise 9: operators see every node, and what was absorbed for them.

pub mod agree;
pub mod alerts;
pub mod cli;
pub mod dashboard;
pub mod databases;
pub mod doctor;
pub mod four_ways;
pub mod hot_and_slow;
pub mod lifecycle;
pub mod observed;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod page;
pub mod release;
pub mod reload;
pub mod succession;
pub mod told;
pub mod top;
