//! CLIENT PAUSE: all clients of the process wait, or those that would write.
//!
//! Whether there is a pause, or anybody monitors, is one relaxed load for each request; everything else costs only while
//! there is one.

use std::{
    collections::HashMap,
    future::Future,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{apart::Apart, lock};

/// What is longer is as good as for ever, and no clock overflows.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Who is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    /// Who would write, or publish.
    Writes,
    /// Everybody.
    All,
}

/// The pause of the process's clients, where there is one.
#[derive(Debug)]
pub struct Pause {
    /// Whether it is on is asked for each request, together with others.
    pub(super) apart: Apart,
    state: watch::Sender<Option<(Paused, Instant)>>,
    /// The nodes' functions, once somebody has asked: whether each promises not to write. None is loaded during a pause.
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

impl Default for Pause {
    fn default() -> Pause {
        Pause { apart: Apart::default(), state: watch::Sender::new(None), functions: Mutex::default() }
    }
}

impl Pause {
    /// Begins a pause. One under way is neither shortened nor narrowed.
    pub fn begin(&self, who: Paused, time: Duration) {
        let now = Instant::now();
        let until = now + time.min(LONGEST);
        self.state.send_modify(|state| {
            let under_way = state.filter(|(_, end)| *end > now);
            if under_way.is_none() {
                *lock(&self.functions) = None;
            }
            *state = Some(under_way.map_or((who, until), |(old, end)| (old.max(who), end.max(until))));
            self.apart.pause(true);
        });
    }

    /// Ends it.
    pub fn end(&self) {
        self.state.send_modify(|state| {
            *state = None;
            self.apart.pause(false);
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

    /// Who is paused, and how long still.
    pub fn now(&self) -> Option<(Paused, Duration)> {
        if !self.is_on() {
            return None;
        }
        let (who, until) = (*self.state.borrow())?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.state.send_if_modified(|state| {
                let over = state.is_some_and(|(_, until)| until <= Instant::now());
                if over {
                    *state = None;
                    self.apart.pause(false);
                }
                over
            });
            return None;
        }
        Some((who, left))
    }

    /// Ready when the pause is over or has changed: then it is to be looked at again.
    pub fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut news = self.state.subscribe();
        let until = news.borrow_and_update().map_or_else(Instant::now, |(_, until)| until);
        async move {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                _ = news.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_neither_shortened_nor_narrowed() {
        let pause = Pause::default();
        assert_eq!((pause.is_on(), pause.now()), (false, None));
        pause.begin(Paused::Writes, Duration::from_secs(100));
        assert!(matches!(pause.now(), Some((Paused::Writes, left)) if left > Duration::from_secs(90)));
        pause.begin(Paused::All, Duration::from_secs(1));
        assert!(matches!(pause.now(), Some((Paused::All, left)) if left > Duration::from_secs(90)));
        pause.end();
        assert_eq!((pause.is_on(), pause.now()), (false, None));
        pause.begin(Paused::All, Duration::ZERO);
        assert_eq!((pause.now(), pause.is_on()), (None, false));
        pause.begin(Paused::Writes, Duration::from_millis(u64::MAX));
        assert!(matches!(pause.now(), Some((Paused::Writes, _))), "what is over leaves nothing behind");
    }
}
