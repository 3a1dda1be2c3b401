//! The wire protocol: where requests and replies begin and end, and how frames are written.
//!
//! Bytes stay bytes here: [`request`] finds a request's arguments, [`reply`] finds where a reply ends, both without
//! looking at a byte twice. [`value`] builds a tree, for the control plane only (COMMAND, CLUSTER SLOTS ...).
//!
//! A request is written, comes in two pieces, and is found; then a reply, of which only the end matters:
//! ```
//! use slotway::protocol::resp::{reply::Scanner, request::Parser, write};
//!
//! let mut bytes = Vec::new();
//! write::request(&mut bytes, &["SET", "foo", "bar"]);
//! assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$3\r\nbar\r\n");
//!
//! let mut parser = Parser::default();
//! assert_eq!(parser.find(&bytes[..20])?, None, "more is needed");
//! let found = parser.find(&bytes)?.expect("a whole request");
//! let request = parser.request(&bytes, found);
//! assert_eq!((request.len(), request.name(), request.arg(1)), (3, &b"SET"[..], &b"foo"[..]));
//! assert_eq!(found.used, bytes.len());
//!
//! let mut scanner = Scanner::default();
//! assert_eq!(scanner.find(b"*2\r\n:1\r\n$3\r\nab").unwrap(), None);
//! assert_eq!(scanner.find(b"*2\r\n:1\r\n$3\r\nabc\r\n+NEXT\r\n").unwrap(), Some(17));
//! # Ok::<(), slotway::protocol::resp::request::ProtocolError>(())
//! ```

pub mod inbox;
pub mod reply;
pub mod request;
pub mod value;
pub mod write;

pub use inbox::Inbox;
pub use request::Request;
pub use value::Value;
