//! The password files of the proxy's own users, read again when they change.

use std::{path::PathBuf, sync::Arc};

use super::watched::Watched;
use crate::{
    clients::users::{OwnUser, Users},
    config::{self, Config},
};

/// The password files of all users.
pub struct Passwords(Vec<Kept>);

struct Kept {
    user: Arc<OwnUser>,
    path: PathBuf,
    file: Watched,
}

impl Passwords {
    /// The files of these users, as the configuration has read them.
    pub fn of(config: &Config, users: &Users) -> Passwords {
        let kept = config.users.iter().filter_map(|(name, settings)| {
            let path = settings.password_file.clone();
            Some(Kept { user: users.find(name.as_bytes())?.clone(), file: Watched::new(vec![path.clone()]), path })
        });
        Passwords(kept.collect())
    }

    /// Reads the files that have changed, and lets their passwords count from now on. Where a file is of no use, the
    /// old passwords stay.
    pub fn look(&mut self) {
        for Kept { user, path, file } in &mut self.0 {
            if !file.are_due(false) {
                continue;
            }
            match config::passwords_in(path) {
                Ok(passwords) => {
                    tracing::info!(
                        user = &*user.name,
                        count = passwords.len(),
                        "the user's passwords have been read again"
                    );
                    user.change_passwords(passwords);
                }
                Err(why) => tracing::warn!(
                    "the new passwords of the user {} are not taken, the old ones stay: {}: {why}",
                    user.name,
                    path.display()
                ),
            }
        }
    }
}
