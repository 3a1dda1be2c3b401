//! The sockets that clients come by. They may change while the process serves: what is new is bound before anything else changes,
//! so that a port that is taken changes nothing.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::ServeError;
use crate::{
    clients::ListenerSettings,
    config::{Config, ConfigError},
    process::inherited::Inherited,
    protocol::endpoint::ListenAddress,
    upstream::transport::{Arrival, Listener, tls::for_clients::ForClients},
};

/// All that is listened on.
pub(in crate::process) struct Listeners {
    open: RefCell<Vec<Rc<Open>>>,
    /// Whoever waits for clients has to wait at others.
    changed: Notify,
    /// The number of the next socket.
    next: Cell<usize>,
    reuse_port: bool,
    tls: Option<ForClients>,
}

/// A socket that is listened on, and what is so for those who come by it.
pub(in crate::process) struct Open {
    address: ListenAddress,
    listener: Listener,
    number: usize,
    settings: RefCell<Arc<ListenerSettings>>,
}

/// All that is to be listened on from now on. What is not listened on yet is bound, and accepts nobody.
pub(in crate::process) struct Prepared(Vec<(Rc<Open>, Arc<ListenerSettings>)>);

/// Who has come, or why nobody could, and what is so for those who come there.
pub(super) type Accepted = (io::Result<Arrival>, Arc<ListenerSettings>);

impl Listeners {
    /// All that the configuration names, by sockets that are there already where there are such.
    pub(in crate::process) fn open(
        config: &Config,
        tls: Option<ForClients>,
        inherited: &mut Inherited,
    ) -> Result<Listeners, ServeError> {
        let listeners = Listeners {
            open: RefCell::default(),
            changed: Notify::new(),
            next: Cell::new(0),
            reuse_port: config.reuse_port,
            tls,
        };
        let all = listeners.prepare_with(config, inherited)?;
        listeners.adopt(all);
        Ok(listeners)
    }

    /// Binds what this configuration names and is not listened on.
    ///
    /// # Errors
    /// An address cannot be listened on. Nothing has changed then.
    pub(in crate::process) fn prepare(&self, config: &Config) -> Result<Prepared, ServeError> {
        self.prepare_with(config, &mut Inherited::default())
    }

    fn prepare_with(&self, config: &Config, inherited: &mut Inherited) -> Result<Prepared, ServeError> {
        let mut old = self.open.borrow().clone();
        let mut place = |address: &ListenAddress| match old.iter().position(|open| open.address == *address) {
            Some(index) => Ok(old.remove(index)),
            None => self.bind(address, inherited).map(Rc::new),
        };
        let prepare = |(address, settings)| {
            let open = place(address)?;
            let settings = ListenerSettings { number: open.number, ..settings };
            Ok((open, Arc::new(settings)))
        };
        config.addresses().zip(ListenerSettings::of(config)).map(prepare).collect::<Result<_, _>>().map(Prepared)
    }

    fn bind(&self, address: &ListenAddress, inherited: &mut Inherited) -> Result<Open, ServeError> {
        if self.tls.is_none() && matches!(address, ListenAddress::Tls(_)) {
            return Err(ConfigError::FirstTls { address: address.to_string() }.into());
        }
        let listener = match inherited.take(address) {
            Some(socket) => Listener::over(socket, address, self.tls.as_ref(), inherited.owns_files),
            None => Listener::bind(address, self.reuse_port, self.tls.as_ref()),
        };
        let listener = listener.map_err(|error| {
            let is_here = |open: &Rc<Open>| open.address.shares_place_with(address);
            match self.open.borrow().iter().find(|open| is_here(open)) {
                Some(open) => ServeError::OwnPlace { wanted: address.clone(), taken: open.address.clone() },
                None => ServeError::Bind(address.clone(), error),
            }
        })?;
        let number = self.next.replace(self.next.get() + 1);
        Ok(Open { address: address.clone(), listener, number, settings: RefCell::default() })
    }

    /// Accepts nobody more by what is not among these, which is returned: it is closed when that is dropped.
    pub(in crate::process) fn close_others(&self, new: &Prepared) -> Vec<Rc<Open>> {
        let stays = |open: &Rc<Open>| new.0.iter().any(|(new, _)| Rc::ptr_eq(new, open));
        let (stay, gone) = self.open.take().into_iter().partition(stays);
        self.open.replace(stay);
        gone
    }

    /// Accepts clients by all of these from now on.
    pub(in crate::process) fn adopt(&self, new: Prepared) {
        let take = |(open, settings): (Rc<Open>, Arc<ListenerSettings>)| {
            open.settings.replace(settings);
            open
        };
        self.open.replace(new.0.into_iter().map(take).collect());
        self.changed.notify_one();
    }

    /// Where it listens, in the order of the configuration.
    #[cfg(test)]
    pub(in crate::process) fn addresses(&self) -> Vec<String> {
        self.open.borrow().iter().map(|open| open.address.to_string()).collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Rc<Open>> {
        self.open.borrow().clone()
    }

    /// The sockets, for somebody else.
    pub(super) fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.open.borrow().iter().map(|open| open.listener.as_fd().try_clone_to_owned()).collect()
    }

    /// Somebody else has them now: nobody is accepted here any more, and their files stay.
    pub(super) fn are_handed_over(self) {
        self.open.into_inner().iter().for_each(|open| open.listener.is_handed_over());
    }

    /// Who connects next.
    pub(super) async fn accept(&self) -> Accepted {
        loop {
            tokio::select! {
                accepted = poll_fn(|cx| self.poll_accept(cx)) => return accepted,
                () = self.changed.notified() => {}
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Accepted> {
        let open = self.open.borrow();
        let found = open.iter().find_map(|open| match open.listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some((accepted, open.settings.borrow().clone())),
            Poll::Pending => None,
        });
        found.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Open {
    /// Where it listens.
    pub(in crate::process) fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Its number.
    pub(in crate::process) fn number(&self) -> usize {
        self.number
    }

    /// Who waits already.
    pub(super) async fn next_in_line(&self) -> Option<(Arrival, Arc<ListenerSettings>)> {
        let arrival = timeout(Duration::ZERO, self.listener.accept()).await.ok()?.ok()?;
        Some((arrival, self.settings.borrow().clone()))
    }
}
