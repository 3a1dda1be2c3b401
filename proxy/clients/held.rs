//! The account of what is read whole for a client before it is passed on.

use std::sync::Arc;

use super::Clients;

/// Bytes that are not counted: there is always room for a little.
const LITTLE: usize = 1024 * 1024;

/// Bytes that are held on some client's behalf, in the account of what all of them cost; given back when this is dropped.
pub struct Held {
    clients: Arc<Clients>,
    counted: usize,
}

impl Held {
    /// Nothing yet.
    pub fn nothing(clients: &Arc<Clients>) -> Held {
        Held { clients: clients.clone(), counted: 0 }
    }

    /// So many bytes are held now. False where there is no room for them: then nothing changes in the account.
    #[must_use]
    pub fn is_now(&mut self, bytes: usize) -> bool {
        let counts = bytes.saturating_sub(LITTLE);
        let fits = counts <= self.counted || self.clients.hold(counts - self.counted);
        if fits {
            if counts < self.counted {
                self.clients.account(self.counted, counts);
            }
            self.counted = counts;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clients.account(self.counted, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back() {
        let clients = Arc::new(Clients::new(3 * LITTLE));
        let (mut one, mut other) = (Held::nothing(&clients), Held::nothing(&clients));
        assert!(one.is_now(LITTLE) && clients.buffered() == 0);
        assert!(one.is_now(3 * LITTLE) && other.is_now(2 * LITTLE));
        assert!(!other.is_now(2 * LITTLE + 1) && clients.buffered() == 3 * LITTLE);
        assert!(one.is_now(0) && other.is_now(3 * LITTLE) && clients.buffered() == 2 * LITTLE);
        drop((one, other));
        assert_eq!(clients.buffered(), 0);
    }
}
