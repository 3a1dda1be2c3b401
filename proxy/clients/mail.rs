//! What one client's session leaves for another's, on whatever worker that is.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;

/// A message of another session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// Invalidated keys of a client that redirects them here (CLIENT TRACKING ... REDIRECT): an array, or null for all keys.
    Changed(Bytes),
    /// A command of some client, as a line of MONITOR.
    Shown(Bytes),
}

impl Mail {
    fn len(&self) -> usize {
        let (Mail::Changed(bytes) | Mail::Shown(bytes)) = self;
        bytes.len()
    }

    /// Whether it invalidates all keys.
    fn forgets_all(&self) -> bool {
        matches!(self, Mail::Changed(keys) if keys.first() != Some(&b'*'))
    }
}

/// Messages in their order, until the session fetches them.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Whether any may wait: sessions ask in each turn, without the lock.
    full: AtomicBool,
    mails: Mutex<(Vec<Mail>, usize)>,
}

impl Mailbox {
    /// Adds a message; false where more than `most` bytes are waiting, and it is not added.
    pub fn put(&self, mail: Mail, most: usize) -> bool {
        let mut guard = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let (mails, size) = &mut *guard;
        // To invalidate all keys twice in a row is the same as once.
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

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Mail = Mail::Changed(Bytes::from_static(b"_\r\n"));

    fn shown(line: &'static str) -> Mail {
        Mail::Shown(Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn messages_wait_in_their_order_until_they_are_taken_all_at_once() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.has_mail() && mailbox.take().is_empty());
        let sent = [shown("a"), Mail::Changed(Bytes::from_static(b"*1\r\n$1\r\na\r\n")), shown("b")];
        assert!(sent.iter().all(|mail| mailbox.put(mail.clone(), 0)), "0 is no limit");
        assert!(mailbox.has_mail());
        assert_eq!(mailbox.take(), sent);
        assert!(!mailbox.has_mail() && mailbox.take().is_empty());
    }

    #[test]
    fn no_more_than_the_limit_waits() {
        let mailbox = Mailbox::default();
        assert!(mailbox.put(shown("12345"), 8) && mailbox.put(shown("678"), 8), "just as much");
        assert!(!mailbox.put(shown("9"), 8));
        assert_eq!(mailbox.take().len(), 2, "what is too much is not added");
        assert!(mailbox.put(shown("12345678"), 8), "there is room again");
        assert!(!mailbox.put(shown("9"), 8));
    }

    #[test]
    fn to_forget_everything_twice_in_a_row_is_one_message() {
        let mailbox = Mailbox::default();
        let size = EVERYTHING.len();
        assert!((0..100).all(|_| mailbox.put(EVERYTHING, size)), "a storm of them takes no room");
        assert!(!mailbox.put(shown("a"), size));
        assert_eq!(mailbox.take(), [EVERYTHING]);
        // Keys that are read between two of them have to be forgotten as well.
        let keys = Mail::Changed(Bytes::from_static(b"*1\r\n$1\r\na\r\n"));
        let sent = [EVERYTHING, keys, EVERYTHING];
        assert!(sent.iter().all(|mail| mailbox.put(mail.clone(), 0)));
        assert_eq!(mailbox.take(), sent);
    }
}
