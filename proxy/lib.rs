//! Slotway: one port in front of a whole Redis or Valkey Cluster.
//!
//! [`architecture`] shows the rooms of the source and how requests pass through them.
//!
//! # Vocabulary
//! The words are those of Redis, of its cluster specification and of the field; each has one meaning here.
//!
//! Requests:
//! - **Request**: one client command, as the bytes that came.
//! - **Spec**: a command's row in the table. Its **treatment** says what the proxy does with requests of that command, and is
//!   the same for all of them.
//! - **Plan**: what becomes of one request: the treatment of its command, applied to its arguments.
//! - **Split**: a request goes in parts, each to one slot. A **LongSplit** is one of so many keys that others have their turn
//!   while it is being divided.
//! - **MergeRule**: the rule by which several replies become one, as `Sum`; a **Merge** collects the replies and applies it.
//! - **Route**: where a request is to go; **affinity** picks among nodes that serve it equally.
//! - **Line**: a session's ordered reply places. **Ticket**: the duty to fill one of them, exactly once.
//! - **Envelope**: a request on its way: its route, its traits and its ticket. Its bytes travel beside it.
//! - **Bounce**: a request comes back to its session, unexecuted. **Recovery** decides what becomes of it.
//! - **Barrier**: what makes a request wait until those ahead of it are answered.
//! - **Exclusive**: nothing is written behind a request on its connection before it is answered.
//! - **Prelude**: requests that go right in front of another, as one unit with it.
//!
//! Connections:
//! - **Session**: one client connection. **Caller**: who asks by it, and how nodes know who that is.
//! - **Link**: the worker's shared, pipelined connection to one node, in one lane.
//! - **Lane**: what must be equal for connections to be shared: RESP version, database, credentials.
//! - **Dedicated**: a node connection that one session holds alone. **Attempts**: the tries of one request on such ones.
//! - **Feed**: a node connection over which the node speaks unasked.
//! - **Admission**: one of the few places at a node for requests whose replies may be large; a large reply, once known to
//!   be, is **streamed** to its client from a Dedicated.
//! - **Doubt**: a connection on which something was given up that may still run.
//! - **Out of band**: past what keeps a node busy, on connections that nobody shares.
//! - **Back-off**: pauses that double, up to a last one.
//!
//! The cluster:
//! - **Topology**: which node owns which slot, numbered by epoch. **Hint**: what a worker tells discovery.
//! - **Pub/sub node**: the primary that all classic pub/sub goes through.
//!
//! A session:
//! - **Dispatcher**: decides on requests and carries them out. **Work**: what needs the session for itself: nothing else of it
//!   is in flight. **Job**: a request at work.
//! - **Judgment**: what a node has said of a client's right to a request; a **denial** is why a request does not go on.
//! - **Database of its own**: a part of the keys that its clients take for a whole server. Requests **enter** it (their keys
//!   are named as they are kept), replies are **stripped** of that.
//!
//! # Layers
//! A file imports only from its own room and from the rooms above it; `tests/layers.rs` checks it.
//! - `protocol`: bytes, pure
//! - `metrics`: what is counted
//! - `commands`: what commands mean, pure
//! - `cluster`: who serves what, pure
//! - `config`: what the operator wants
//! - `clients`: who the clients are
//! - `upstream`: one worker's connections to nodes
//! - `session`: one client connection
//! - `process`: threads, discovery, the admin port
//!
//! Above them stands the program, `main.rs` and `cli/`.
#![forbid(unsafe_code)]

/// How the source is built: rooms, threads, the life of a request.
#[cfg_attr(doc, doc = "", doc = include_str!("../ARCHITECTURE.md"))]
pub mod architecture {}
pub mod clients;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod metrics;
pub mod process;
pub mod protocol;
pub mod session;
pub mod upstream;

/// The version, as the metrics, the status and PROXY INFO tell it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that this is built from, with `-dirty` behind it where the sources were otherwise; `unknown` where the build knew of
/// none: that of a tarball, and a debug build. `build.rs` finds it out.
pub const REVISION: &str = env!("SLOTWAY_REVISION");
/// Both, and the day of the commit, where they are known: what `slotway --version` tells.
pub const LONG_VERSION: &str = env!("SLOTWAY_LONG_VERSION");
