//! Reading rules: the words of ACL SETUSER that are about commands, keys and channels.

use super::{About, CommandRule, KeyPattern, Patterns, Rules, Selector, categories, row};
use crate::commands::table::{self, CommandTable, access::Access};

impl Rules {
    /// Reads rules, such as `~cache:* +@read -@dangerous (%R~shared:* +get)`. What they do not allow is forbidden.
    ///
    /// # Errors
    /// Which word is wrong, and why.
    ///
    /// ```
    /// use slotway::commands::rules::Rules;
    ///
    /// assert!(Rules::parse("~cache:* +@read -@dangerous &news.*").is_ok());
    /// let error = Rules::parse("~cache:* +@reed").unwrap_err();
    /// assert_eq!(error, "`+@reed`: there is no category `reed`; did you mean `read`?");
    /// ```
    pub fn parse(text: &str) -> Result<Rules, String> {
        let mut selectors = vec![Selector::default()];
        let mut inside: Option<Selector> = None;
        for whole in text.split_whitespace() {
            let mut word = whole;
            if inside.is_none()
                && let Some(rest) = word.strip_prefix('(')
            {
                (inside, word) = (Some(Selector::default()), rest);
            }
            let closes = inside.is_some() && word.ends_with(')');
            if closes {
                word = &word[..word.len() - 1];
            }
            match (&mut inside, word) {
                (_, "") => {}
                (Some(selector), word) => selector.read(word)?,
                (None, word) if word.eq_ignore_ascii_case("clearselectors") => selectors.truncate(1),
                (None, word) if word.eq_ignore_ascii_case("reset") => selectors = vec![Selector::default()],
                (None, word) => selectors[0].read(word)?,
            }
            if closes {
                selectors.extend(inside.take());
            }
        }
        match inside {
            Some(_) => Err("`(` has no `)`: each selector ends in one".to_owned()),
            None => Ok(Rules { selectors }),
        }
    }
}

impl Selector {
    fn read(&mut self, word: &str) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("`{word}`: {why}"));
        match &*word.to_ascii_lowercase() {
            "allkeys" | "~*" => self.keys = Patterns::All,
            "resetkeys" => self.keys = Patterns::default(),
            "allchannels" | "&*" => self.channels = Patterns::All,
            "resetchannels" => self.channels = Patterns::default(),
            "allcommands" | "+@all" => self.about_all(true),
            "nocommands" | "-@all" => self.about_all(false),
            // So are all users of the proxy's own.
            "on" | "sanitize-payload" => {}
            "off" => return wrong("a user that is switched off is none: leave out its table"),
            "nopass" | "resetpass" => return wrong("passwords are those of `password_file`"),
            _ => match word.as_bytes() {
                [b'>' | b'<' | b'#' | b'!', ..] => {
                    // It may be a password.
                    return Err(
                        "a word with `>`, `<`, `#` or `!` in front: passwords are those of `password_file`".to_owned()
                    );
                }
                [b'+', name @ ..] => return self.read_command(word, str_of(name), true),
                [b'-', name @ ..] => return self.read_command(word, str_of(name), false),
                [b'~', pattern @ ..] => return self.add_keys(word, pattern, Access::BOTH),
                [b'%', rest @ ..] => {
                    let Some(tilde) = rest.iter().position(|&byte| byte == b'~') else {
                        return wrong("what is said by % ends in a ~ and a pattern, such as %R~cache:*");
                    };
                    let (letters, pattern) = (&rest[..tilde], &rest[tilde + 1..]);
                    let access = match &*letters.to_ascii_uppercase() {
                        b"R" => Access { reads: true, writes: false },
                        b"W" => Access { reads: false, writes: true },
                        b"RW" | b"WR" => Access::BOTH,
                        _ => return wrong("between % and ~ there is R, W or RW"),
                    };
                    return self.add_keys(word, pattern, access);
                }
                [b'&', pattern @ ..] => match &mut self.channels {
                    Patterns::All => return wrong("behind allchannels it has no effect; `resetchannels` ends that"),
                    Patterns::These(patterns) if patterns.iter().any(|own| **own == *pattern) => {}
                    Patterns::These(patterns) => patterns.push(pattern.into()),
                },
                [b'(' | b')', ..] => return wrong("a selector begins with ( and ends in ), and has none within"),
                _ if word.contains('=') || word.eq_ignore_ascii_case("alldbs") => {
                    return wrong("in which database a user works is said by `database`");
                }
                _ => {
                    return wrong(
                        "this is no rule: there are ~key %R~key &channel +command -command +@category -@category",
                    );
                }
            },
        }
        Ok(())
    }

    fn about_all(&mut self, allows: bool) {
        self.commands = vec![CommandRule { allows, about: About::All }];
    }

    fn add_keys(&mut self, word: &str, pattern: &[u8], access: Access) -> Result<(), String> {
        match &mut self.keys {
            Patterns::All => return Err(format!("`{word}`: behind allkeys it has no effect; `resetkeys` ends that")),
            Patterns::These(patterns) => match patterns.iter_mut().find(|own| *own.pattern == *pattern) {
                Some(own) => {
                    own.access.reads |= access.reads;
                    own.access.writes |= access.writes;
                }
                None => patterns.push(KeyPattern { pattern: pattern.into(), access }),
            },
        }
        Ok(())
    }

    fn read_command(&mut self, word: &str, name: &str, allows: bool) -> Result<(), String> {
        let wrong = |why: String| Err(format!("`{word}`: {why}"));
        let name = name.to_ascii_lowercase();
        let about = if let Some(category) = name.strip_prefix('@') {
            if !categories().contains(&category) {
                return wrong(format!(
                    "there is no category `{category}`{}",
                    meant(category, categories().iter().copied())
                ));
            }
            About::Category(category.into())
        } else {
            let commands = CommandTable::builtin();
            let (container, sub) = name.split_once('|').unwrap_or((&name, ""));
            match row(&commands, container) {
                // What modules bring is known once a server has been asked.
                None if container.contains('.') && sub.is_empty() => About::Command(container.into()),
                None => {
                    let names = commands.rows().iter().map(|spec| &*spec.name);
                    return wrong(format!("there is no command `{container}`{}", meant(container, names)));
                }
                Some(_) if !name.contains('|') => About::Command(container.into()),
                Some(_) if sub.is_empty() || sub.contains('|') => {
                    return wrong("behind | there is one subcommand".to_owned());
                }
                Some(spec) if spec.container => match row(&commands, &name) {
                    Some(_) => About::Command(table::canonical(&name).into()),
                    None => {
                        let prefix = format!("{container}|");
                        let subs = commands.rows().iter().filter_map(|spec| spec.name.strip_prefix(&*prefix));
                        return wrong(format!("{container} has no subcommand `{sub}`{}", meant(sub, subs)));
                    }
                },
                Some(_) if !allows => {
                    return wrong(format!(
                        "a first argument can be allowed, not forbidden: `-{container} +{container}|...`"
                    ));
                }
                Some(_) => About::First(container.into(), sub.into()),
            }
        };
        self.commands.push(CommandRule { allows, about });
        Ok(())
    }
}

/// What follows an ASCII letter of a text is one.
fn str_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// `; did you mean ...?`, where a name is near.
fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    const NEAR: f64 = 0.8;
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.filter(|(score, _)| *score >= NEAR).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}
