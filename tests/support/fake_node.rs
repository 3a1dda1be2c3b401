//! A scripted node, for what real ones do too rarely to test. It answers the questions of a proxy that is getting to
//! know a cluster (HELLO, COMMAND, CLUSTER SLOTS ...) from a table of slots, and every other request as the test says.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use slotway::protocol::resp::{request::Parser, write};

use super::{Node, client::show, ports::free_port, wait::until};

/// What a scripted node does about a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends these bytes.
    Say(Vec<u8>),
    /// Sends these pieces, each in a write of its own, so that the reader meets them apart.
    Pieces(Vec<Vec<u8>>),
    /// Sends these pieces with a pause before each, as a slow network does.
    Drip(Vec<Vec<u8>>, Duration),
    /// Sends these bytes and hangs up.
    SayAndHangUp(Vec<u8>),
    /// Hangs up.
    HangUp,
    /// Answers neither this one nor anything after it on this connection, which stays open.
    FallSilent,
    /// Waits for [`FakeNode::release`], then does the other thing; what comes after on this connection waits too.
    Hold(Box<Act>),
    /// Sends these bytes, and reads nothing more on this connection before [`FakeNode::release`].
    SayAndStall(Vec<u8>),
}

impl Act {
    /// Sends `text`, without its CR LF.
    pub fn say(text: impl AsRef<str>) -> Act {
        Act::Say(format!("{}\r\n", text.as_ref()).into_bytes())
    }

    /// Sends a bulk string.
    pub fn bulk(text: impl AsRef<[u8]>) -> Act {
        let mut out = Vec::new();
        write::bulk(&mut out, text.as_ref());
        Act::Say(out)
    }
}

/// One request that a scripted node received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
}

impl Heard {
    /// For people to read, and for comparison.
    pub fn text(&self) -> String {
        show(&self.args)
    }
}

/// Slots and their owner: first, last, host, port, node id.
pub type Range = (u16, u16, String, u16, String);

type Answer = Box<dyn FnMut(&Heard) -> Option<Act> + Send>;

#[derive(Default)]
struct State {
    ranges: Vec<Range>,
    /// Answers of the test for coming requests: the first whose text begins with the given one is used and removed.
    script: VecDeque<(String, Act)>,
    heard: Vec<Heard>,
    connections: Vec<TcpStream>,
    released: usize,
    held: usize,
}

/// What a real server answers to COMMAND.
static COMMANDS: LazyLock<Vec<u8>> = LazyLock::new(|| Node::standalone().line("COMMAND").0);

/// A scripted node on a free port.
#[derive(Clone)]
pub struct FakeNode {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its node id.
    pub id: String,
    state: Arc<Mutex<State>>,
    /// What answers requests that the script does not.
    always: Arc<Mutex<Option<Answer>>>,
}

impl FakeNode {
    /// Starts a node that owns all slots.
    pub fn start() -> FakeNode {
        let node = FakeNode::listening();
        node.owns(&[(0, 16383, &node)]);
        node
    }

    /// Starts two nodes: each knows that the first owns the slots below 8192 and the second the others.
    pub fn pair() -> (FakeNode, FakeNode) {
        let (one, two) = (FakeNode::listening(), FakeNode::listening());
        for node in [&one, &two] {
            node.owns(&[(0, 8191, &one), (8192, 16383, &two)]);
        }
        (one, two)
    }

    fn listening() -> FakeNode {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let node = FakeNode { port, id: format!("{port:0>40}"), state: Arc::default(), always: Arc::default() };
        let served = node.clone();
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let node = served.clone();
                thread::spawn(move || {
                    let _ = node.serve(connection, stream);
                });
            }
        });
        node
    }

    /// Says from now on that these nodes own these slots.
    pub fn owns(&self, ranges: &[(u16, u16, &FakeNode)]) {
        let ranges =
            ranges.iter().map(|(first, last, node)| (*first, *last, "127.0.0.1".into(), node.port, node.id.clone()));
        self.announces(ranges.collect());
    }

    /// Says from now on that the slots are owned like this.
    pub fn announces(&self, ranges: Vec<Range>) {
        self.state().ranges = ranges;
    }

    /// Answers the next request that begins with `request` (its words, a space between) with `act`.
    pub fn when(&self, request: &str, act: Act) -> &FakeNode {
        self.state().script.push_back((request.to_owned(), act));
        self
    }

    /// Answers every request that the script does not.
    pub fn always(&self, answer: impl FnMut(&Heard) -> Option<Act> + Send + 'static) -> &FakeNode {
        *self.always.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(answer));
        self
    }

    /// Lets one more held answer go.
    pub fn release(&self) {
        self.state().released += 1;
    }

    /// Waits until `count` answers have been held since the start.
    #[track_caller]
    pub fn wait_until_held(&self, count: usize) {
        until("the node to hold an answer", Duration::from_secs(10), || (self.state().held >= count).then_some(()));
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The requests received so far that are no questions of its own, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.state().heard.clone()
    }

    /// How many requests received so far begin with `start`.
    pub fn count(&self, start: &str) -> usize {
        self.state().heard.iter().filter(|heard| heard.text().starts_with(start)).count()
    }

    /// How often a script's answer has yet to be used.
    pub fn unused(&self) -> usize {
        self.state().script.len()
    }

    /// Hangs up on all its clients.
    pub fn hang_up_on_all(&self) {
        for stream in self.state().connections.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: usize, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        self.state().connections.push(stream.try_clone()?);
        let mut parser = Parser::default();
        let mut held = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        let mut version = 2;
        loop {
            while let Some(found) = parser.find(&held).map_err(|error| io::Error::other(format!("{error:?}")))? {
                let args: Vec<Vec<u8>> = parser.request(&held, found).args().map(<[u8]>::to_vec).collect();
                held.drain(..found.used);
                let heard = Heard { connection, args };
                let act = self.answer(heard, &mut version);
                if !self.perform(&mut stream, act)? {
                    let _ = stream.shutdown(Shutdown::Both);
                    return Ok(());
                }
            }
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                count => held.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn answer(&self, heard: Heard, version: &mut u8) -> Act {
        let text = heard.text();
        let mut state = self.state();
        if let Some(place) = state.script.iter().position(|(start, _)| text.starts_with(start.as_str())) {
            state.heard.push(heard);
            return state.script.remove(place).map_or(Act::HangUp, |(_, act)| act);
        }
        if let Some(act) = self.introduction(&state, &text.to_ascii_uppercase(), version) {
            return act;
        }
        state.heard.push(heard.clone());
        drop(state);
        let mut always = self.always.lock().unwrap_or_else(PoisonError::into_inner);
        let act = always.as_mut().and_then(|always| always(&heard));
        act.unwrap_or_else(|| Act::say(format!("-ERR the script has no answer to {text}")))
    }

    /// The answer to what a proxy asks to get to know a node.
    fn introduction(&self, state: &State, text: &str, version: &mut u8) -> Option<Act> {
        let mut words = text.split(' ');
        let word = words.next().unwrap_or_default();
        let second = words.next().unwrap_or_default();
        let out = match (word, second) {
            ("HELLO", wanted) => {
                *version = if wanted == "3" { 3 } else { 2 };
                hello(*version)
            }
            ("PING", "") => b"+PONG\r\n".to_vec(),
            ("AUTH" | "SELECT" | "READONLY" | "READWRITE", _)
            | ("CLIENT", "SETNAME" | "SETINFO" | "NO-EVICT" | "NO-TOUCH") => b"+OK\r\n".to_vec(),
            ("CLIENT", "LIST") => bulk(""),
            ("CLIENT", "KILL") => b":0\r\n".to_vec(),
            ("COMMAND", "") => COMMANDS.clone(),
            ("ACL", "GETUSER") => {
                let words = ["commands", "+@all", "keys", "~*", "channels", "&*"];
                [b"*6\r\n".to_vec(), words.map(bulk).concat()].concat()
            }
            ("CLUSTER", "SLOTS") => slots(&state.ranges),
            ("CLUSTER", "NODES") => bulk(&nodes(&state.ranges, &self.id, self.port)),
            ("CLUSTER", "MYID") => bulk(&self.id),
            ("CLUSTER", "INFO") => bulk("cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\n"),
            ("INFO", _) => bulk(&format!(
                "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\nrun_id:{0}\r\n# Replication\r\nrole:master\r\n\
                 # Cluster\r\ncluster_enabled:1\r\n",
                self.id
            )),
            ("CLUSTER", _) => b"-ERR unknown subcommand. Try CLUSTER HELP.\r\n".to_vec(),
            _ => return None,
        };
        Some(Act::Say(out))
    }

    fn wait_for_release(&self) {
        let mine = {
            let mut state = self.state();
            state.held += 1;
            state.held
        };
        until("the test to release an answer", Duration::from_secs(60), || {
            (self.state().released >= mine).then_some(())
        });
    }

    /// Does it; whether the connection lives on.
    fn perform(&self, stream: &mut TcpStream, act: Act) -> io::Result<bool> {
        match act {
            Act::Say(bytes) => stream.write_all(&bytes)?,
            Act::Pieces(pieces) => {
                for piece in pieces {
                    stream.write_all(&piece)?;
                    // Not synchronisation: the pause only makes it likely that the reader meets the pieces apart.
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Act::Drip(pieces, pause) => {
                for piece in pieces {
                    thread::sleep(pause);
                    stream.write_all(&piece)?;
                }
            }
            Act::SayAndHangUp(bytes) => {
                stream.write_all(&bytes)?;
                return Ok(false);
            }
            Act::HangUp => return Ok(false),
            Act::FallSilent => {
                io::copy(stream, &mut io::sink())?;
                return Ok(false);
            }
            Act::Hold(act) => {
                self.wait_for_release();
                return self.perform(stream, *act);
            }
            Act::SayAndStall(bytes) => {
                stream.write_all(&bytes)?;
                self.wait_for_release();
            }
        }
        Ok(true)
    }
}

fn bulk(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::bulk(&mut out, text.as_bytes());
    out
}

fn hello(version: u8) -> Vec<u8> {
    let mut out = Vec::new();
    if version == 3 {
        write::head(&mut out, b'%', 7)
    } else {
        write::array(&mut out, 14)
    }
    for (key, text) in [("server", "redis"), ("version", "7.0.15"), ("mode", "cluster"), ("role", "master")] {
        write::bulk(&mut out, key.as_bytes());
        write::bulk(&mut out, text.as_bytes());
    }
    for (key, number) in [("proto", i64::from(version)), ("id", 7)] {
        write::bulk(&mut out, key.as_bytes());
        write::integer(&mut out, number);
    }
    write::bulk(&mut out, b"modules");
    write::array(&mut out, 0);
    out
}

fn slots(ranges: &[Range]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, ranges.len());
    for (first, last, host, port, id) in ranges {
        write::array(&mut out, 3);
        write::integer(&mut out, i64::from(*first));
        write::integer(&mut out, i64::from(*last));
        write::array(&mut out, 4);
        write::bulk(&mut out, host.as_bytes());
        write::integer(&mut out, i64::from(*port));
        write::bulk(&mut out, id.as_bytes());
        write::array(&mut out, 0);
    }
    out
}

fn nodes(ranges: &[Range], own: &str, port: u16) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (first, last, host, port, id) in ranges {
        let flags = if id == own { "myself,master" } else { "master" };
        match lines.iter_mut().find(|line| line.starts_with(id.as_str())) {
            Some(line) => line.push_str(&format!(" {first}-{last}")),
            None => lines.push(format!(
                "{id} {host}:{port}@{} {flags} - 0 0 1 connected {first}-{last}",
                u32::from(*port) + 10000
            )),
        }
    }
    if !lines.iter().any(|line| line.starts_with(own)) {
        lines.push(format!("{own} 127.0.0.1:{port}@{} myself,master - 0 0 1 connected", u32::from(port) + 10000));
    }
    lines.join("\n") + "\n"
}
