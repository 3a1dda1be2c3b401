//! What nodes tell of what they have run, in the words of a database's client: the way back from [`Database::enter`].

use super::{Database, GUARDS, WrappedScripts, whole};
use crate::{
    commands::table::{
        CommandTable, Keys,
        in_database::{Code, InDatabase},
    },
    protocol::resp::{
        Request,
        request::{Parser, decimal},
        write,
    },
};

/// Whose doing a command is.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// All its keys are the database's: as its client has said it.
    Own(Vec<Vec<u8>>),
    /// It names no keys.
    Keyless,
    /// Somebody else's.
    Others,
}

impl Database {
    /// A command that a node has run, in these words, as the database's client has said it. Servers cut long words short and
    /// leave out many: both stay so.
    pub fn said(&self, words: &[&[u8]], commands: &CommandTable, scripts: &WrappedScripts) -> Said {
        let (mut frame, mut parser) = (Vec::new(), Parser::default());
        write::request(&mut frame, words);
        let Ok(Some(found)) = parser.find(&frame) else { return Said::Others };
        let request = parser.request(&frame, found);
        let Some(spec) = commands.find(&request) else { return Said::Others };
        let own_from = |first: usize| (first..request.len()).filter(|&at| self.own(request.arg(at)).is_some());
        let mut places = Vec::new();
        match spec.in_database {
            InDatabase::Script(code) if code.runs() => return self.said_by_script(&request, code, scripts),
            InDatabase::AllFrom(first) => places.extend(first..request.len()),
            InDatabase::Scan | InDatabase::Pattern => return Said::Others,
            InDatabase::Refused(_)
            | InDatabase::OnAll(_)
            | InDatabase::NoCluster
            | InDatabase::AsItCame
            | InDatabase::Keys
            | InDatabase::Sort
            | InDatabase::Copy
            | InDatabase::Script(_)
            | InDatabase::Info
            | InDatabase::ShardChannels
            | InDatabase::Channels(_)
            | InDatabase::Count
            | InDatabase::Random
            | InDatabase::Flush
            | InDatabase::FlushAll
            | InDatabase::ConfigSet
            | InDatabase::Debug
            | InDatabase::Inner(_)
            | InDatabase::Log(_) => {
                if !spec.has_keys() {
                    return Said::Keyless;
                }
                if spec.keys_of(&request, &mut places) != Keys::Known {
                    // Servers leave out arguments where there are many: keys may be among those.
                    places = own_from(1).collect();
                }
                if spec.in_database == InDatabase::Sort {
                    places.extend(own_from(2));
                }
            }
        }
        self.stripped(&request, &places)
    }

    /// The request with what stands at these places as its client names it, where all of that is its own.
    fn stripped(&self, request: &Request, places: &[usize]) -> Said {
        if places.is_empty() {
            return Said::Others;
        }
        let mut words: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
        for &at in places {
            match self.own(request.arg(at)) {
                Some(own) => words[at] = own.to_vec(),
                None if is_left_out(request.arg(at)) => {}
                None => return Said::Others,
            }
        }
        Said::Own(words)
    }

    fn said_by_script(&self, request: &Request, code: Code, scripts: &WrappedScripts) -> Said {
        let number = decimal(request.arg(2)).and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|&number| number + 3 <= request.len());
        let Some(number) = number else { return Said::Others };
        let (keys, behind) = (3..3 + number, 3 + number);
        let Some(keys) = keys.map(|at| self.own(request.arg(at))).collect::<Option<Vec<_>>>() else {
            return Said::Others;
        };
        let guards = match keys.as_slice() {
            [.., first, last] if [*first, *last] == GUARDS => 2,
            [_, .., last] if *last == GUARDS[0] => 1,
            _ => 0,
        };
        let is_guarded = guards > 0;
        // Without guards, only its keys tell whose it is.
        if !is_guarded && keys.is_empty() && !scripts.is_said(&self.prefix, request.arg(1)) {
            return Said::Others;
        }
        let keys = &keys[..keys.len() - guards];
        if whole::is_script(request.arg(1)) {
            return whole::said(request.args().skip(behind)).map_or(Said::Others, Said::Own);
        }
        let script = if code == Code::Evalsha {
            scripts.as_said(request.arg(1))
        } else if is_guarded {
            scripts.text_said(request.arg(1)).unwrap_or_else(|| b"(a script)".to_vec())
        } else {
            request.arg(1).to_vec()
        };
        let mut words = vec![request.name().to_vec(), script, keys.len().to_string().into_bytes()];
        words.extend(keys.iter().map(|key| key.to_vec()));
        words.extend(request.args().skip(behind).map(<[u8]>::to_vec));
        Said::Own(words)
    }
}

/// Whether this word stands for arguments that a server leaves out: `... (5 more arguments)`.
fn is_left_out(word: &[u8]) -> bool {
    word.starts_with(b"... (") && word.ends_with(b" more arguments)")
}
