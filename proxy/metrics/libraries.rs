//! The libraries that clients name (CLIENT SETINFO LIB-NAME), as few words that make labels: a client may name itself anything.

use std::fmt::Write;

use super::{labels::labels, names, text};

labels! {
    /// A client's library.
    Library {
        /// Python.
        RedisPy = "redis-py",
        /// Java.
        Jedis = "jedis",
        /// Java.
        Lettuce = "lettuce",
        /// JavaScript.
        NodeRedis = "node-redis",
        /// JavaScript.
        Ioredis = "ioredis",
        /// Go.
        GoRedis = "go-redis",
        /// Go.
        Rueidis = "rueidis",
        /// Rust.
        RedisRs = "redis-rs",
        /// C#.
        StackExchange = "se.redis",
        /// PHP.
        Predis = "predis",
        /// Python, of Valkey.
        ValkeyPy = "valkey-py",
        /// Several languages, of Valkey.
        Glide = "glide",
        /// Another one.
        Other = "other",
        /// The client names none.
        None = "none",
    }
}

impl Library {
    /// The one that a client names so, whatever it adds to the name (`redis-py(django-redis_v5.4.0)`).
    pub fn of(name: &[u8]) -> Library {
        if name.is_empty() {
            return Library::None;
        }
        let begins = |library: &&Library| {
            let label = library.label().as_bytes();
            name.get(..label.len()).is_some_and(|front| front.eq_ignore_ascii_case(label))
        };
        let known = Library::ALL.iter().filter(|library| !matches!(library, Library::Other | Library::None));
        known.copied().find(|library| begins(&library)).unwrap_or(Library::Other)
    }
}

/// How many clients have which library.
#[derive(Clone, Debug, Default)]
pub struct Libraries([usize; Library::ALL.len()]);

impl FromIterator<Library> for Libraries {
    fn from_iter<T: IntoIterator<Item = Library>>(all: T) -> Libraries {
        let mut counts = Libraries::default();
        all.into_iter().for_each(|library| counts.0[library as usize] += 1);
        counts
    }
}

impl Libraries {
    /// Adds the series, all of them: what nobody has is 0.
    pub(super) fn write(&self, out: &mut String) {
        let family = &names::CLIENTS_BY_LIBRARY;
        text::head(out, family);
        for (library, count) in Library::ALL.iter().zip(self.0) {
            let _ = writeln!(out, "{}{{library=\"{}\"}} {count}", family.name, library.label());
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_by_how_their_names_begin() {
        for (name, label) in [
            ("redis-py", "redis-py"),
            ("redis-py(django-redis_v5.4.0)", "redis-py"),
            ("Lettuce", "lettuce"),
            ("go-redis(,go1.22.1)", "go-redis"),
            ("SE.Redis", "se.redis"),
            ("GlidePy", "glide"),
            ("redis", "other"),
            ("other", "other"),
            ("none", "other"),
            ("", "none"),
        ] {
            assert_eq!(Library::of(name.as_bytes()).label(), label, "{name}");
        }
    }
}
