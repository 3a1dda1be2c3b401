//! What the integration tests stand on: real servers and clusters in temporary folders, the real proxy binary, a raw
//! client whose replies are bytes, a scripted node, and waiting by condition.
#![allow(dead_code, reason = "each test uses its part")]

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod fake_node;
pub mod http;
pub mod namespace;
pub mod node;
pub mod ports;
pub mod prometheus;
pub mod proxy;
pub mod random;
pub mod reaper;
pub mod relay;
pub mod tls_proxy;
pub mod wait;
pub mod wire;

pub use certificates::{Authority, Issued};
pub use client::{Client, Reply, words};
pub use cluster::{Cluster, Shape};
pub use fake_node::{Act, FakeNode};
pub use namespace::Namespace;
pub use node::{Flavour, Node, NodeTls, Setup};
pub use prometheus::Prometheus;
pub use proxy::{Proxy, Settings};
pub use random::Random;
pub use tls_proxy::TlsProxy;
pub use wait::{eventually, until};
