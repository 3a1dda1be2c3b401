//! What one client's session leaves for another's, on whatever worker that is.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;

/// A message of another session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// Keys have changed that a client redirects the news of (CLIENT TRACKING ... REDIRECT): an array of them, or null
    /// for all.
    Changed(Bytes),
    /// A command of some client, as a line of MONITOR.
    Shown(Bytes),
}

impl Mail {
    fn len(&self) -> usize {
        let (Mail::Changed(bytes) | Mail::Shown(bytes)) = self;
        bytes.len()
    }

    /// Whether it is null: everything may have changed.
    fn forgets_all(&self) -> bool {
        matches!(self, Mail::Changed(keys) if keys.first() != Some(&b'*'))
    }
}

/// Messages in their order, until the session fetches them.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Whether there may be any: what is asked in each turn.
    full: AtomicBool,
    mails: Mutex<(Vec<Mail>, usize)>,
}

impl Mailbox {
    /// Adds a message; false where more than `most` bytes are waiting, and it is not added.
    pub fn put(&self, mail: Mail, most: usize) -> bool {
        let mut guard = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let (mails, size) = &mut *guard;
        // To forget everything twice is no more than once.
        if mail.forgets_all() && mails.last() == Some(&mail) {
            return true;
        }
        if most > 0 && *size + mail.len() > most {
            return false;
        }
        *size += mail.len();
        mails.push(mail);
        self.full.store(true, Relaxed);
        true
    }

    #[inline]
    pub fn has_mail(&self) -> bool {
        self.full.load(Relaxed)
    }

    pub fn take(&self) -> Vec<Mail> {
        let mut guard = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Relaxed);
        std::mem::take(&mut *guard).0
    }
}
