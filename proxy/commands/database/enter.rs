//! Requests on their way into a database: keys and patterns are named as they are kept.

use super::{Database, KnownScripts, whole::Whole};
use crate::{
    commands::table::{
        Keys, Spec,
        in_database::{InDatabase, ReplyKeys},
        keys,
    },
    protocol::{
        resp::{
            Request,
            request::{Parser, RequestWriter, decimal},
            write,
        },
        says,
    },
};

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// The request goes on as it came.
    AsItCame,
    /// The request goes on as it has been written anew.
    Rewritten,
    /// Likewise, by the same name, and its reply names no key and no script.
    RewrittenUntold,
    /// The request does not go on; the text of the error.
    Refused(Vec<u8>),
    /// FLUSHALL: each of the client's databases is to be emptied.
    InEach,
    /// INFO, which tells how many keys there are in each of the client's databases.
    CountsKeys,
    /// PUBSUB NUMPAT: the patterns of the database's clients are counted.
    CountsPatterns,
    /// SCRIPT FLUSH: what the database's clients have said of scripts is forgotten.
    ForgetsScripts,
    /// CONFIG SET is not to change anything: done where all is so already; else the text of the error.
    Unchanged(Vec<u8>),
}

impl Database {
    /// Names what `request` is about as it is kept, written into `anew`. `spec` is its row; without one no server knows
    /// the command.
    pub fn enter(
        &self,
        request: &Request,
        spec: Option<&Spec>,
        known: KnownScripts,
        writer: &mut RequestWriter,
    ) -> Entered {
        let Some(spec) = spec else { return Entered::Refused(says::unknown_command(request)) };
        if let (InDatabase::Keys, Some(key)) = (spec.in_database, spec.only_key()) {
            return self.enter_one(request, key, writer);
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
            InDatabase::OnAll(_) | InDatabase::ConfigSet if known.policy.lifts(spec) => Entered::AsItCame,
            InDatabase::OnAll(reason) => Entered::Refused(self.refusal(spec, reason)),
            InDatabase::NoCluster => Entered::Refused(says::NO_CLUSTER.into()),
            InDatabase::Keys => self.enter_keys(request, spec, writer),
            InDatabase::Sort => self.enter_sort(request, spec, writer),
            InDatabase::Copy if copies_to_no_number(request) => Entered::Refused(says::NOT_INTEGER.into()),
            InDatabase::Copy if (3..request.len()).any(|at| request.is(at, "DB")) => Entered::Refused(self.refusal(
                spec,
                "option DB: the other database is in another slot; DUMP here and RESTORE there copy a key",
            )),
            InDatabase::Copy => self.enter_keys(request, spec, writer),
            InDatabase::Pattern | InDatabase::Scan if self.outgrows(request) => {
                Entered::Refused(says::TOO_LONG_INSIDE.into())
            }
            InDatabase::Pattern => self.ask_whole(Whole::Keys(request.arg(1)), writer),
            InDatabase::Count => self.ask_whole(Whole::Count, writer),
            InDatabase::Random => self.ask_whole(Whole::Random, writer),
            InDatabase::Flush | InDatabase::FlushAll
                if request.len() > 1 && (request.len() > 2 || !is_how_to_flush(request)) =>
            {
                Entered::Refused(says::SYNTAX.into())
            }
            InDatabase::FlushAll if self.is_one_of_several => Entered::InEach,
            InDatabase::Flush | InDatabase::FlushAll => self.ask_whole(Whole::Flush, writer),
            InDatabase::Script(_) if self.outgrows(request) => Entered::Refused(says::TOO_LONG_INSIDE.into()),
            InDatabase::Script(code) => self.enter_script(request, (code, spec), known, writer),
            InDatabase::Info if request.len() == 1 || has_arg(request, |arg| is_any(arg, WITH_KEYSPACE)) => {
                Entered::CountsKeys
            }
            InDatabase::Info => Entered::AsItCame,
            InDatabase::ConfigSet => {
                Entered::Unchanged(self.refusal(spec, "it would act on all databases of the cluster"))
            }
            InDatabase::Debug => self.enter_debug(request, spec, known, writer),
            InDatabase::Inner(at) => self.enter_inner(at, request, known, writer),
            InDatabase::Log(_) if request.is(2, "RESET") && known.policy.lifts(spec) => Entered::AsItCame,
            InDatabase::Log(_) if request.is(2, "RESET") => Entered::Refused(self.refusal(spec, ALL_LOGS)),
            // A server says what is wrong with it.
            InDatabase::Log(_) if entries_wanted(request).is_none() => Entered::AsItCame,
            InDatabase::Log(asks) => {
                writer.begin(asks.len());
                asks.iter().for_each(|word| writer.push(&[word.as_bytes()]));
                Entered::Rewritten
            }
            InDatabase::ShardChannels => {
                writer.begin(3);
                writer.push(&[request.name()]);
                writer.push(&[request.arg(1)]);
                writer.push(&[&self.pattern, request.get(2).unwrap_or(b"*")]);
                Entered::Rewritten
            }
            InDatabase::Channels(_) if self.outgrows(request) => Entered::Refused(says::TOO_LONG_INSIDE.into()),
            InDatabase::Channels(what) => self.enter_channels(request, what, writer),
            InDatabase::AllFrom(first) => self.enter_all(request, (first..request.len()).collect(), writer),
            InDatabase::Scan if known.is_queued => self.scan_at_once(request, writer),
            InDatabase::Scan => self.enter_scan(request, writer),
        }
    }

    fn refusal(&self, spec: &Spec, reason: &str) -> Vec<u8> {
        says::refused_inside(&spec.name, &self.name, reason).into_bytes()
    }

    /// Whether it would be too long to be written anew, in the worst case.
    fn outgrows(&self, request: &Request) -> bool {
        const HEAD: usize = 16;
        request.frame().len() + request.len() * (self.pattern.len() + HEAD) > RequestWriter::LONGEST
    }

    /// What [`Database::enter`] does for nearly all requests: those with one key, which their replies do not name. False for
    /// all others, with which nothing has been done.
    #[inline]
    pub fn enter_plain(&self, request: &Request, spec: &Spec, writer: &mut RequestWriter) -> bool {
        let is_plain = matches!(spec.in_database, InDatabase::Keys) && spec.reply_keys == ReplyKeys::Nothing;
        match spec.only_key() {
            Some(key) if is_plain && key < request.len() && !self.outgrows(request) => {
                writer.put_before(request, key, &self.headed);
                true
            }
            _ => false,
        }
    }

    fn enter_one(&self, request: &Request, key: usize, writer: &mut RequestWriter) -> Entered {
        if key >= request.len() {
            return Entered::AsItCame;
        }
        if self.outgrows(request) {
            return Entered::Refused(says::TOO_LONG_INSIDE.into());
        }
        writer.put_before(request, key, &self.headed);
        Entered::Rewritten
    }

    fn enter_keys(&self, request: &Request, spec: &Spec, writer: &mut RequestWriter) -> Entered {
        let mut places = Vec::new();
        match spec.keys_of(request, &mut places) {
            Keys::Known => self.enter_all(request, places, writer),
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
    fn enter_all(&self, request: &Request, mut places: Vec<usize>, writer: &mut RequestWriter) -> Entered {
        if self.outgrows(request) {
            return Entered::Refused(says::TOO_LONG_INSIDE.into());
        }
        places.sort_unstable();
        places.dedup();
        let mut places = places.into_iter().peekable();
        writer.begin(request.len());
        for (index, arg) in request.args().enumerate() {
            let before = if places.next_if_eq(&index).is_some() { &*self.prefix } else { b"" };
            writer.push(&[before, arg]);
        }
        Entered::Rewritten
    }

    /// BY and GET name keys by patterns; in them, nothing but `*` is special. Without one a GET finds nothing, but servers look at
    /// its slot.
    fn enter_sort(&self, request: &Request, spec: &Spec, writer: &mut RequestWriter) -> Entered {
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
                // A BY without it says not to sort, and a GET of # what is sorted.
                let is_element = request.arg(at) == b"#";
                if request.arg(at).contains(&b'*') || request.is(at - 1, "GET") && !is_element {
                    places.push(at);
                }
            }
            at += 1;
        }
        self.enter_all(request, places, writer)
    }

    /// DEBUG: what looks at keys.
    fn enter_debug(&self, request: &Request, spec: &Spec, known: KnownScripts, writer: &mut RequestWriter) -> Entered {
        let is = |names: &[&str]| names.iter().any(|name| request.is(1, name));
        if is(&["OBJECT", "LISTPACK", "QUICKLIST", "ZIPLIST", "HTSTATS-KEY", "SDSLEN"]) {
            return self.enter_all(request, if request.len() > 2 { vec![2] } else { Vec::new() }, writer);
        }
        if is(&["DIGEST-VALUE"]) {
            return self.enter_all(request, (2..request.len()).collect(), writer);
        }
        if is(&["HELP", "PROTOCOL", "STRINGMATCH-LEN", "ERROR"]) || known.policy.lifts(spec) {
            return Entered::AsItCame;
        }
        Entered::Refused(self.refusal(spec, "only what looks at a key is; the rest is about a whole node"))
    }

    /// What has another command within it, from this argument on, whose keys are named as they are kept.
    fn enter_inner(&self, at: usize, request: &Request, known: KnownScripts, writer: &mut RequestWriter) -> Entered {
        let (mut frame, mut parser, mut inner) = (Vec::new(), Parser::default(), RequestWriter::default());
        write::request(&mut frame, &request.args().skip(at).collect::<Vec<_>>());
        let Ok(Some(found)) = parser.find(&frame) else { return Entered::AsItCame };
        let within = parser.request(&frame, found);
        let spec = known.commands.find(&within).filter(|spec| spec.in_database == InDatabase::Keys);
        if spec.is_none() || self.enter(&within, spec, known, &mut inner) != Entered::Rewritten {
            return Entered::AsItCame;
        }
        writer.begin(request.len());
        request.args().take(at).chain(inner.request().args()).for_each(|arg| writer.push(&[arg]));
        Entered::Rewritten
    }

    fn enter_scan(&self, request: &Request, writer: &mut RequestWriter) -> Entered {
        let options = self.scan_options(request);
        writer.begin(request.len() + 2);
        writer.push(&[request.name()]);
        writer.push(&[request.arg(1)]);
        options.iter().for_each(|option| writer.push(&[option]));
        Entered::Rewritten
    }
}

/// How many entries of a log are wanted; `None` where that is malformed.
pub(super) fn entries_wanted(request: &Request) -> Option<usize> {
    const BY_DEFAULT: usize = 10;
    match request.get(2) {
        None => Some(BY_DEFAULT),
        Some(_) if request.len() > 3 => None,
        Some(count) => match decimal(count)? {
            -1 => Some(usize::MAX),
            count => usize::try_from(count).ok(),
        },
    }
}

const ALL_LOGS: &str = "nodes have one log for all databases";

/// The sections of INFO that have the numbers of keys, or have that section.
const WITH_KEYSPACE: &[&str] = &["keyspace", "default", "all", "everything"];

/// Whether an argument behind the name is such a one.
fn has_arg(request: &Request, is: impl Fn(&[u8]) -> bool) -> bool {
    request.args().skip(1).any(is)
}

fn is_any(arg: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()))
}

/// COPY to a database that is no number: a server says so before anything else.
fn copies_to_no_number(request: &Request) -> bool {
    let is_number = |arg: &[u8]| decimal(arg).is_some_and(|number| i32::try_from(number).is_ok());
    (3..request.len()).any(|at| request.is(at, "DB") && request.get(at + 1).is_some_and(|arg| !is_number(arg)))
}

/// FLUSHDB ASYNC and FLUSHDB SYNC.
fn is_how_to_flush(request: &Request) -> bool {
    request.is(1, "SYNC") || request.is(1, "ASYNC")
}
