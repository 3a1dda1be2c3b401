//! Slotway: one port in front of a whole Redis or Valkey Cluster.
//!
//! # Vocabulary
//! - **Session**: one client connection.
//! - **Link**: the worker's shared, pipelined connection to one node, in one lane.
//! - **Lane**: what must be equal for connections to be shared: RESP version, database, credentials.
//! - **Dedicated**: a node connection that one session holds alone.
//! - **Request**: one client command, as the bytes that came.
//! - **Spec**: a command's row in the table.
//! - **Plan**: what becomes of a request.
//! - **Line**: a session's ordered reply places. **Ticket**: the duty to fill one of them, exactly once.
//! - **Place**: one of the few at a node for requests whose replies may be large; a large reply, once known to be, is
//!   **streamed** to its client from a Dedicated.
//! - **Doubt**: a connection on which something was given up that may still run.
//! - **Topology**: which node owns which slot, numbered by epoch.
//!
//! # Layers
//! A file imports only from layers below its own; `tests/layers.rs` checks it.
//! - 0, bytes, pure: `address`, `slot`, `resp`, `says`
//! - 1, meaning, pure: `config`, `metrics`, `command`, `topology`, `refusal`, `recovery`, `plan`, `explain`, `merge`, `scan`, `scripts`, `sizes`
//! - 2, one worker's I/O: `transport`, `clients`, `rights`, `doubt`, `ticket`, `dial`, `descriptors`, `link`, `dedicated`, `feed`, `router`, `session`
//! - 3, process: `discovery`, `doctor`, `worker`, `admin`, `server`
//!
//! Above them stands the program, `main.rs` and `cli/`.
#![forbid(unsafe_code)]

pub mod address;
pub mod admin;
pub mod clients;
pub mod command;
pub mod config;
pub mod dedicated;
pub mod descriptors;
pub mod dial;
pub mod discovery;
pub mod doctor;
pub mod doubt;
pub mod explain;
pub mod feed;
pub mod link;
pub mod merge;
pub mod metrics;
pub mod plan;
pub mod recovery;
pub mod refusal;
pub mod resp;
pub mod rights;
pub mod router;
pub mod says;
pub mod scan;
pub mod scripts;
pub mod server;
pub mod session;
pub mod sizes;
pub mod slot;
pub mod ticket;
pub mod topology;
pub mod transport;
pub mod worker;
