//! Promise 3: redirection is invisible.

pub mod discovery;
pub mod pubsub_node;
pub mod redirects;
