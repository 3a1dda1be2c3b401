//! Promise 2: no command is unknown because we forgot it.

pub mod commands_page;
pub mod keys;
pub mod rules;
