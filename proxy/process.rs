//! The whole process: its threads, what it learns of the cluster, and what operators see of it.

pub mod admin;
pub mod certificates;
pub mod copy;
pub mod databases;
pub mod discovery;
pub mod doctor;
pub mod inherited;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod passwords;
pub mod reload;
pub mod replication;
pub mod server;
pub mod takeover;
pub mod watched;
pub mod worker;
