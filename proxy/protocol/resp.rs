//! The wire protocol: where requests and replies begin and end, and how frames are written.
//!
//! Bytes stay bytes here: [`request`] finds a request's arguments, [`reply`] finds where a reply ends, both without
//! looking at a byte twice. [`value`] builds a tree, for the control plane only (COMMAND, CLUSTER SLOTS ...).

pub mod inbox;
pub mod reply;
pub mod request;
pub mod value;
pub mod write;

pub use inbox::Inbox;
pub use request::Request;
pub use value::Value;
