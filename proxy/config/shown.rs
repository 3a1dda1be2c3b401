//! The configuration in force, for people: every key, its value, and where that came from.

use figment::value::{Dict, Value};

use super::{ConfigError, Sources, layer::Origin};

/// One key for `slotway check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownKey {
    /// The key, with dots.
    pub key: String,
    /// The value as TOML; stars for a password.
    pub value: String,
    /// Where it came from: `default`, a file, a variable or a flag.
    pub from: String,
}

/// Every key, sorted.
pub fn shown(sources: &Sources) -> Result<Vec<ShownKey>, ConfigError> {
    let layers = sources.merged()?;
    let values: Dict = layers.extract().map_err(|error| ConfigError::of(error, &layers))?;
    let mut keys = Vec::new();
    collect(&values, &mut Vec::new(), &mut |path, value| {
        let key = path.join(".");
        let origin = Origin::of(layers.find_metadata(&key));
        let from = match origin {
            Origin::Environment | Origin::Flag => origin.write(path),
            Origin::Default | Origin::File(_) => origin.to_string(),
        };
        let value = if is_secret(&key) && value != "\"\"" { "\"****\"".to_owned() } else { value };
        keys.push(ShownKey { key, value, from });
    });
    Ok(keys)
}

fn is_secret(key: &str) -> bool {
    key.rsplit(['.', '_']).next() == Some("password")
}

fn collect(table: &Dict, path: &mut Vec<String>, show: &mut impl FnMut(&[String], String)) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Dict(_, below) => collect(below, path, show),
            value => show(path, toml::Value::try_from(value).map_or_else(|_| String::new(), |value| value.to_string())),
        }
        path.pop();
    }
}
