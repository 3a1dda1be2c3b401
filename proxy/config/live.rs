//! Which keys may change while the proxy serves, and what reading the configuration again brings.

use super::{Config, ConfigError, ShownKey, Sources};
use crate::protocol::endpoint::ListenAddress;

/// The keys that may change; the name of a table stands for all its keys. All other keys need a restart.
macro_rules! live {
    ($($key:ident,)+) => {
        pub(crate) const LIVE: &[&str] = &[$(stringify!($key)),+];

        impl Config {
            fn take(&mut self, new: &Config) {
                $(self.$key.clone_from(&new.$key);)+
            }
        }
    };
}

live! {
    listen,
    listeners,
    trusted_proxies,
    client_username,
    client_password,
    client_password_file,
    allow_insecure_bind,
    protected_mode,
    max_clients,
    client_idle_timeout,
    client_window,
    max_buffered,
    password,
    password_file,
    request_timeout,
    connect_timeout,
    node_timeout,
    retry_timeout,
    slow_request,
    max_redirects,
    reads,
    max_replica_lag,
    read_your_writes,
    zone,
    node_zones,
    strict_order,
    cross_slot,
    deny,
    allow,
    log,
    drain_delay,
    drain_timeout,
    pubsub,
    users,
}

/// What has come of reading the configuration again.
#[derive(Debug)]
pub struct Reloaded {
    /// The configuration in force from now on: the old one, with what may change taken from the new one.
    pub config: Config,
    /// The keys that have changed, by name.
    pub taken: Vec<String>,
    /// What has changed, or needs a restart, for people: a line for each key.
    pub report: Vec<String>,
}

impl Config {
    /// Reads the configuration again and takes what may change.
    ///
    /// # Errors
    /// The new configuration is of no use, by itself or together with what cannot change. Then nothing of it is to be
    /// taken.
    pub fn reload(&self, sources: &Sources) -> Result<Reloaded, ConfigError> {
        let new = Config::load(sources)?;
        new.ready_to_serve()?;
        let mut config = self.clone();
        config.take(&new);
        config.own_databases().map_err(|why| ConfigError::Database { why })?;
        config.check_users()?;
        if self.tls_cert_file.is_none()
            && let Some(address) = config.addresses().find(|address| matches!(address, ListenAddress::Tls(_)))
        {
            return Err(ConfigError::FirstTls { address: address.to_string() });
        }
        config.ready_to_serve()?;
        let mut changes = Changes::default();
        for (key, was, is) in pairs(&self.shown, &new.shown) {
            changes.note(key, was, is);
        }
        for key in changed_secrets(self, &new) {
            changes.note_secret(key);
        }
        config.shown = changes.shown.into();
        Ok(Reloaded { config, taken: changes.taken, report: changes.report })
    }
}

#[derive(Default)]
struct Changes {
    shown: Vec<ShownKey>,
    taken: Vec<String>,
    report: Vec<String>,
}

impl Changes {
    fn note(&mut self, key: &str, was: Option<&ShownKey>, is: Option<&ShownKey>) {
        let may_change = LIVE.contains(&key.split('.').next().unwrap_or(key));
        self.shown.extend((if may_change { is } else { was }).cloned());
        let [was, is] = [was, is].map(|shown| shown.map_or("nothing", |shown| &*shown.value));
        if was == is {
            return;
        }
        if may_change {
            self.taken.push(key.to_owned());
            self.report.push(format!("{key} = {is} (it was {was})"));
        } else {
            self.report.push(format!("{key} = {is} needs a restart: it is still {was}"));
        }
    }

    fn note_secret(&mut self, key: String) {
        if !self.taken.contains(&key) {
            self.report.push(format!("{key} has changed"));
            self.taken.push(key);
        }
    }
}

/// The keys of both, sorted, each as it was and as it is.
fn pairs<'a>(
    before: &'a [ShownKey],
    now: &'a [ShownKey],
) -> Vec<(&'a str, Option<&'a ShownKey>, Option<&'a ShownKey>)> {
    let mut keys: Vec<&str> = before.iter().chain(now).map(|shown| &*shown.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let find = |all: &'a [ShownKey], key: &str| all.iter().find(|shown| shown.key == key);
    keys.into_iter().map(|key| (key, find(before, key), find(now, key))).collect()
}

/// The keys of passwords that have changed. What is shown of them is the same before and after, and they may have
/// changed in their files alone.
fn changed_secrets(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    if old.password != new.password {
        changed.push("password".to_owned());
    }
    if old.client_password != new.client_password {
        changed.push("client_password".to_owned());
    }
    let others = new
        .users
        .iter()
        .filter(|(name, user)| old.users.get(*name).is_some_and(|before| before.passwords != user.passwords));
    changed.extend(others.map(|(name, _)| format!("users.{name}.password")));
    changed
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::config::shown;

    /// The configuration of this text, read again with the other.
    fn reloaded(before: &str, after: &str) -> Result<Reloaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("slotway.toml");
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        fs::write(&file, format!("seeds = [\"a:1\"]\n{before}")).unwrap();
        let config = Config::load(&sources).unwrap();
        fs::write(&file, format!("seeds = [\"a:1\"]\n{after}")).unwrap();
        config.reload(&sources)
    }

    #[test]
    fn every_live_key_is_one() {
        let keys = shown(&Sources::default()).unwrap();
        for live in LIVE.iter().filter(|live| **live != "users") {
            assert!(keys.iter().any(|shown| shown.key.split('.').next() == Some(live)), "{live}");
        }
    }

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_told() {
        let new =
            reloaded("workers = 2", "workers = 3\nrequest_timeout = \"1s\"\n[pubsub]\nsoft_time = \"1s\"").unwrap();
        assert_eq!(
            new.report,
            [
                "pubsub.soft_time = \"1s\" (it was \"60s\")",
                "request_timeout = \"1s\" (it was \"3s\")",
                "workers = 3 needs a restart: it is still 2",
            ]
        );
        assert_eq!((new.config.request_timeout, new.config.workers), (Duration::from_secs(1), 2));
        assert_eq!(new.taken, ["pubsub.soft_time", "request_timeout"]);
        let workers = new.config.shown.iter().find(|shown| shown.key == "workers").unwrap();
        assert_eq!(workers.value, "2", "what needs a restart is told again the next time");
    }

    #[test]
    fn a_password_is_told_and_not_shown() {
        let new = reloaded("client_password = \"one\"", "client_password = \"other\"").unwrap();
        assert_eq!(new.report, ["client_password has changed"]);
        assert_eq!(new.config.client_password.unwrap().reveal(), "other");
        let new = reloaded("", "client_password = \"other\"").unwrap();
        assert_eq!(new.report, ["client_password = \"****\" (it was \"\")"]);
    }

    #[test]
    fn what_is_of_no_use_is_refused_whole() {
        for (before, after, why) in [
            ("", "request_timeout = \"soon\"\ndeny = [\"keys\"]", "request_timeout"),
            ("", "seed = []", "there is no key `seed`"),
            // Of no use with what cannot change: who clients are, nobody asks before a restart.
            (
                "listen = \"rediss://127.0.0.1:1\"\ntls_cert_file = \"/c\"\ntls_key_file = \"/k\"\npassword = \"a\"",
                "listen = \"rediss://0.0.0.0:1\"\ntls_cert_file = \"/c\"\ntls_key_file = \"/k\"\npassword = \"a\"\n\
                 tls_ca_cert_file = \"/a\"",
                "without a password",
            ),
            (
                "",
                "listen = \"rediss://127.0.0.1:1\"\ntls_cert_file = \"/c\"\ntls_key_file = \"/k\"",
                "has begun without TLS",
            ),
        ] {
            let error = reloaded(before, after).map(|new| new.report).unwrap_err().to_string();
            assert!(error.contains(why), "{after}: {error}");
        }
    }
}
