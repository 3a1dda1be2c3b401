//! One worker's connections to nodes, and what waits for their replies.

pub mod connector;
pub mod dedicated;
pub mod descriptors;
pub mod dial;
pub mod doubt;
pub mod feed;
pub mod link;
pub mod router;
pub mod sizes;
pub mod ticket;
pub mod transport;
mod waking;
