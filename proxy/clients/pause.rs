//! CLIENT PAUSE, of all clients or of those that would write. A client that works in all of the cluster pauses all clients of the
//! process, one in a database of its own those of that database, whatever its number.
//!
//! Whether there is a pause, or anybody monitors, is one relaxed load for each request; everything else costs only while
//! there is one.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{apart::Apart, lock};
use crate::commands::database::Scope;

/// The longest pause: as good as for ever, and no clock overflows.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Which clients are paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    /// Those that would write, or publish.
    Writes,
    /// Everybody.
    All,
}

/// The pauses of the process's clients, where there are any.
#[derive(Debug, Default)]
pub struct Pause {
    /// Whether there is one is asked for each request, together with others.
    pub(super) apart: Apart,
    state: watch::Sender<BTreeMap<Scope, (Paused, Instant)>>,
    /// Whether each of the nodes' functions promises not to write, once somebody has asked. None is loaded during a pause.
    functions: Mutex<Option<HashMap<Vec<u8>, bool>>>,
}

/// What is known of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Nobody has asked the nodes.
    NotAsked,
    /// There is none of this name.
    None,
    /// Whether it promises not to write.
    Known {
        /// The function has the flag `no-writes`.
        no_writes: bool,
    },
}

impl Pause {
    /// Begins a pause of this scope's clients. One under way is neither shortened nor narrowed.
    pub fn begin(&self, scope: Scope, who: Paused, time: Duration) {
        let now = Instant::now();
        let until = now + time.min(LONGEST);
        self.state.send_modify(|state| {
            state.retain(|_, (_, end)| *end > now);
            if state.is_empty() {
                *lock(&self.functions) = None;
            }
            let pause = state.entry(scope).or_insert((who, until));
            *pause = (pause.0.max(who), pause.1.max(until));
            self.apart.pause(true);
        });
    }

    /// Ends that of this scope's clients.
    pub fn end(&self, scope: Scope) {
        self.state.send_modify(|state| {
            state.remove(&scope);
            self.apart.pause(!state.is_empty());
        });
    }

    /// The nodes have these functions, each with whether it promises not to write.
    pub fn learn(&self, functions: HashMap<Vec<u8>, bool>) {
        *lock(&self.functions) = Some(functions);
    }

    /// What is known of a function.
    pub fn function(&self, name: &[u8]) -> Function {
        match &*lock(&self.functions) {
            None => Function::NotAsked,
            Some(known) => known.get(name).map_or(Function::None, |&no_writes| Function::Known { no_writes }),
        }
    }

    /// Whether there may be a pause.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.apart.is_paused()
    }

    /// Who of this scope's clients is paused, and how long still.
    pub fn now(&self, scope: Scope) -> Option<(Paused, Duration)> {
        if !self.is_on() {
            return None;
        }
        let now = Instant::now();
        self.state.send_if_modified(|state| {
            let before = state.len();
            state.retain(|_, (_, until)| *until > now);
            self.apart.pause(!state.is_empty());
            state.len() != before
        });
        let state = self.state.borrow();
        let (who, until) = concerns(&state, scope).max_by_key(|(who, until)| (*who, *until))?;
        Some((who, until.saturating_duration_since(now)))
    }

    /// Ready when a pause of this scope's clients is over, or any has changed: then it is to be looked at again.
    pub fn over(&self, scope: Scope) -> impl Future<Output = ()> + use<> {
        let mut news = self.state.subscribe();
        let until = concerns(&news.borrow_and_update(), scope).map(|(_, until)| until).min();
        let until = until.unwrap_or_else(Instant::now);
        async move {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                _ = news.changed() => {}
            }
        }
    }
}

/// The pauses that this scope's clients are in.
fn concerns(
    state: &BTreeMap<Scope, (Paused, Instant)>,
    scope: Scope,
) -> impl Iterator<Item = (Paused, Instant)> + use<'_> {
    let of_all = state.get(&Scope::CLUSTER).filter(|_| scope != Scope::CLUSTER);
    state.get(&scope).into_iter().chain(of_all).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::database::Databases;

    #[test]
    fn a_pause_is_neither_shortened_nor_narrowed() {
        let (pause, all) = (Pause::default(), Scope::CLUSTER);
        assert_eq!((pause.is_on(), pause.now(all)), (false, None));
        pause.begin(all, Paused::Writes, Duration::from_secs(100));
        assert!(matches!(pause.now(all), Some((Paused::Writes, left)) if left > Duration::from_secs(90)));
        pause.begin(all, Paused::All, Duration::from_secs(1));
        assert!(matches!(pause.now(all), Some((Paused::All, left)) if left > Duration::from_secs(90)));
        pause.end(all);
        assert_eq!((pause.is_on(), pause.now(all)), (false, None));
        pause.begin(all, Paused::All, Duration::ZERO);
        assert_eq!((pause.now(all), pause.is_on()), (None, false));
        pause.begin(all, Paused::Writes, Duration::from_millis(u64::MAX));
        assert!(matches!(pause.now(all), Some((Paused::Writes, _))), "what is over leaves nothing behind");
    }

    #[test]
    fn a_databases_pause_holds_nobody_elses_clients() {
        let scope = |name| Databases::new(Some(name), "{%}", 2).unwrap().scope();
        let (pause, all, shop, blog) = (Pause::default(), Scope::CLUSTER, scope("shop"), scope("blog"));
        pause.begin(shop, Paused::All, Duration::from_secs(100));
        let who = |scope| pause.now(scope).map(|(who, _)| who);
        assert_eq!([all, shop, blog].map(who), [None, Some(Paused::All), None]);
        pause.begin(all, Paused::Writes, Duration::from_secs(100));
        assert_eq!([all, shop, blog].map(who), [Some(Paused::Writes), Some(Paused::All), Some(Paused::Writes)]);
        pause.end(shop);
        assert_eq!([all, shop, blog].map(who), [Some(Paused::Writes); 3]);
        pause.end(all);
        assert!(!pause.is_on());
    }
}
