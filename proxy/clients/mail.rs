//! What one client's session leaves for another's, on whatever worker that is: invalidation messages that a client
//! redirects (CLIENT TRACKING ... REDIRECT).

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;

/// What an invalidation message says: an array of keys, or null for all of them.
pub type Mail = Bytes;

/// Messages in their order, until the session fetches them.
#[derive(Default)]
pub(super) struct Inbox {
    /// Whether there may be any: what is asked in each turn.
    full: AtomicBool,
    mails: Mutex<(Vec<Mail>, usize)>,
}

impl Inbox {
    /// Adds a message; false where more than `most` bytes are waiting, and it is not added.
    pub fn put(&self, mail: Mail, most: usize) -> bool {
        let mut guard = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let (mails, size) = &mut *guard;
        // To forget everything twice is no more than once.
        if mails.last() == Some(&mail) && mail.first() != Some(&b'*') {
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
