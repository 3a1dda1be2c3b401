//! What may change of how nodes are connected to: the proxy's own credentials, and how long connecting may take.
//!
//! A login is a key: lanes, pools and feeds are told apart by it, and keep it. So the credentials within stay those of the
//! start, and stand for whatever the proxy's own are when a connection is made.

use std::{
    borrow::Cow,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use super::{Credentials, Login};

/// What is in force.
#[derive(Debug)]
pub(super) struct InForce(RwLock<Values>);

#[derive(Debug)]
struct Values {
    patience: Duration,
    own: Option<Credentials>,
    /// What has been the proxy's own before, each once.
    former: Vec<Option<Credentials>>,
}

impl InForce {
    /// So much time for a connection, and these credentials.
    pub(super) fn new(patience: Duration, own: Option<Credentials>) -> InForce {
        InForce(RwLock::new(Values { patience, own, former: Vec::new() }))
    }

    /// From now on it is these.
    pub(super) fn adopt(&self, patience: Duration, own: Option<Credentials>) {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        values.patience = patience;
        if values.own != own {
            values.former.retain(|former| *former != own);
            let former = std::mem::replace(&mut values.own, own);
            values.former.push(former);
        }
    }

    /// How long a connection may take.
    pub(super) fn patience(&self) -> Duration {
        self.read().patience
    }

    /// Whether these have been the proxy's own, and are no more.
    pub(super) fn were_own(&self, credentials: &Credentials) -> bool {
        self.read().former.iter().flatten().any(|former| former == credentials)
    }

    /// The login as it is to be said now.
    pub(super) fn login<'a>(&self, login: &'a Login) -> Cow<'a, Login> {
        let values = self.read();
        if values.former.is_empty() {
            return Cow::Borrowed(login);
        }
        let now = |said: &Option<Credentials>| if values.former.contains(said) { &values.own } else { said }.clone();
        let credentials = if login.is_said { login.credentials.clone() } else { now(&login.credentials) };
        Cow::Owned(Login { credentials, own: now(&login.own), ..login.clone() })
    }

    fn read(&self) -> RwLockReadGuard<'_, Values> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(secret: &'static str) -> Option<Credentials> {
        Some(Credentials { username: None, secret: secret.into() })
    }

    #[test]
    fn logins_of_the_start_go_by_what_is_in_force() {
        let in_force = InForce::new(Duration::from_secs(1), password("a"));
        let own = Login { credentials: password("a"), own: password("a"), ..Login::default() };
        let foreign = Login { credentials: password("b"), ..own.clone() };
        let said = |login: &Login| {
            let login = in_force.login(login);
            [&login.credentials, &login.own].map(|found| found.clone().map_or(String::new(), |found| text(&found)))
        };
        assert_eq!((said(&own), said(&foreign)), (["a", "a"].map(str::to_owned), ["b", "a"].map(str::to_owned)));
        in_force.adopt(Duration::from_secs(2), password("c"));
        assert_eq!((said(&own), said(&foreign)), (["c", "c"].map(str::to_owned), ["b", "c"].map(str::to_owned)));
        assert_eq!(in_force.patience(), Duration::from_secs(2));
        let old = Login { is_said: true, ..own.clone() };
        assert!(in_force.were_own(&password("a").unwrap()) && !in_force.were_own(&password("c").unwrap()));
        assert_eq!(said(&old)[0], "a", "who says the old password is not let in by the new one");
        in_force.adopt(Duration::from_secs(2), password("a"));
        assert_eq!(said(&own)[0], "a");
        assert!(!in_force.were_own(&password("a").unwrap()));
    }

    fn text(credentials: &Credentials) -> String {
        String::from_utf8_lossy(&credentials.secret).into_owned()
    }
}
