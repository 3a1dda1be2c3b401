//! Promise 3: redirection is invisible.

pub mod discovery;
pub mod home_node;
pub mod redirects;
