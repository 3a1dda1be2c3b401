//! What is told of clients: who costs most, and by which libraries they come.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde::Serialize;

use crate::{
    clients::{Client, Clients},
    metrics::Libraries,
};

/// How many clients, and how many libraries, are told.
const MOST: usize = 20;

#[derive(Serialize)]
pub(super) struct TopClient {
    id: u64,
    address: String,
    name: String,
    user: String,
    library: String,
    commands: u64,
    received_bytes: u64,
    sent_bytes: u64,
    held_bytes: usize,
    age_seconds: u64,
    command: String,
}

fn library(client: &Client) -> String {
    let about = client.about();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (text(&about.library), text(&about.library_version)) {
        (name, version) if !name.is_empty() && !version.is_empty() => format!("{name} {version}"),
        (name, _) => name,
    }
}

/// How many clients use which library, as the metrics tell them apart.
pub fn client_libraries(clients: &Clients) -> Libraries {
    let mut libraries = Libraries::default();
    clients.all().iter().for_each(|client| libraries.add(&client.about().library));
    libraries
}

pub(super) fn libraries(all: &[Arc<Client>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for client in all {
        let name = match library(client) {
            name if name.is_empty() => "(does not say)".to_owned(),
            name => name,
        };
        *counts.entry(name).or_default() += 1;
        if counts.len() >= MOST {
            break;
        }
    }
    counts
}

pub(super) fn top_clients(mut all: Vec<Arc<Client>>) -> Vec<TopClient> {
    all.sort_by_key(|client| Reverse((client.cost() / 65_536, client.commands.load(Relaxed))));
    let shown = |client: &Arc<Client>| {
        let [received, sent] = [0, 1].map(|way| client.traffic[way].load(Relaxed));
        let about = client.about().clone();
        TopClient {
            id: client.id,
            address: client.peer().to_string(),
            name: String::from_utf8_lossy(&about.name).into_owned(),
            user: about.user,
            library: library(client),
            commands: client.commands.load(Relaxed),
            received_bytes: received,
            sent_bytes: sent,
            held_bytes: client.cost(),
            age_seconds: client.since.elapsed().as_secs(),
            command: client.last_command(),
        }
    };
    all.iter().take(MOST).map(shown).collect()
}
