//! Which arguments of a command nobody is shown: a column of its row. Servers redact them in MONITOR and SLOWLOG, where the
//! command is otherwise well formed.

use std::ops::Range;

use crate::protocol::resp::Request;

/// Where a command has passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// Nowhere.
    #[default]
    None,
    /// All its arguments are: AUTH.
    All,
    /// Behind the option AUTH, a user and a password: HELLO.
    Hello,
    /// Behind AUTH a password, behind AUTH2 a user and a password; not behind KEYS: MIGRATE.
    Migrate,
}

/// The column of the row with this name.
pub fn of(name: &str) -> Secrets {
    match name {
        "auth" => Secrets::All,
        "hello" => Secrets::Hello,
        "migrate" => Secrets::Migrate,
        _ => Secrets::None,
    }
}

impl Secrets {
    /// The indexes of the arguments of `request` that nobody is shown.
    pub fn within(self, request: &Request<'_>) -> Vec<Range<usize>> {
        let first_option = match self {
            Secrets::None => return Vec::new(),
            Secrets::All => return std::iter::once(1..request.len()).collect(),
            Secrets::Hello => 2,
            Secrets::Migrate => 6,
        };
        let is_migrate = self == Secrets::Migrate;
        let (mut secrets, mut at) = (Vec::new(), first_option);
        while at < request.len() && !(is_migrate && request.is(at, "KEYS")) {
            let count = match request.is(at, "AUTH") {
                true if is_migrate => 1,
                true => 2,
                false if is_migrate && request.is(at, "AUTH2") => 2,
                false => 0,
            };
            secrets.push(at + 1..at + 1 + count);
            at += 1 + count + usize::from(request.is(at, "SETNAME"));
        }
        secrets
    }
}

#[cfg(test)]
mod tests {
    use crate::{commands::table::CommandTable, protocol::resp::request::Parser};

    #[test]
    fn passwords_are_found_where_they_are() {
        let table = CommandTable::builtin();
        for (line, secret) in [
            ("AUTH a", &["a"][..]),
            ("AUTH a b", &["a", "b"]),
            ("AUTH a b c", &["a", "b", "c"]),
            ("HELLO 3 AUTH a b SETNAME auth", &["a", "b"]),
            ("HELLO 3 SETNAME auth AUTH a b", &["a", "b"]),
            ("HELLO 3 x AUTH a", &["a"]),
            ("MIGRATE h 1 k 0 1 AUTH a COPY", &["a"]),
            ("MIGRATE h 1 \"\" 0 1 AUTH2 a b KEYS auth auth2", &["a", "b"]),
            ("ECHO AUTH", &[]),
        ] {
            let (mut parser, text) = (Parser::default(), format!("{line}\r\n"));
            let found = parser.find(text.as_bytes()).unwrap().unwrap();
            let request = parser.request(text.as_bytes(), found);
            let spec = table.find(&request).expect(line);
            let hidden = spec.secrets.within(&request).into_iter().flatten().filter_map(|at| request.get(at));
            assert_eq!(
                hidden.collect::<Vec<_>>(),
                secret.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(),
                "{line}"
            );
        }
    }
}
