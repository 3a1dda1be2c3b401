//! Passwords: values that no log line, error or debug print may show.

use std::{fmt, path::Path};

use subtle::ConstantTimeEq;

use super::ConfigError;

/// What is wrong with a password file that has none.
pub(super) const EMPTY: &str = "it is empty";

/// A password. It prints as stars; only [`Secret::reveal`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for AUTH alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `said` is this secret, in a time that does not tell how much of it is right.
    pub fn is(&self, said: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(said).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// Fills the secret `key` from its file, if there is one. Only the line end after it is cut off: editors add it.
pub(super) fn read_file(
    secret: &mut Option<Secret>,
    file: Option<&Path>,
    key: &'static str,
) -> Result<(), ConfigError> {
    let Some(file) = file else { return Ok(()) };
    if secret.is_some() {
        return Err(ConfigError::BothPasswords { key });
    }
    let unusable = |why: String| ConfigError::PasswordFile { key: key.to_owned(), file: file.to_owned(), why };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(unusable(EMPTY.to_owned()));
    }
    *secret = Some(Secret::new(text));
    Ok(())
}
