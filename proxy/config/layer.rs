//! Where values come from, and how a key is written there.

use std::{fmt, path::PathBuf};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{ConfigError, DEFAULTS};

/// What every variable's name starts with.
pub(super) const PREFIX: &str = "SLOTWAY_";

/// What to read. Each layer is stronger than the one before it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file; `SLOTWAY_CONFIG` among `variables` stands for it where it is `None`.
    pub file: Option<PathBuf>,
    /// Environment variables, as `std::env::vars` has them; others than `SLOTWAY_…` are passed over.
    pub variables: Vec<(String, String)>,
    /// Flags: the key with dots and underscores (`pubsub.hard_limit`), and the value as written.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// A file and flags beside this process's environment.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Sources {
        // `vars` would panic on a variable that is not UTF-8.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        Sources { file, variables, flags }
    }

    /// All layers, merged but not yet checked.
    pub(super) fn merged(&self) -> Result<Figment, ConfigError> {
        let mut layers =
            Figment::from(Layer { origin: Origin::Default, values: parsed(DEFAULTS, "config/slotway.toml")? });
        if let Some(file) = self.file.clone().or_else(|| self.variable("SLOTWAY_CONFIG").map(PathBuf::from)) {
            let why = |error: std::io::Error| ConfigError::Unreadable { file: file.clone(), why: error.to_string() };
            let text = std::fs::read_to_string(&file).map_err(why)?;
            layers = layers.merge(Layer { values: parsed(&text, &file)?, origin: Origin::File(file) });
        }
        layers = layers.merge(Layer { origin: Origin::Environment, values: self.in_variables() });
        Ok(layers.merge(Layer { origin: Origin::Flag, values: tree(self.flags.iter().cloned()) }))
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.variables.iter().find(|(known, value)| known == name && !value.is_empty())?;
        Some(value)
    }

    fn in_variables(&self) -> Dict {
        let ours = self.variables.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?;
            // Set but empty is how compose files say "not set": `SLOTWAY_PASSWORD=${PASSWORD:-}`.
            let counts = key != "CONFIG" && !value.is_empty() && !of_a_service(key, value);
            counts.then(|| (key.to_lowercase().replace("__", "."), value.clone()))
        });
        tree(ours)
    }
}

/// Whether Kubernetes or docker links set this variable, for a service that is itself called `slotway…`: then
/// `SLOTWAY_PORT=tcp://10.0.0.1:6380`, `SLOTWAY_SERVICE_HOST`, `SLOTWAY_PORT_6380_TCP_ADDR` and more are there, none of
/// them meant for us.
fn of_a_service(key: &str, value: &str) -> bool {
    let linked = value.starts_with("tcp://") || value.starts_with("udp://");
    let port = key.split_once("PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    linked || port || key.ends_with("SERVICE_HOST") || key.ends_with("SERVICE_PORT") || key.contains("SERVICE_PORT_")
}

/// The text as a tree. A message of the parser quotes the line, which may hold a password: only what it says is kept.
fn parsed(text: &str, file: impl Into<PathBuf>) -> Result<Dict, ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count() + 1);
        ConfigError::Syntax { file: file.into(), line, why: error.message().to_owned() }
    })?;
    let value = Value::serialize(table).ok();
    Ok(value.and_then(Value::into_dict).unwrap_or_default())
}

/// Flat keys with dots, as a tree of texts.
fn tree(pairs: impl Iterator<Item = (String, String)>) -> Dict {
    let mut root = Dict::new();
    for (key, value) in pairs {
        let steps: Vec<&str> = key.split('.').collect();
        insert(&mut root, &steps, value);
    }
    root
}

fn insert(table: &mut Dict, steps: &[&str], value: String) {
    match steps {
        [] => {}
        [key] => drop(table.insert((*key).to_owned(), Value::from(value))),
        [key, below @ ..] => {
            let inner = table.entry((*key).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, below, value);
            }
        }
    }
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in file.
    Default,
    /// The operator's file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl Origin {
    pub(super) fn of(metadata: Option<&Metadata>) -> Origin {
        let Some(metadata) = metadata else { return Origin::Default };
        match (metadata.name.as_ref(), &metadata.source) {
            ("file", Some(source)) => source.file_path().map_or(Origin::Default, |path| Origin::File(path.to_owned())),
            ("environment", _) => Origin::Environment,
            ("flag", _) => Origin::Flag,
            _ => Origin::Default,
        }
    }

    /// How the key at `path` is written there.
    pub(super) fn write(&self, path: &[String]) -> String {
        match self {
            Origin::Default | Origin::File(_) => path.join("."),
            Origin::Environment => format!("{PREFIX}{}", path.join("__").to_uppercase()),
            Origin::Flag => format!("--{}", path.join("-").replace('_', "-")),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => path.display().fmt(f),
            Origin::Environment => f.write_str("environment"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// One source's values, for figment to merge.
struct Layer {
    origin: Origin,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        match &self.origin {
            Origin::Default => Metadata::named("default"),
            Origin::File(path) => Metadata::from("file", path.as_path()),
            Origin::Environment => Metadata::named("environment"),
            Origin::Flag => Metadata::named("flag"),
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}
