//! `slotway copy`: the keys of one server, copied to another while both serve.
//!
//! SCAN finds them, DUMP and RESTORE carry them, in pipelines of bounded size. No state is kept: what is there already, alike, is
//! passed over, so that a copy that was interrupted is started again and goes on. Nothing is written before all that would not
//! fit has been told.

mod beforehand;
mod compare;
mod place;
mod server;
mod source;
mod values;

use std::{collections::VecDeque, path::PathBuf};

use bytes::Bytes;

pub use self::{
    beforehand::{Fit, Functions},
    place::Place,
};
use self::{
    compare::Comparison,
    server::{Server, writes},
    source::{Entry, Source},
};
use crate::{commands::database::Database, protocol::resp::Value};

/// How many examples are told of what is wrong.
const EXAMPLES: usize = 10;

/// What is to be copied, and how.
#[derive(Debug)]
pub struct Order {
    /// The server that is copied from.
    pub from: Place,
    /// The server that is copied to.
    pub to: Place,
    /// The database of its own that the keys are to be in, where `to` serves all of a cluster.
    pub database: Option<Database>,
    /// The CA of servers that speak TLS; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Whether keys and libraries that are different there are replaced.
    pub replaces: bool,
    /// Whether function libraries stay behind.
    pub without_functions: bool,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking whether all will fit.
    Looking,
    /// Copying.
    Copying,
    /// Comparing what has been copied.
    Comparing,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Keys that have been dealt with.
    pub keys: u64,
    /// Bytes that have been carried.
    pub bytes: u64,
}

/// The result of a copy.
#[derive(Debug, Default)]
pub struct Report {
    /// Keys that have been written.
    pub copied: u64,
    /// Their size as DUMP has it.
    pub bytes: u64,
    /// Keys that were there already, alike.
    pub there: u64,
    /// Keys that were gone before they could be copied.
    pub gone: u64,
    /// Keys that are different there, since somebody has written them meanwhile.
    pub differing: u64,
    /// Some of those, with what is different.
    pub examples: Vec<String>,
}

/// A copy under way: connections to both servers.
pub struct Copy {
    from: Server,
    to: Server,
    order: Order,
}

impl Copy {
    /// Connects to both servers.
    ///
    /// # Errors
    /// One of them cannot be reached, or lets nobody in.
    pub async fn begin(order: Order) -> Result<Copy, String> {
        let from = Server::open(&order.from, order.ca.as_deref()).await?;
        let to = Server::open(&order.to, order.ca.as_deref()).await?;
        Ok(Copy { from, to, order })
    }

    /// How many keys there are to copy, about.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn size(&mut self) -> Result<u64, String> {
        self.from.count().await
    }

    /// Looks whether all will fit. Nothing is written.
    ///
    /// # Errors
    /// A connection is lost.
    pub async fn look(&mut self, progress: &dyn Fn(Progress)) -> Result<Fit, String> {
        beforehand::look(self, progress).await
    }

    /// Loads the libraries that are not there.
    ///
    /// # Errors
    /// One is refused.
    pub async fn load_functions(&mut self, functions: &Functions) -> Result<(), String> {
        for (name, code) in &functions.missing {
            let mut words: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD"];
            if self.order.replaces {
                words.push(b"REPLACE");
            }
            words.push(code);
            if let Value::Error(text) = self.to.ask(&words).await? {
                return Err(format!(
                    "the function library {name} is refused there: {}; load it by a way that may, or say \
                     --without-functions",
                    String::from_utf8_lossy(&text)
                ));
            }
        }
        Ok(())
    }

    /// Copies all keys.
    ///
    /// # Errors
    /// A connection is lost, or the other server takes no more. What has been copied stays.
    pub async fn run(&mut self, progress: &dyn Fn(Progress)) -> Result<Report, String> {
        let mut report = Report::default();
        let mut source = Source::new(&mut self.from).await?;
        let mut batch = source.next().await?;
        while let Some(entries) = batch {
            report.gone += source.take_gone();
            // The next ones are read while these are written: two batches are held at a time.
            let order = &self.order;
            let (next, written) = tokio::join!(source.next(), write(&mut self.to, order, &entries));
            let busy = written?;
            report.copied += (entries.len() - busy.len()) as u64;
            report.bytes += entries.iter().map(|entry| entry.dump.len() as u64).sum::<u64>();
            if !busy.is_empty() {
                let (found, expiry) = (busy.len() as u64, source.tells_when());
                let comparison = Comparison::new(source.server(), &mut self.to, order.database.as_ref(), expiry);
                let differing = comparison.of(&busy).await?;
                report.there += found - differing.len() as u64;
                report.note(differing);
            }
            batch = next?;
            progress(Progress {
                stage: Stage::Copying,
                keys: report.copied + report.there + report.gone,
                bytes: report.bytes,
            });
        }
        report.gone += source.take_gone();
        Ok(report)
    }

    /// Compares all keys with their copies, whatever else is there.
    ///
    /// # Errors
    /// A connection is lost.
    pub async fn verify(&mut self, progress: &dyn Fn(Progress)) -> Result<Report, String> {
        let mut report = Report::default();
        let mut source = Source::new(&mut self.from).await?;
        let expiry = source.tells_when();
        while let Some(keys) = source.next_keys().await? {
            let comparison = Comparison::new(source.server(), &mut self.to, self.order.database.as_ref(), expiry);
            let differing = comparison.of(&keys).await?;
            report.there += (keys.len() - differing.len()) as u64;
            report.note(differing);
            progress(Progress { stage: Stage::Comparing, keys: report.there + report.differing, bytes: 0 });
        }
        Ok(report)
    }
}

impl Report {
    fn note(&mut self, differing: Vec<(Bytes, String)>) {
        self.differing += differing.len() as u64;
        for (key, how) in differing {
            if self.examples.len() < EXAMPLES {
                self.examples.push(format!("{} {how}", shown(&key)));
            }
        }
    }
}

/// A key, printable and not too long.
fn shown(key: &[u8]) -> String {
    let (start, rest) = key.split_at(key.len().min(64));
    format!("{}{}", start.escape_ascii(), if rest.is_empty() { "" } else { "..." })
}

/// How a key is kept there.
fn kept(database: Option<&Database>, key: &[u8]) -> Vec<u8> {
    database.map_or_else(|| key.to_vec(), |database| [database.prefix(), key].concat())
}

/// Writes entries; the keys that are there already.
async fn write(to: &mut Server, order: &Order, entries: &VecDeque<Entry>) -> Result<Vec<Bytes>, String> {
    let mut frames = Vec::new();
    for entry in entries {
        let key = kept(order.database.as_ref(), &entry.key);
        let time = entry.expiry.millis().to_string();
        let mut words: Vec<&[u8]> = vec![b"RESTORE", &key, time.as_bytes(), &entry.dump];
        if entry.expiry.is_absolute() {
            words.push(b"ABSTTL");
        }
        if order.replaces {
            words.push(b"REPLACE");
        }
        writes(&mut frames, &words);
    }
    let mut busy = Vec::new();
    for (entry, said) in entries.iter().zip(to.ask_all(&frames, entries.len()).await?) {
        match said {
            Value::Error(text) if text.starts_with(b"BUSYKEY") => busy.push(entry.key.clone()),
            Value::Error(text) => {
                let remedy = if text.starts_with(b"ERR DUMP payload version") || text.starts_with(b"ERR Bad data") {
                    "it is older than the server that is copied from, or lacks a module of that one"
                } else {
                    "once that is mended, start the copy again: what has been copied is passed over"
                };
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(format!("{} does not take the key {}: {text}; {remedy}", order.to, shown(&entry.key)));
            }
            _ => {}
        }
    }
    Ok(busy)
}
