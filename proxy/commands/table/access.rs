//! What a command does with each of its keys and channels, as the servers' access control sees it: it is what rules by key
//! and channel are about.

use super::{
    command_info::KeyFlags,
    keys::{Finder, Keys},
    spec::Spec,
    treatment::{Local, Treatment},
};
use crate::protocol::resp::{Request, request::is_option};

/// What is done with a key, of what a rule may forbid. Neither: it is only asked whether it is there, or how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Its value is told or copied.
    pub reads: bool,
    /// Its value is changed.
    pub writes: bool,
}

impl Access {
    const READS: Access = Access { reads: true, writes: false };
    const WRITES: Access = Access { reads: false, writes: true };
    /// All that may be done.
    pub const BOTH: Access = Access { reads: true, writes: true };

    fn of(flags: KeyFlags) -> Access {
        if flags == KeyFlags::default() {
            // What a module does not tell.
            return Access::BOTH;
        }
        let changes = [KeyFlags::UPDATE, KeyFlags::INSERT, KeyFlags::DELETE];
        Access { reads: flags.has(KeyFlags::ACCESS), writes: changes.into_iter().any(|change| flags.has(change)) }
    }
}

/// Which arguments of a command are channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// None.
    None,
    /// The first.
    First,
    /// All of them.
    All,
    /// All of them, and they are patterns.
    Patterns,
}

/// What a command does with its key, where its flags in `COMMAND` leave that to its arguments (`variable_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Varies {
    /// It is as the flags say.
    No,
    /// SET: with one of these options it tells of the old value.
    Set,
    /// BITFIELD: it changes nothing where all its operations are GET.
    Bitfield,
}

/// The column of a row, by the command's name.
pub(super) fn of(name: &str) -> Varies {
    match name {
        "set" => Varies::Set,
        "bitfield" => Varies::Bitfield,
        _ => Varies::No,
    }
}

impl Local {
    /// Which of its arguments are channels that a client has to be allowed.
    fn names_channels(self) -> Channels {
        match self {
            Local::Subscribe | Local::Ssubscribe => Channels::All,
            Local::Psubscribe => Channels::Patterns,
            // Whoever listens to it may leave it.
            Local::Unsubscribe | Local::Punsubscribe | Local::Sunsubscribe => Channels::None,
            Local::Ping | Local::Echo | Local::Hello | Local::Auth | Local::Select | Local::Quit => Channels::None,
            Local::Reset | Local::Readonly | Local::Readwrite | Local::Asking | Local::Client(_) => Channels::None,
            Local::Multi | Local::Exec | Local::Discard | Local::Watch | Local::Unwatch => Channels::None,
            Local::Monitor | Local::Wait | Local::Waitaof | Local::AclWhoami | Local::Proxy(_) => Channels::None,
            Local::ClusterKeyslot | Local::ClusterView(_) | Local::CountPatterns | Local::ForgetScripts => {
                Channels::None
            }
        }
    }
}

impl Spec {
    /// Which of its arguments are channels.
    pub fn channels(&self) -> Channels {
        if self.traits.publishes {
            return Channels::First;
        }
        let Treatment::Local(local) = self.treatment else { return Channels::None };
        local.names_channels()
    }

    /// Calls `visit` with the index of each key of `request` and what is done with it, until it says false; whether it never
    /// has. Keys that only the server can find count as forbidden. Nothing is allocated.
    pub fn all_keys_are(&self, request: &Request, mut visit: impl FnMut(usize, Access) -> bool) -> bool {
        let mut all = true;
        let mut see = |index, access| all = all && visit(index, access);
        match self.finder {
            Finder::None => {}
            Finder::Server => return false,
            Finder::At(index) => {
                if usize::from(index) < request.len()
                    && let Some(spec) = self.keys.first().filter(|spec| !spec.flags.has(KeyFlags::NOT_KEY))
                {
                    see(usize::from(index), self.access_to_one(request, spec.flags));
                }
            }
            Finder::Sort | Finder::Georadius => {
                let mut is_source = true;
                let _ = self.visit_keys(request, |index| {
                    see(index, if is_source { Access::READS } else { Access::WRITES });
                    is_source = false;
                });
                if self.finder == Finder::Georadius {
                    // Servers judge the first STORE, too, of which the last one counts.
                    let stores = (5..request.len().saturating_sub(1))
                        .filter(|&at| request.is(at, "STORE") || request.is(at, "STOREDIST"));
                    stores.for_each(|at| see(at + 1, Access::WRITES));
                }
            }
            Finder::Streams => drop(self.visit_keys(request, |index| see(index, Access::READS))),
            Finder::Migrate => drop(self.visit_keys(request, |index| see(index, Access::BOTH))),
            Finder::Specs => {
                for spec in self.keys.iter().filter(|spec| !spec.flags.has(KeyFlags::NOT_KEY)) {
                    let access = self.access_to_one(request, spec.flags);
                    let _ = spec.visit(self.arity, request, |index| see(index, access));
                }
                // What is malformed is answered by an error, and does nothing.
                return all || self.visit_keys(request, |_| {}) == Keys::Malformed;
            }
        }
        all
    }

    fn access_to_one(&self, request: &Request, flags: KeyFlags) -> Access {
        match self.varies {
            Varies::No => Access::of(flags),
            Varies::Set => {
                const TELL: [&str; 5] = ["GET", "IFEQ", "IFNE", "IFDEQ", "IFDNE"];
                let tells = (3..request.len()).any(|at| TELL.iter().any(|option| request.is(at, option)));
                if tells { Access::BOTH } else { Access::WRITES }
            }
            Varies::Bitfield => {
                if only_gets(request) {
                    Access::READS
                } else {
                    Access::BOTH
                }
            }
        }
    }

    /// The option of SORT that reads keys which it does not name, `BY` or `GET`, if it is well formed up to there.
    pub fn reaches_beyond(&self, request: &Request) -> Option<&'static str> {
        if self.finder != Finder::Sort {
            return None;
        }
        let mut at = 2;
        while at < request.len() {
            let (arg, left) = (request.arg(at), request.len() - at - 1);
            let is = |word: &str| is_option(arg, word);
            match () {
                () if is("ASC") || is("DESC") || is("ALPHA") => {}
                () if is("LIMIT") && left >= 2 => at += 2,
                () if is("STORE") && left >= 1 => at += 1,
                () if is("BY") && left >= 1 => {
                    if request.arg(at + 1).contains(&b'*') {
                        return Some("BY");
                    }
                    at += 1;
                }
                () if is("GET") && left >= 1 => return Some("GET"),
                () => return None,
            }
            at += 1;
        }
        None
    }
}

/// Whether all operations of a BITFIELD are GET, or it is wrong in some way.
fn only_gets(request: &Request) -> bool {
    let mut at = 2;
    while at < request.len() {
        let left = request.len() - at - 1;
        if request.is(at, "GET") && left >= 2 {
            at += 3;
        } else if request.is(at, "OVERFLOW") && left >= 1 {
            at += 2;
        } else {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use crate::{
        commands::table::CommandTable,
        protocol::resp::{request::Parser, write},
    };

    /// The keys of a line, each with what is done with it: `r`, `w`, `rw` or nothing.
    fn done(line: &str) -> String {
        let mut frame = Vec::new();
        write::request(&mut frame, &line.split(' ').collect::<Vec<_>>());
        let mut parser = Parser::default();
        let found = parser.find(&frame).unwrap().unwrap();
        let request = parser.request(&frame, found);
        let table = CommandTable::builtin();
        let mut all = Vec::new();
        table.find(&request).unwrap().all_keys_are(&request, |index, access| {
            let done = [(access.reads, "r"), (access.writes, "w")].map(|(is, letter)| if is { letter } else { "" });
            all.push(format!("{}:{}", String::from_utf8_lossy(request.arg(index)), done.concat()));
            true
        });
        all.join(" ")
    }

    #[test]
    fn what_is_done_with_each_key_is_known() {
        for (line, expected) in [
            ("GET a", "a:r"),
            ("EXISTS a b", "a: b:"),
            ("DEL a", "a:w"),
            ("MSET a 1 b 2", "a:w b:w"),
            ("SET a 1", "a:w"),
            ("SET a 1 EX 5 get", "a:rw"),
            ("COPY a b", "a:r b:w"),
            ("RENAME a b", "a:rw b:w"),
            ("BITFIELD a GET u8 0", "a:r"),
            ("BITFIELD a OVERFLOW SAT GET u8 0", "a:r"),
            ("BITFIELD a GET u8 0 SET u8 0 1", "a:rw"),
            ("SORT a LIMIT 0 1 STORE b", "a:r b:w"),
            ("GEORADIUS a 1 2 3 km STORE b STOREDIST c", "a:r c:w b:w c:w"),
            ("XREAD COUNT 1 STREAMS a b 0 0", "a:r b:r"),
            ("ZUNIONSTORE d 2 a b", "d:w a:r b:r"),
            ("EVAL x 1 a b", "a:rw"),
            ("EVAL x 5 a b", ""),
            ("ZDIFFSTORE d 5 a", "d:w"),
            ("SPUBLISH a b", ""),
            ("PING", ""),
        ] {
            assert_eq!(done(line), expected, "{line}");
        }
    }
}
