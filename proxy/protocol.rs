//! Bytes and words: what is said to clients and nodes, and how. Nothing here knows a command or a node.

pub mod address;
pub mod endpoint;
pub mod glob;
pub mod names;
pub mod resp;
pub mod says;
pub mod slot;
