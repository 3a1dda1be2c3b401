//! The cluster as the proxy knows it: who serves what, what a node's refusal means, and what becomes of a request that no
//! node has executed. Pure: discovery puts in what it has learnt.

pub mod explain;
pub mod recovery;
pub mod refusal;
pub mod replication;
pub mod scan;
pub mod topology;
pub mod zones;
