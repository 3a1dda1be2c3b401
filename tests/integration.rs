//! All integration tests, as one binary that links once. They run against real servers in temporary folders on free
//! ports; `tests/run` installs what they need.

mod support;

mod cli;
mod harness;
