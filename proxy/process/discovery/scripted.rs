//! A network of scripted nodes, for unit tests of what asks them: each answers every question by a table of its own, whenever
//! and however often it is asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::AbortHandle,
};

use crate::{
    protocol::resp::Value,
    upstream::{
        dial::Dialer,
        transport::memory::{Memory, Peer},
    },
};

/// Nodes by their addresses. Other addresses refuse connections.
#[derive(Clone, Default)]
pub struct Network {
    memory: Memory,
    nodes: Arc<Mutex<HashMap<String, Script>>>,
}

#[derive(Default)]
struct Script {
    says: HashMap<String, String>,
    is_silent: bool,
    /// Connections so far.
    connections: usize,
    /// Everything that it was asked, in order.
    heard: Vec<String>,
    listening: Option<AbortHandle>,
}

impl Network {
    /// How its nodes are connected to.
    pub fn dialer(&self) -> Dialer {
        Dialer::to(&self.memory)
    }

    /// A node of this id listens at `address`, with what it has been given to say so far.
    pub fn start(&self, address: &str, id: &str) {
        let (mut backlog, network, at) = (self.memory.listen(address), self.clone(), address.to_owned());
        let listening = tokio::spawn(async move {
            loop {
                let peer = backlog.accept().await;
                network.with(&at, |node| node.connections += 1);
                tokio::spawn(network.clone().serve(peer, at.clone()));
            }
        });
        self.with(address, |node| node.listening = Some(listening.abort_handle()));
        self.says(address, "CLUSTER MYID", &format!("+{id}\r\n"));
    }

    /// Nobody listens at `address` from now on.
    pub async fn stop(&self, address: &str) {
        let Some(listening) = self.with(address, |node| node.listening.take()) else { return };
        listening.abort();
        // What is aborted ends when it is its turn.
        while !listening.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// Has the node at `address` answer this question so, from now on. What it has no answer to is an unknown command.
    pub fn says(&self, address: &str, question: &str, reply: &str) {
        self.with(address, |node| node.says.insert(question.to_owned(), reply.to_owned()));
    }

    /// The node at `address` is connected to and says nothing from now on.
    pub fn is_silent(&self, address: &str) {
        self.with(address, |node| node.is_silent = true);
    }

    /// How often the node at `address` was connected to.
    pub fn connections(&self, address: &str) -> usize {
        self.with(address, |node| node.connections)
    }

    /// How often the node at `address` was asked this.
    pub fn heard(&self, address: &str, question: &str) -> usize {
        self.with(address, |node| node.heard.iter().filter(|heard| *heard == question).count())
    }

    fn with<T>(&self, address: &str, look: impl FnOnce(&mut Script) -> T) -> T {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        look(nodes.entry(address.to_owned()).or_default())
    }

    async fn serve(self, mut peer: Peer, address: String) {
        let mut bytes = Vec::new();
        while peer.0.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            loop {
                let reply = match Value::parse(&bytes) {
                    Ok(None) => break,
                    Ok(Some((request, used))) => {
                        bytes.drain(..used);
                        let words = request.items().iter().filter_map(Value::str).collect::<Vec<_>>().join(" ");
                        self.with(&address, |node| node.answer(words))
                    }
                    Err(_) => {
                        bytes.clear();
                        "-ERR Protocol error: no request\r\n".to_owned()
                    }
                };
                let _ = peer.0.write_all(reply.as_bytes()).await;
            }
        }
    }
}

impl Script {
    fn answer(&mut self, question: String) -> String {
        let said = self.says.get(&question).map_or("-ERR unknown command\r\n", |said| said);
        let said = if self.is_silent { String::new() } else { said.to_owned() };
        self.heard.push(question);
        said
    }
}

/// What CLUSTER SLOTS says where these ranges belong to these nodes, by address and id.
pub fn slots(ranges: &[(usize, usize, &str, &str)]) -> String {
    let range = |(first, last, address, id): &(usize, usize, &str, &str)| {
        let (host, port) = address.split_once(':').expect("host:port");
        format!("*3\r\n:{first}\r\n:{last}\r\n*3\r\n+{host}\r\n:{port}\r\n+{id}\r\n")
    };
    format!("*{}\r\n{}", ranges.len(), ranges.iter().map(range).collect::<String>())
}
