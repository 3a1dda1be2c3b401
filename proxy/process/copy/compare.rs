//! Whether keys and their copies are alike: of one type, with one time to expire, and one value.

use bytes::Bytes;

use super::{
    kept,
    server::{Server, writes},
    source::Expiry,
    values,
};
use crate::{commands::database::Database, protocol::resp::Value};

/// How far apart times may be that are told as "in so many milliseconds", and not at one moment.
const SLACK: u64 = 2000;
/// What DUMP ends with: two bytes of a version and eight of a checksum. The rest is the value, where both servers write it alike.
const FOOTER: usize = 10;

/// Two servers, and how keys are kept at the second.
pub(super) struct Comparison<'a> {
    from: &'a mut Server,
    to: &'a mut Server,
    database: Option<&'a Database>,
    tells_when: bool,
}

impl<'a> Comparison<'a> {
    pub fn new(
        from: &'a mut Server,
        to: &'a mut Server,
        database: Option<&'a Database>,
        tells_when: bool,
    ) -> Comparison<'a> {
        Comparison { from, to, database, tells_when }
    }

    /// The keys that are not alike, and what is different.
    pub async fn of(self, keys: &[Bytes]) -> Result<Vec<(Bytes, String)>, String> {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for key in keys {
            let kept = kept(self.database, key);
            let when = if self.tells_when { &b"PEXPIRETIME"[..] } else { b"PTTL" };
            for (frames, key) in [(&mut here, &key[..]), (&mut there, &kept)] {
                for command in [&b"TYPE"[..], b"DUMP", when] {
                    writes(frames, &[command, key]);
                }
            }
        }
        let count = keys.len() * 3;
        let (here, there) = tokio::join!(self.from.ask_all(&here, count), self.to.ask_all(&there, count));
        let (here, there) = (here?, there?);
        let mut differing = Vec::new();
        for (key, (here, there)) in keys.iter().zip(here.chunks_exact(3).zip(there.chunks_exact(3))) {
            for (server, said) in [(&*self.from, here), (&*self.to, there)] {
                if let Some(error) = said.iter().find(|said| matches!(said, Value::Error(_))) {
                    return Err(server.odd("TYPE, DUMP or PEXPIRETIME", error));
                }
            }
            let different = match self.heads_differ(here, there) {
                Heads::Differ(how) => Some(how),
                Heads::Alike => None,
                Heads::Unknown(kind) => {
                    values::differ(self.from, self.to, &kind, key, &kept(self.database, key)).await?
                }
            };
            differing.extend(different.map(|how| (key.clone(), how)));
        }
        Ok(differing)
    }

    /// What type, time and DUMP tell.
    fn heads_differ(&self, here: &[Value], there: &[Value]) -> Heads {
        let kind = |said: &[Value]| said[0].str().unwrap_or("none").to_owned();
        let (ours, theirs) = (kind(here), kind(there));
        if ours == "none" {
            // It has gone: there is nothing to be alike.
            return Heads::Alike;
        }
        if theirs == "none" {
            return Heads::Differ("is not there".to_owned());
        }
        if ours != theirs {
            return Heads::Differ(format!("is a {ours}, and a {theirs} there"));
        }
        let times = [here, there].map(|said| Expiry::of(&said[2], self.tells_when));
        match times {
            [Some(Expiry::In(ours)), Some(Expiry::In(theirs))] if ours.abs_diff(theirs) <= SLACK => {}
            [ours, theirs] if ours == theirs => {}
            _ => return Heads::Differ("expires at another time there".to_owned()),
        }
        fn value(said: &Value) -> Option<&[u8]> {
            let dump = said.text()?;
            dump.get(..dump.len().checked_sub(FOOTER)?)
        }
        match (value(&here[1]), value(&there[1])) {
            (Some(ours), Some(theirs)) if ours == theirs => Heads::Alike,
            _ => Heads::Unknown(ours),
        }
    }
}

/// What is known of two keys without a look at their values.
enum Heads {
    Alike,
    Differ(String),
    /// They are of this type, which servers may keep in more than one way.
    Unknown(String),
}
