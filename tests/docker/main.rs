//! The compose files, the Dockerfile and the image, on a real Docker engine: what a user types is what these tests type.
//!
//! One story per file. Stories take turns (one engine, and some of them count its addresses); each brings up its own
//! project under its own names and ports, and takes it down again. Without an engine they say so and pass;
//! `SLOTWAY_DOCKER=required` makes that a failure. Public images are pulled where that is possible, else
//! `stand_ins.py` makes local ones under the same names; `SLOTWAY_DOCKER_PULL=never` does not try.
//! `SLOTWAY_DOCKER_IMAGE` names an image of the proxy to test instead of the Dockerfile's, `SLOTWAY_TEST_RELEASE` a folder
//! that `deploy/release` has made.

mod by_hand;
mod databases;
mod doctor;
mod engine;
mod everyday;
mod files;
mod host;
mod image;
mod losses;
mod new_addresses;
mod package;
mod password;
mod readme;
mod replicas;
mod rolling;
mod sidecar;
mod stack;
#[allow(unused_imports, reason = "shared with tests/integration.rs, which uses all of it")]
#[path = "../support/mod.rs"]
mod support;
mod tls;
