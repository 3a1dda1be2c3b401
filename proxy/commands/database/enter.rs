//! Requests on their way into a database: keys and patterns are named as they are kept.

use super::{Database, KnownScripts};
use crate::{
    commands::table::{Keys, Spec, in_database::InDatabase, keys},
    protocol::{
        resp::{Request, request::Anew},
        says,
    },
};

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// It goes on as it came.
    AsItCame,
    /// It goes on as it has been written anew.
    Anew,
    /// It does not go on; the text of the error.
    Refused(Vec<u8>),
}

impl Database {
    /// Names what `request` is about as it is kept, written into `anew`. `spec` is its row; without one no server knows
    /// the command.
    pub fn enter(&self, request: &Request, spec: Option<&Spec>, known: KnownScripts, anew: &mut Anew) -> Entered {
        let Some(spec) = spec else { return Entered::Refused(says::unknown_command(request)) };
        if let (InDatabase::Keys, Some(key)) = (spec.in_database, spec.only_key()) {
            // Nearly all are such ones.
            return self.enter_one(request, key, anew);
        }
        if !spec.takes(request.len()) {
            // A server refuses it before it looks at any key.
            return Entered::AsItCame;
        }
        if spec.container && !spec.name.contains('|') && request.len() > 1 {
            return Entered::Refused(says::unknown_subcommand(request));
        }
        match spec.in_database {
            InDatabase::AsItCame => Entered::AsItCame,
            InDatabase::Refused(reason) => Entered::Refused(self.refusal(spec, reason)),
            InDatabase::NoCluster => Entered::Refused(says::NO_CLUSTER.into()),
            InDatabase::Keys => self.enter_keys(request, spec, anew),
            InDatabase::Sort => self.enter_sort(request, spec, anew),
            InDatabase::Copy if (3..request.len()).any(|at| request.is(at, "DB")) => {
                Entered::Refused(self.refusal(spec, "option DB: the other database is none of its own"))
            }
            InDatabase::Copy => self.enter_keys(request, spec, anew),
            InDatabase::Pattern => self.run(b"EVAL_RO", KEYS, &[&self.pattern, request.arg(1)], anew),
            InDatabase::Count => self.run(b"EVAL_RO", COUNT, &[], anew),
            InDatabase::Random => self.run(b"EVAL_RO", RANDOM, &[], anew),
            InDatabase::FlushAll if self.is_one_of_several => {
                Entered::Refused(self.refusal(spec, "it would empty this database alone; FLUSHDB does that, in each"))
            }
            InDatabase::Flush | InDatabase::FlushAll
                if request.len() > 1 && (request.len() > 2 || !is_how_to_flush(request)) =>
            {
                Entered::Refused(says::SYNTAX.into())
            }
            InDatabase::Flush | InDatabase::FlushAll => self.run(b"EVAL", FLUSH, &[], anew),
            InDatabase::Script(_) if self.outgrows(request) => Entered::Refused(says::TOO_LONG_INSIDE.into()),
            InDatabase::Script(code) => self.enter_script(request, code, known, anew),
            InDatabase::Info if has_arg(request, |arg| is_any(arg, &["keyspace", "keysizes"])) => Entered::Refused(
                self.refusal(spec, "nodes count the keys of all databases together; DBSIZE counts its own"),
            ),
            InDatabase::Topics if has_arg(request, |arg| arg.starts_with(b"__key")) => {
                Entered::Refused(self.refusal(spec, "keyspace notifications are not told apart yet"))
            }
            InDatabase::Info | InDatabase::Topics => Entered::AsItCame,
            InDatabase::Scan => self.enter_scan(request, anew),
        }
    }

    fn refusal(&self, spec: &Spec, reason: &str) -> Vec<u8> {
        says::refused_inside(&spec.name, &self.name, reason).into_bytes()
    }

    /// Whether it would be too long to be written anew, in the worst case.
    fn outgrows(&self, request: &Request) -> bool {
        const HEAD: usize = 16;
        request.frame().len() + request.len() * (self.pattern.len() + HEAD) > Anew::LONGEST
    }

    #[inline]
    fn enter_one(&self, request: &Request, key: usize, anew: &mut Anew) -> Entered {
        if key >= request.len() {
            return Entered::AsItCame;
        }
        if self.outgrows(request) {
            return Entered::Refused(says::TOO_LONG_INSIDE.into());
        }
        anew.begin(request.len());
        for (index, arg) in request.args().enumerate() {
            if index == key { anew.push(&[&self.prefix, arg]) } else { anew.push(&[arg]) }
        }
        Entered::Anew
    }

    fn enter_keys(&self, request: &Request, spec: &Spec, anew: &mut Anew) -> Entered {
        let mut places = Vec::new();
        match spec.keys_of(request, &mut places) {
            Keys::Known => self.enter_all(request, places, anew),
            // An option that is not known here might be followed by anything.
            Keys::Malformed if spec.reads_streams() && !keys::lacks_stream_ids(request) => {
                Entered::Refused(says::SYNTAX.into())
            }
            // The server finds none either, and says so.
            Keys::Malformed => Entered::AsItCame,
            Keys::AskServer => Entered::Refused(self.refusal(spec, "only a server can tell its keys")),
        }
    }

    /// Writes it anew with its keys, by their indexes in any order, named as they are kept.
    fn enter_all(&self, request: &Request, mut places: Vec<usize>, anew: &mut Anew) -> Entered {
        if self.outgrows(request) {
            return Entered::Refused(says::TOO_LONG_INSIDE.into());
        }
        places.sort_unstable();
        places.dedup();
        let mut places = places.into_iter().peekable();
        anew.begin(request.len());
        for (index, arg) in request.args().enumerate() {
            let before = if places.next_if_eq(&index).is_some() { &*self.prefix } else { b"" };
            anew.push(&[before, arg]);
        }
        Entered::Anew
    }

    /// BY and GET name keys by patterns, where there is a `*`; in them, nothing but that is special.
    fn enter_sort(&self, request: &Request, spec: &Spec, anew: &mut Anew) -> Entered {
        let mut places = Vec::new();
        if spec.keys_of(request, &mut places) != Keys::Known {
            return Entered::AsItCame;
        }
        let mut at = 2;
        while at < request.len() {
            let left = request.len() - at - 1;
            if request.is(at, "LIMIT") && left >= 2 {
                at += 2;
            } else if request.is(at, "STORE") && left >= 1 {
                at += 1;
            } else if (request.is(at, "BY") || request.is(at, "GET")) && left >= 1 {
                at += 1;
                if request.arg(at).contains(&b'*') {
                    places.push(at);
                }
            }
            at += 1;
        }
        self.enter_all(request, places, anew)
    }

    /// The last MATCH counts: the one that keeps to the database stands before those of the client.
    fn enter_scan(&self, request: &Request, anew: &mut Anew) -> Entered {
        if self.outgrows(request) {
            return Entered::Refused(says::TOO_LONG_INSIDE.into());
        }
        anew.begin(request.len() + 2);
        anew.push(&[request.name()]);
        anew.push(&[request.arg(1)]);
        anew.push(&[b"MATCH"]);
        anew.push(&[&self.pattern, b"*"]);
        let mut at = 2;
        while at < request.len() {
            anew.push(&[request.arg(at)]);
            if at + 1 < request.len() {
                let before = if request.is(at, "MATCH") { &*self.pattern } else { b"" };
                anew.push(&[before, request.arg(at + 1)]);
            }
            at += 2;
        }
        Entered::Anew
    }

    /// A script about the slot. Its arguments are the slot, the prefix, and what is put together of `parts`.
    fn run(&self, name: &[u8], text: &str, parts: &[&[u8]], anew: &mut Anew) -> Entered {
        anew.begin(8);
        anew.push(&[name]);
        anew.push(&[text.as_bytes()]);
        anew.push(&[b"2"]);
        self.guards.iter().for_each(|guard| anew.push(&[guard]));
        anew.push(&[self.slot.to_string().as_bytes()]);
        anew.push(&[&self.prefix]);
        anew.push(parts);
        Entered::Anew
    }
}

/// Whether an argument behind the name is such a one.
fn has_arg(request: &Request, is: impl Fn(&[u8]) -> bool) -> bool {
    request.args().skip(1).any(is)
}

fn is_any(arg: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()))
}

/// FLUSHDB ASYNC and FLUSHDB SYNC.
fn is_how_to_flush(request: &Request) -> bool {
    request.is(1, "SYNC") || request.is(1, "ASYNC")
}

/// The keys that match. As a script, since a slot that is half moved has keys at two nodes: so long, no script runs.
const KEYS: &str = "\
local keys,first=redis.call('KEYS',ARGV[3]),#ARGV[2]+1 \
for index,key in ipairs(keys) do keys[index]=string.sub(key,first) end \
return keys";
const COUNT: &str = "return redis.call('CLUSTER','COUNTKEYSINSLOT',ARGV[1])";

/// Some of the slot's keys, one of the database's among them by chance. Where others fill the front of the slot, all are
/// looked at.
const RANDOM: &str = "\
local slot,prefix=ARGV[1],ARGV[2] \
local count=redis.call('CLUSTER','COUNTKEYSINSLOT',slot) \
for _,most in ipairs({math.min(count,1024),count}) do \
local own={} \
for _,key in ipairs(redis.call('CLUSTER','GETKEYSINSLOT',slot,most)) do \
if string.sub(key,1,#prefix)==prefix and redis.call('EXISTS',key)==1 then own[#own+1]=key end end \
if #own>0 then return string.sub(own[1+tonumber(redis.call('TIME')[2])%#own],#prefix+1) end end \
return false";

/// All keys of the slot that are the database's, a thousand at a time; those of others that were met are met again.
const FLUSH: &str = "\
local slot,prefix,others=ARGV[1],ARGV[2],0 \
while true do \
local own,keys={},redis.call('CLUSTER','GETKEYSINSLOT',slot,1000+others) \
for _,key in ipairs(keys) do if string.sub(key,1,#prefix)==prefix then own[#own+1]=key end end \
if #own==0 and #keys<1000+others then return {ok='OK'} end \
others=#keys-#own \
for first=1,#own,1000 do redis.call('UNLINK',unpack(own,first,math.min(#own,first+999))) end end";
