//! Waking a task at most once between two of its turns, without a new waker for each.

use std::{
    cell::{Cell, RefCell},
    task::Waker,
};

/// A waker, and whether it has been woken already.
#[derive(Default)]
pub struct Waking {
    waker: RefCell<Option<Waker>>,
    is_awake: Cell<bool>,
}

impl Waking {
    /// What happens from now on wakes the task.
    #[inline]
    pub fn listen(&self, waker: &Waker) {
        self.is_awake.set(false);
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// The task is at work, and looks for itself.
    pub fn is_at_work(&self) {
        self.is_awake.set(true);
    }

    /// Wakes the task, unless it is awake already.
    #[inline]
    pub fn wake(&self) {
        if !self.is_awake.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_between_its_turns() {
        let (count, waking) = (Arc::new(Count::default()), Waking::default());
        let waker = Waker::from(count.clone());
        let woken = || count.0.load(Relaxed);
        waking.wake();
        assert_eq!(woken(), 0, "nobody listens");
        waking.listen(&waker);
        waking.wake();
        waking.wake();
        assert_eq!(woken(), 1);
        waking.listen(&waker);
        assert_eq!(woken(), 1);
        waking.wake();
        assert_eq!(woken(), 2);
        waking.is_at_work();
        waking.wake();
        assert_eq!(woken(), 2);
    }
}
