//! The clients: what each has done is known to the last one.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustls::ClientConfig;

use crate::{
    support::{Client, Random, Reply, client::frame, until},
    tally::Tally,
};

/// The list that elements pass through.
pub const QUEUE: &str = "soak:queue";
/// Between two requests of a client: half of what the machine could do is enough to meet every trouble.
const PACE: Duration = Duration::from_millis(2);
/// A client that waits longer for a reply hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Each writer has keys in so many slots.
const SLOTS: usize = 4;

/// Where clients come in, whichever process serves there.
#[derive(Clone)]
pub struct Entrance {
    pub plain: String,
    pub secured: String,
    pub trust: Arc<ClientConfig>,
    pub is_tls: bool,
}

impl Entrance {
    /// The one that speaks TLS.
    pub fn by_tls(self) -> Entrance {
        Entrance { is_tls: true, ..self }
    }

    /// A new connection; nobody may be refused.
    fn connect(&self) -> Client {
        let client = match self.is_tls {
            true => Client::try_connect_tls(&self.secured, "localhost", self.trust.clone()),
            false => Client::try_connect(&self.plain),
        };
        client.unwrap_or_else(|error| panic!("a client was refused: {error}")).patient(PATIENCE)
    }
}

/// What a request has led to.
enum Outcome {
    Replies(Vec<Reply>),
    /// The connection has ended, as that of an idle client does when its process gives up its place.
    Closed,
}

/// A client that connects again when it is closed.
struct Steady<'a> {
    entrance: &'a Entrance,
    tally: &'a Tally,
    client: Client,
    /// How many connections it has had.
    connections: usize,
}

impl<'a> Steady<'a> {
    fn new(entrance: &'a Entrance, tally: &'a Tally) -> Steady<'a> {
        Steady { entrance, tally, client: entrance.connect(), connections: 1 }
    }

    fn pipeline<T: AsRef<[u8]>>(&mut self, requests: &[Vec<T>]) -> Outcome {
        self.tally.requests.fetch_add(requests.len(), Relaxed);
        let bytes: Vec<u8> = requests.iter().flat_map(|args| frame(args)).collect();
        let exchanged =
            self.client.try_send_raw(&bytes).and_then(|()| requests.iter().map(|_| self.client.read()).collect());
        match exchanged {
            Ok(replies) => Outcome::Replies(replies),
            Err(error) if has_ended(&error) => {
                self.tally.closed.fetch_add(1, Relaxed);
                self.client = self.entrance.connect();
                self.connections += 1;
                Outcome::Closed
            }
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// The last reply, where it is one; an error is counted as of `name`.
    fn ask<T: AsRef<[u8]>>(&mut self, name: &str, requests: &[Vec<T>]) -> Answer {
        match self.pipeline(requests) {
            Outcome::Closed => Answer::Unknown,
            Outcome::Replies(mut replies) => {
                let last = replies.pop().expect("one reply at least");
                if !last.is_error() {
                    return Answer::Done(last);
                }
                self.tally.failed(name, &last);
                if may_have_run(&last) { Answer::Unknown } else { Answer::NotDone }
            }
        }
    }

    /// The value of a counter, asked until a node tells.
    fn certain(&mut self, key: &str) -> i64 {
        until("an answer", Duration::from_secs(60), || {
            // A write has the answer come from the primary.
            match self.pipeline(&[vec!["INCRBY", key, "0"]]) {
                Outcome::Replies(replies) if !replies[0].is_error() => Some(replies[0].integer()),
                _ => None,
            }
        })
    }
}

/// What is known of a request.
enum Answer {
    Done(Reply),
    NotDone,
    Unknown,
}

/// Whether a connection was ended, and not only silent.
fn has_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Whether an error leaves open what became of a request.
fn may_have_run(reply: &Reply) -> bool {
    let text = String::from_utf8_lossy(&reply.0);
    text.contains("may have run") || text.contains("no answer")
}

/// A count that only its client changes: what it must be, as far as is known.
#[derive(Clone, Copy, Default)]
struct Count(i64);

impl Count {
    /// Counts one more, which the reply must be.
    fn goes_on(&mut self, key: &str, now: i64) {
        self.0 += 1;
        assert_eq!(now, self.0, "{key}");
    }

    /// Checks the value found after a change that failed or was not answered.
    fn settle(&mut self, key: &str, now: i64, is_unknown: bool) {
        let most = self.0 + i64::from(is_unknown);
        assert!((self.0..=most).contains(&now), "{key}: {now} where {} was counted", self.0);
        self.0 = now;
    }
}

/// A client's own keys: counters, and pairs of counters that change together.
pub fn write_histories(entrance: &Entrance, number: usize, tally: &Tally, over: &AtomicBool) {
    let mut client = Steady::new(entrance, tally);
    let mut random = Random::seeded("soak");
    let all: Vec<String> = (0..SLOTS).map(|slot| format!("{{soak{slot}}}{number}")).collect();
    let (mut counted, mut together) = ([Count::default(); SLOTS], [Count::default(); SLOTS]);
    let mut connections = 0;
    while !over.load(Relaxed) {
        while connections != client.connections {
            // Reads come after a client's own writes of the same connection, so each connection begins with writes.
            connections = client.connections;
            all.iter().zip(&mut counted).for_each(|(key, count)| count.settle(key, client.certain(key), false));
        }
        let at = random.below(SLOTS);
        match random.below(4) {
            0 => add_one(&mut client, &all[at], &mut counted[at]),
            1 => {
                if let Answer::Done(reply) = client.ask("GET", &[vec!["GET", &all[at]]]) {
                    assert_eq!(reply.string(), counted[at].0.to_string(), "{}", all[at]);
                }
            }
            2 => add_to_both(&mut client, &all[at], &mut together[at]),
            _ => {
                let request = ["MGET"].into_iter().chain(all.iter().map(String::as_str)).collect();
                if let Answer::Done(reply) = client.ask("MGET", &[request]) {
                    assert_eq!(reply.texts(), counted.map(|count| count.0.to_string()), "client {number}");
                }
            }
        }
        thread::sleep(PACE);
    }
}

fn add_one(client: &mut Steady, key: &str, count: &mut Count) {
    match client.ask("INCR", &[vec!["INCR", key]]) {
        Answer::Done(reply) => count.goes_on(key, reply.integer()),
        open => count.settle(key, client.certain(key), matches!(open, Answer::Unknown)),
    }
}

fn add_to_both(client: &mut Steady, key: &str, count: &mut Count) {
    let (one, other) = (format!("{key}:a"), format!("{key}:b"));
    let requests = [vec!["MULTI"], vec!["INCR", &one], vec!["INCR", &other], vec!["EXEC"]];
    match client.ask("EXEC", &requests) {
        Answer::Done(reply) => {
            let both: Vec<i64> = reply.value().items().iter().filter_map(|item| item.integer()).collect();
            assert!(both.len() == 2 && both[0] == both[1], "{one}: {reply:?}");
            count.goes_on(&one, both[0]);
        }
        open => {
            let (now, same) = (client.certain(&one), client.certain(&other));
            assert_eq!(now, same, "a transaction ran half");
            count.settle(&one, now, matches!(open, Answer::Unknown));
        }
    }
}

/// Pushes elements, of which each shall be popped once.
pub fn push(entrance: &Entrance, tally: &Tally, over: &AtomicBool) {
    let mut client = Steady::new(entrance, tally);
    while !over.load(Relaxed) {
        match client.ask("LPUSH", &[vec!["LPUSH", QUEUE, "x"]]) {
            Answer::Done(_) => drop(tally.pushed.fetch_add(1, Relaxed)),
            Answer::Unknown => drop(tally.unsure.fetch_add(1, Relaxed)),
            Answer::NotDone => {}
        }
        thread::sleep(PACE);
    }
}

/// Pops them, waiting for each.
pub fn pop(entrance: &Entrance, tally: &Tally, over: &AtomicBool) {
    let mut client = Steady::new(entrance, tally);
    while !over.load(Relaxed) {
        match client.ask("BRPOP", &[vec!["BRPOP", QUEUE, "1"]]) {
            Answer::Done(reply) => drop(tally.popped.fetch_add(usize::from(reply.texts().len() == 2), Relaxed)),
            Answer::Unknown => drop(tally.unsure.fetch_add(1, Relaxed)),
            Answer::NotDone => {}
        }
    }
}

/// Clients that leave in the midst of what they do.
pub fn come_and_go(entrance: &Entrance, _tally: &Tally, over: &AtomicBool) {
    let parts: [&[u8]; 5] = [
        b"*2\r\n$3\r\nGET\r\n$3\r\nfo",
        b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$5\r\nBLPOP\r\n$6\r\nnobody\r\n$1\r\n0\r\n",
        b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nq\r\n$1\r\nv\r\n",
    ];
    for part in parts.iter().cycle() {
        if over.load(Relaxed) {
            return;
        }
        // The process that took this connection may be giving up its place just now.
        let _ = entrance.connect().try_send_raw(part);
        thread::sleep(Duration::from_millis(20));
    }
}
