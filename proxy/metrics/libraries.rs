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
pub struct Libraries {
    counts: [usize; Library::ALL.len()],
    /// The name that came last, and what it is: most clients are of one kind.
    last: Option<(Vec<u8>, Library)>,
}

impl Libraries {
    /// Counts a client that names its library so.
    pub fn add(&mut self, name: &[u8]) {
        let library = match &self.last {
            Some((last, library)) if last == name => *library,
            _ => self.last.insert((name.to_vec(), Library::of(name))).1,
        };
        self.counts[library as usize] += 1;
    }

    /// Adds the series, all of them: what nobody has is 0.
    pub(super) fn write(&self, out: &mut String) {
        let family = &names::CLIENTS_BY_LIBRARY;
        text::head(out, family);
        for (library, count) in Library::ALL.iter().zip(self.counts) {
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

    #[test]
    fn each_client_counts_for_its_own() {
        let mut libraries = Libraries::default();
        for name in ["redis-py", "redis-py", "", "jedis", "redis-py"] {
            libraries.add(name.as_bytes());
        }
        let mut text = String::new();
        libraries.write(&mut text);
        for line in ["{library=\"redis-py\"} 3", "{library=\"jedis\"} 1", "{library=\"none\"} 1"] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
