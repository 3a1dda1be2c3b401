//! Rules and refusals in words: the servers' own, where they have some.

use super::{About, CommandRule, KeyPattern, Patterns, Rules, Selector};
use crate::protocol::says;

/// What of a request its user may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// To run the command.
    Command,
    /// To do with this key what the command does.
    Key(&'a [u8]),
    /// To use this channel.
    Channel(&'a [u8]),
    /// To read keys that SORT does not name, by this option.
    Option(&'static str),
    /// To run code, which could do what the user may not.
    Code,
}

/// Whom a refusal is told.
#[derive(Clone, Copy, Debug)]
pub struct RefusalContext<'a> {
    /// The user.
    pub user: &'a str,
    /// The command, as `config|get`.
    pub command: &'a str,
    /// In the words of Redis before 7.2.
    pub is_old: bool,
}

impl Refusal<'_> {
    /// The greater, the closer the request came to being allowed.
    pub(super) fn order(self) -> u8 {
        match self {
            Refusal::Command => 0,
            Refusal::Key(_) => 1,
            Refusal::Channel(_) => 2,
            Refusal::Option(_) | Refusal::Code => 3,
        }
    }

    /// The error.
    pub fn error(self, context: RefusalContext<'_>) -> String {
        let RefusalContext { user, command, is_old } = context;
        match (self, is_old) {
            (Refusal::Command, true) => format!("NOPERM this user has no permissions to run the '{command}' command"),
            (Refusal::Command, false) => {
                format!("NOPERM User {user} has no permissions to run the '{command}' command")
            }
            (Refusal::Key(_), true) => {
                "NOPERM this user has no permissions to access one of the keys used as arguments".to_owned()
            }
            (Refusal::Key(_), false) => "NOPERM No permissions to access a key".to_owned(),
            (Refusal::Channel(_), true) => {
                "NOPERM this user has no permissions to access one of the channels used as arguments".to_owned()
            }
            (Refusal::Channel(_), false) => "NOPERM No permissions to access a channel".to_owned(),
            (Refusal::Option(option), _) => {
                format!("ERR {option} option of SORT denied due to insufficient ACL permissions")
            }
            (Refusal::Code, _) => says::runs_without_rules(command, user),
        }
    }

    /// What ACL DRYRUN says.
    pub fn dry_run(self, context: RefusalContext<'_>) -> Vec<u8> {
        let who = if context.is_old { "This user".to_owned() } else { format!("User {}", context.user) };
        let access = |what: &[u8], kind: &str| {
            [who.as_bytes(), b" has no permissions to access the '", what, b"' ", kind.as_bytes()].concat()
        };
        match self {
            Refusal::Command => {
                format!("{who} has no permissions to run the '{}' command", context.command).into_bytes()
            }
            Refusal::Key(key) => access(key, "key"),
            Refusal::Channel(channel) => access(channel, "channel"),
            Refusal::Option(_) | Refusal::Code => self.error(context).into_bytes(),
        }
    }

    /// What ACL LOG has of it: the reason, and the object.
    pub fn logged(self, command: &str) -> (&'static str, Vec<u8>) {
        match self {
            Refusal::Command | Refusal::Option(_) | Refusal::Code => ("command", command.as_bytes().to_vec()),
            Refusal::Key(key) => ("key", key.to_vec()),
            Refusal::Channel(channel) => ("channel", channel.to_vec()),
        }
    }
}

/// The rules of one selector, as ACL GETUSER tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Such as `-@all +@read`.
    pub commands: Vec<u8>,
    /// Such as `~cache:* %R~shared:*`.
    pub keys: Vec<u8>,
    /// Such as `&news.*`.
    pub channels: Vec<u8>,
}

impl Rules {
    /// Those of a user that may do all.
    pub fn all() -> Rules {
        let everything = vec![CommandRule { allows: true, about: About::All }];
        Rules { selectors: vec![Selector { commands: everything, keys: Patterns::All, channels: Patterns::All }] }
    }

    /// What its selectors say, the first one first.
    pub fn shown(&self) -> Vec<Shown> {
        self.selectors.iter().map(Selector::shown).collect()
    }

    /// The rules in a line, as ACL LIST tells them.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        for (index, selector) in self.selectors.iter().enumerate() {
            let Shown { commands, keys, channels } = selector.shown();
            let resets: &[u8] = if selector.channels == Patterns::All { b"" } else { b"resetchannels" };
            let words: Vec<&[u8]> =
                [&*keys, resets, &*channels, &*commands].into_iter().filter(|word| !word.is_empty()).collect();
            let words = words.join(&b" "[..]);
            match index {
                0 => line = words,
                _ => line.extend([&b" ("[..], &words, b")"].concat()),
            }
        }
        line
    }

    /// Whether there is a channel that these allow and `others` do not, as far as is known.
    pub fn lose_channels(&self, others: &Rules) -> bool {
        let channels =
            |rules: &Rules| rules.selectors.iter().map(|selector| selector.channels.clone()).collect::<Vec<_>>();
        let (ours, theirs) = (channels(self), channels(others));
        ours != theirs && !theirs.contains(&Patterns::All)
    }
}

impl Selector {
    fn shown(&self) -> Shown {
        let commands: Vec<String> = self.commands.iter().map(CommandRule::shown).collect();
        let begins = matches!(self.commands.first(), Some(CommandRule { about: About::All, .. }));
        let commands = if begins { commands } else { [vec!["-@all".to_owned()], commands].concat() };
        Shown {
            commands: commands.join(" ").into_bytes(),
            keys: self.keys.shown(b"~*", KeyPattern::shown),
            channels: self.channels.shown(b"&*", |channel| [b"&", &**channel].concat()),
        }
    }
}

impl<T> Patterns<T> {
    fn shown(&self, all: &[u8], one: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
        match self {
            Patterns::All => all.to_vec(),
            Patterns::These(patterns) => patterns.iter().map(one).collect::<Vec<_>>().join(&b" "[..]),
        }
    }
}

impl KeyPattern {
    fn shown(&self) -> Vec<u8> {
        let head: &[u8] = match (self.access.reads, self.access.writes) {
            (true, false) => b"%R~",
            (false, true) => b"%W~",
            _ => b"~",
        };
        [head, &self.pattern].concat()
    }
}

impl CommandRule {
    fn shown(&self) -> String {
        let sign = if self.allows { '+' } else { '-' };
        match &self.about {
            About::All => format!("{sign}@all"),
            About::Category(name) => format!("{sign}@{name}"),
            About::Command(name) => format!("{sign}{name}"),
            About::First(name, first) => format!("{sign}{name}|{first}"),
        }
    }
}
