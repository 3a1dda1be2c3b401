//! The proxy's own users: `[users.celery]`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, de::Error};

use super::{Config, ConfigError, Secret, read, secret};
use crate::commands::rules::Rules;

/// A table of `[users]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// A file with the user's passwords, one a line.
    pub password_file: PathBuf,
    /// The passwords in that file; never empty once the configuration is loaded.
    #[serde(skip)]
    pub passwords: Vec<Secret>,
    /// The database of its own that the user works in; `None`: what its listener says.
    #[serde(default, deserialize_with = "read::text")]
    pub database: Option<String>,
    /// What the user may do, as rules of ACL SETUSER; `None`: everything.
    #[serde(default, deserialize_with = "rules")]
    pub rules: Option<Arc<Rules>>,
    /// The most clients of the user at one time; 0: no limit.
    #[serde(default, deserialize_with = "read::number")]
    pub max_clients: usize,
    /// The most requests of all its clients together in a second; 0: no limit.
    #[serde(default, deserialize_with = "read::number")]
    pub max_requests_per_second: u32,
    /// The most bytes held for all its clients together; 0: no limit.
    #[serde(default, deserialize_with = "read::size")]
    pub max_buffered: usize,
}

fn rules<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Rules>>, D::Error> {
    let text = String::deserialize(from)?;
    Rules::parse(&text).map(|rules| Some(Arc::new(rules))).map_err(D::Error::custom)
}

/// The passwords in a file: one a line, as many as are valid at a time. Empty lines do not count.
///
/// # Errors
/// Why there are none.
pub fn passwords_in(file: &Path) -> Result<Vec<Secret>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let lines = text.lines().filter(|line| !line.is_empty());
    let passwords: Vec<Secret> = lines.map(Secret::new).collect();
    if passwords.is_empty() { Err(secret::EMPTY.to_owned()) } else { Ok(passwords) }
}

impl Config {
    /// Reads the users' passwords.
    pub(super) fn read_passwords(&mut self) -> Result<(), ConfigError> {
        for (name, user) in &mut self.users {
            let unusable = |why: String| ConfigError::PasswordFile {
                key: format!("users.{name}.password"),
                file: user.password_file.clone(),
                why,
            };
            user.passwords = passwords_in(&user.password_file).map_err(unusable)?;
        }
        Ok(())
    }

    /// An error where two keys stand for one user, or a name cannot be a user's.
    pub(super) fn check_users(&self) -> Result<(), ConfigError> {
        let refused = |why: String| Err(ConfigError::User { why });
        if let Some(name) = self.users.keys().find(|name| name.is_empty() || name.contains([' ', '\0', '\n', '\r'])) {
            return refused(format!("`users`: `{name}` is no name of a user: it has no spaces"));
        }
        let client = self.client_username.as_deref().unwrap_or("default");
        if self.client_password.is_none() {
            return Ok(());
        }
        if self.users.contains_key(client) {
            return refused(format!(
                "the user `{client}` is there twice, by `users` and by `client_password`: keep one of them"
            ));
        }
        let listed = self.listeners.iter().flat_map(|listener| &listener.users);
        match listed.into_iter().find(|name| *name != client && !self.users.contains_key(*name)) {
            // Where `client_password` is set, nobody logs in to the nodes.
            Some(name) => refused(format!(
                "`listeners` names the user `{name}`, who could not log in: with `client_password` set, users are \
                 `{client}` and those of `users`"
            )),
            None => Ok(()),
        }
    }
}
