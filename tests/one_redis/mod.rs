//! Promise 1: a client cannot tell the cluster from one Redis.

pub mod blocking;
pub mod client_command;
pub mod clients;
pub mod databases;
pub mod differential;
pub mod guis;
pub mod keys_command;
pub mod long_requests;
pub mod monitor;
pub mod pause;
pub mod persistence;
pub mod proxy_command;
pub mod pubsub;
pub mod sanity;
pub mod scripts;
pub mod server;
pub mod sort;
pub mod splitting;
pub mod tls;
pub mod tls_files;
pub mod tls_nodes;
pub mod tracking;
pub mod transactions;
pub mod unix_socket;
pub mod wait;
pub mod witness;
