//! All integration tests, as one binary that links once. They run against real servers in temporary folders on free
//! ports; `tests/run` installs what they need.

mod support;

mod bounded;
mod every_command;
mod harness;
mod in_step;
mod layers;
mod one_bad_node;
mod one_redis;
mod pages;
mod program_order;
mod redirection;
mod seen;
