//! All integration tests, as one binary that links once. They run against real servers in temporary folders on free
//! ports; `tests/run` installs what they need.

mod support;

mod account;
mod blocking;
mod bounds;
mod cli;
mod client_command;
mod clients;
mod commands_page;
mod deadlines;
mod differential;
mod discovery;
mod doctor;
mod frames;
mod fuzzing;
mod given_up;
mod guis;
mod harness;
mod hostile;
mod isolation;
mod keys;
mod keys_command;
mod layers;
mod lifecycle;
mod lost_node;
mod monitor;
mod observed;
mod open_files;
mod order;
mod pause;
mod persistence;
mod proxy_command;
mod pubsub;
mod redirects;
mod rights;
mod safety;
mod sanity;
mod scripts;
mod server;
mod sort;
mod splitting;
mod tracking;
mod transactions;
mod turned_away;
mod wait;
