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
    /// What a command, that a node has run in these words, has been for the database's client. Servers cut words that are long,
    /// and leave out what many would be: that is left as it is.
    pub fn said(&self, words: &[&[u8]], commands: &CommandTable, scripts: &WrappedScripts) -> Said {
        let (mut frame, mut parser) = (Vec::new(), Parser::default());
        write::request(&mut frame, words);
        let Ok(Some(found)) = parser.find(&frame) else { return Said::Others };
        let request = parser.request(&frame, found);
        let Some(spec) = commands.find(&request) else { return Said::Others };
        let mut places = Vec::new();
        match spec.in_database {
            InDatabase::Script(code @ (Code::Eval | Code::Evalsha)) => {
                return self.said_by_script(&request, code, scripts);
            }
            InDatabase::AllFrom(first) => places.extend(first..request.len()),
            InDatabase::Scan | InDatabase::Pattern => return Said::Others,
            _ if !spec.has_keys() => return Said::Keyless,
            _ => {
                if spec.keys_of(&request, &mut places) != Keys::Known {
                    // What is left out may be where they are.
                    places = (1..request.len()).filter(|&at| self.own(request.arg(at)).is_some()).collect();
                }
                if spec.in_database == InDatabase::Sort {
                    places.extend((2..request.len()).filter(|&at| self.own(request.arg(at)).is_some()));
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
        // Without, nothing but its keys tells whose it is.
        if !is_guarded && keys.is_empty() && !scripts.is_said(&self.prefix, request.arg(1)) {
            return Said::Others;
        }
        let keys = &keys[..keys.len() - guards];
        if whole::is_script(request.arg(1)) {
            return whole::said(request.args().skip(behind)).map_or(Said::Others, Said::Own);
        }
        let script = match code {
            Code::Evalsha => scripts.as_said(request.arg(1)),
            _ if !is_guarded => request.arg(1).to_vec(),
            _ => scripts.text_said(request.arg(1)).unwrap_or_else(|| b"(a script)".to_vec()),
        };
        let mut words = vec![request.name().to_vec(), script, keys.len().to_string().into_bytes()];
        words.extend(keys.iter().map(|key| key.to_vec()));
        words.extend(request.args().skip(behind).map(<[u8]>::to_vec));
        Said::Own(words)
    }
}

/// Whether this stands for what a server does not tell: `... (5 more arguments)`.
fn is_left_out(word: &[u8]) -> bool {
    word.starts_with(b"... (") && word.ends_with(b" more arguments)")
}
