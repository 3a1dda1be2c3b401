//! The arguments of CLIENT TRACKING, checked in the order and with the words of Redis.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Tracking,
    overlap::{self, Overlap},
};
use crate::{
    protocol::{
        resp::{Request, request::decimal},
        says,
    },
    upstream::dial::TrackingMode,
};

/// What CLIENT TRACKING asks for.
#[derive(Default)]
pub(super) struct Options {
    pub mode: TrackingMode,
    pub prefixes: Vec<Bytes>,
    pub noloop: bool,
    /// The client that messages go to; 0: none was named.
    pub redirect: u64,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
}

impl Options {
    /// Reads what stands behind ON or OFF.
    /// `knows` says whether the client may know of the one with this number.
    pub fn parse(request: &Request<'_>, knows: impl Fn(u64) -> bool) -> Result<Options, Vec<u8>> {
        let mut options = Options::default();
        let mut at = 3;
        while at < request.len() {
            let more = at + 1 < request.len();
            if request.is(at, "REDIRECT") && more {
                at += 1;
                options.redirect(request.arg(at), &knows)?;
            } else if request.is(at, "PREFIX") && more {
                at += 1;
                options.prefixes.push(Bytes::copy_from_slice(request.arg(at)));
            } else if request.is(at, "BCAST") {
                options.broadcast = true;
            } else if request.is(at, "OPTIN") {
                options.opt_in = true;
            } else if request.is(at, "OPTOUT") {
                options.opt_out = true;
            } else if request.is(at, "NOLOOP") {
                options.noloop = true;
            } else {
                return Err(says::SYNTAX.into());
            }
            at += 1;
        }
        options.mode = match () {
            () if options.broadcast => TrackingMode::Broadcast,
            () if options.opt_in => TrackingMode::OptIn,
            () if options.opt_out => TrackingMode::OptOut,
            () => TrackingMode::Read,
        };
        Ok(options)
    }

    fn redirect(&mut self, id: &[u8], knows: &impl Fn(u64) -> bool) -> Result<(), Vec<u8>> {
        if self.redirect != 0 {
            return Err(says::ONE_REDIRECT.into());
        }
        let id = decimal(id).ok_or(says::NOT_INTEGER)?;
        self.redirect = u64::try_from(id).ok().filter(|id| knows(*id)).ok_or(says::NO_REDIRECT)?;
        Ok(())
    }

    /// Whether they fit together, and to the tracking there is.
    pub fn check(&self, now: Option<&Tracking>) -> Result<(), Vec<u8>> {
        let error = |text: &str| Err(text.into());
        if !self.broadcast && !self.prefixes.is_empty() {
            return error(says::PREFIX_WITHOUT_BCAST);
        }
        if now.is_some_and(|now| (now.mode == TrackingMode::Broadcast) != self.broadcast) {
            return error(says::SWITCH_BCAST);
        }
        if self.broadcast && (self.opt_in || self.opt_out) {
            return error(says::OPT_AND_BCAST);
        }
        if self.opt_in && self.opt_out {
            return error(says::OPTIN_AND_OPTOUT);
        }
        let mode = now.map(|now| now.mode);
        if self.opt_in && mode == Some(TrackingMode::OptOut) || self.opt_out && mode == Some(TrackingMode::OptIn) {
            return error(says::SWITCH_OPT);
        }
        let (none, now) = (BTreeSet::new(), now.map(|now| &now.prefixes));
        match overlap::find(&self.prefixes, now.unwrap_or(&none)) {
            Some(Overlap { prefix, other, existing: true }) => {
                Err(says::prefixes_overlap(prefix, "an existing", other))
            }
            Some(Overlap { prefix, other, existing: false }) => {
                Err(says::prefixes_overlap(prefix, "another provided", other))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::router::scripted::request;

    #[test]
    fn options_are_read_and_checked_as_a_server_does() {
        for (words, expected) in [
            ("ON", Ok(TrackingMode::Read)),
            ("ON NOLOOP OPTIN", Ok(TrackingMode::OptIn)),
            ("ON OPTOUT REDIRECT 7", Ok(TrackingMode::OptOut)),
            ("ON BCAST PREFIX a PREFIX b", Ok(TrackingMode::Broadcast)),
            ("ON PREFIX a", Err(says::PREFIX_WITHOUT_BCAST)),
            ("ON BCAST OPTIN", Err(says::OPT_AND_BCAST)),
            ("ON OPTIN OPTOUT", Err(says::OPTIN_AND_OPTOUT)),
            ("ON REDIRECT 7 REDIRECT 7", Err(says::ONE_REDIRECT)),
            ("ON REDIRECT 8", Err(says::NO_REDIRECT)),
            ("ON REDIRECT many", Err(says::NOT_INTEGER)),
            ("ON REDIRECT", Err(says::SYNTAX)),
            ("ON NOSUCH", Err(says::SYNTAX)),
        ] {
            let words = request(&format!("CLIENT TRACKING {words}"));
            let read = Options::parse(&words.as_request(), |id| id == 7);
            let checked = read.and_then(|options| options.check(None).map(|()| options.mode));
            assert_eq!(checked, expected.map_err(|error| error.as_bytes().to_vec()), "{words:?}");
        }
    }
}
