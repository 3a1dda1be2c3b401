//! Making rows: from a server's reply to `COMMAND`, and from and to the text in which the built-in table is kept.
//!
//! One line of that text is one command, its parts set apart by tabs: name, arity, flags, key specs, policies, ACL
//! categories. A key spec reads `flags/begin/find`, as in `RO/index:1/range:-1,1,0`; empty flags, key specs and categories are
//! `-`, empty policies `,`.

use std::fmt::{self, Write};

use super::{
    CommandTable,
    command_info::{Begin, Find, Flags, KeyFlags, KeySpec, RequestPolicy, ResponsePolicy},
    spec::Spec,
};
use crate::protocol::resp::Value;

/// Why a reply is of no use as a table.
#[derive(Debug, PartialEq, Eq)]
pub struct NoTable(String);

impl fmt::Display for NoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the reply to COMMAND cannot be used ({}): the built-in table stays", self.0)
    }
}

impl std::error::Error for NoTable {}

/// The rows that a server told.
pub fn rows_of_reply(reply: &Value, builtin: &CommandTable) -> Result<Vec<Spec>, NoTable> {
    if let Value::Error(text) = reply {
        return Err(NoTable(String::from_utf8_lossy(text).into_owned()));
    }
    let mut rows = Vec::new();
    for row in reply.items() {
        add_rows(row, builtin, &mut rows);
    }
    if rows.iter().any(|spec| &*spec.name == "get") { Ok(rows) } else { Err(NoTable("it has no row for GET".into())) }
}

/// Adds the row of a command and those of its subcommands; what is not a row is passed over.
fn add_rows(row: &Value, builtin: &CommandTable, rows: &mut Vec<Spec>) {
    let parts = row.items();
    let [name, arity, flags, first, last, step, rest @ ..] = parts else { return };
    let (Some(name), Some(arity)) = (name.str(), arity.integer()) else { return };
    let mut set = Flags::default();
    flags.items().iter().filter_map(Value::str).for_each(|flag| set.set_named(flag));
    // Servers before version 7 tell neither tips nor key specs nor subcommands: the built-in table knows better then.
    let Some([tips, specs, subcommands]) = rest.get(1..4).and_then(|rest| <&[Value; 3]>::try_from(rest).ok()) else {
        let known = name.split_once('|').unwrap_or((name, ""));
        let mut known = builtin.named(known.0.as_bytes(), known.1.as_bytes()).cloned();
        let container = known.as_ref().is_some_and(|spec| spec.container);
        let keys = legacy_keys([first, last, step]);
        let spec = known.take().unwrap_or_else(|| {
            Spec::new(name, arity as i32, set, keys, RequestPolicy::None, ResponsePolicy::None, false)
        });
        if container {
            let prefix = format!("{}|", spec.name);
            rows.extend(builtin.rows().iter().filter(|sub| sub.name.starts_with(&prefix)).cloned());
        }
        rows.push(spec);
        return;
    };
    let mut keys: Vec<KeySpec> = specs.items().iter().map(key_spec).collect();
    if keys.is_empty() {
        keys = legacy_keys([first, last, step]);
    }
    let categories = rest.first().map_or(&[][..], Value::items);
    let categories: Vec<&str> =
        categories.iter().filter_map(Value::str).map(|name| name.trim_start_matches('@')).collect();
    let policy = |kind: &str| tips.items().iter().filter_map(Value::str).find_map(|tip| tip.strip_prefix(kind));
    let mut spec = Spec::new(
        name,
        arity as i32,
        set,
        keys,
        policy("request_policy:").map_or(RequestPolicy::None, RequestPolicy::named),
        policy("response_policy:").map_or(ResponsePolicy::None, ResponsePolicy::named),
        !subcommands.items().is_empty(),
    );
    spec.categories = categories.join(",").into();
    rows.push(spec);
    subcommands.items().iter().for_each(|sub| add_rows(sub, builtin, rows));
}

/// First key, last key and step, which modules without key specs tell.
fn legacy_keys(places: [&Value; 3]) -> Vec<KeySpec> {
    let [first, last, step] = places.map(|place| place.integer().unwrap_or(0));
    let Ok(begin @ 1..) = u32::try_from(first) else { return Vec::new() };
    let last = if last >= 0 { last - first } else { last };
    vec![KeySpec {
        begin: Begin::Index(begin),
        find: Find::Range { last: last as i32, step: u32::try_from(step).unwrap_or(1), limit: 0 },
        flags: KeyFlags::default(),
    }]
}

fn key_spec(spec: &Value) -> KeySpec {
    let mut flags = KeyFlags::default();
    let names = spec.field("flags").map_or(&[][..], Value::items);
    names.iter().filter_map(Value::str).for_each(|flag| flags.set_named(flag));
    KeySpec {
        begin: spec.field("begin_search").and_then(begin).unwrap_or(Begin::Unknown),
        find: spec.field("find_keys").and_then(find).unwrap_or(Find::Unknown),
        flags,
    }
}

fn begin(search: &Value) -> Option<Begin> {
    let spec = search.field("spec")?;
    match search.field("type")?.str()? {
        "index" => Some(Begin::Index(number(spec, "index")?.try_into().ok()?)),
        "keyword" => {
            Some(Begin::Keyword { word: spec.field("keyword")?.str()?.into(), from: number(spec, "startfrom")? as i32 })
        }
        _ => None,
    }
}

fn find(keys: &Value) -> Option<Find> {
    let spec = keys.field("spec")?;
    let natural = |field| number(spec, field).and_then(|number| u32::try_from(number).ok());
    match keys.field("type")?.str()? {
        "range" => Some(Find::Range {
            last: number(spec, "lastkey")? as i32,
            step: natural("keystep")?,
            limit: natural("limit")?,
        }),
        "keynum" => Some(Find::Count {
            count_at: natural("keynumidx")?,
            first: natural("firstkey")?,
            step: natural("keystep")?,
        }),
        _ => None,
    }
}

fn number(spec: &Value, field: &str) -> Option<i64> {
    spec.field(field)?.integer().filter(|number| i32::try_from(*number).is_ok())
}

/// A server's rows in the text of the built-in table, by name.
pub fn listing(reply: &Value) -> Result<Vec<String>, NoTable> {
    let mut rows = rows_of_reply(reply, &CommandTable::builtin())?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows.iter().map(text_of_row).collect())
}

fn text_of_row(spec: &Spec) -> String {
    let joined = |names: Vec<&str>| if names.is_empty() { "-".to_owned() } else { names.join(",") };
    let keys: Vec<String> = spec.keys.iter().map(text_of_keys).collect();
    let mut flags: Vec<&str> = spec.flags.names().collect();
    if spec.container {
        flags.push("container");
    }
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}",
        spec.name,
        spec.arity,
        joined(flags),
        if keys.is_empty() { "-".to_owned() } else { keys.join(" ") },
        joined(vec![spec.request_policy.name(), spec.response_policy.name()]),
        if spec.categories.is_empty() { "-" } else { &spec.categories },
    )
}

fn text_of_keys(spec: &KeySpec) -> String {
    let flags: Vec<&str> = spec.flags.names().collect();
    let mut text = flags.join(",");
    // Writing to a String cannot fail.
    let _ = match &spec.begin {
        Begin::Index(index) => write!(text, "/index:{index}"),
        Begin::Keyword { word, from } => write!(text, "/keyword:{word},{from}"),
        Begin::Unknown => write!(text, "/unknown"),
    };
    let _ = match spec.find {
        Find::Range { last, step, limit } => write!(text, "/range:{last},{step},{limit}"),
        Find::Count { count_at, first, step } => write!(text, "/keynum:{count_at},{first},{step}"),
        Find::Unknown => write!(text, "/unknown"),
    };
    text
}

/// The row of a line of the built-in table; `None` for a line that is none, such as a comment.
pub fn row_of_text(line: &str) -> Option<Spec> {
    let mut parts = line.split('\t');
    let (name, arity, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let (keys, policies, categories) = (parts.next()?, parts.next()?, parts.next()?);
    let mut set = Flags::default();
    flags.split(',').for_each(|flag| set.set_named(flag));
    let container = flags.split(',').any(|flag| flag == "container");
    let keys = if keys == "-" { Vec::new() } else { keys.split(' ').map(keys_of_text).collect::<Option<_>>()? };
    let (request, response) = policies.split_once(',')?;
    let (request, response) = (RequestPolicy::named(request), ResponsePolicy::named(response));
    let mut spec = Spec::new(name, arity.parse().ok()?, set, keys, request, response, container);
    spec.categories = categories.trim_matches('-').into();
    Some(spec)
}

fn keys_of_text(text: &str) -> Option<KeySpec> {
    let mut parts = text.split('/');
    let (names, begin, find) = (parts.next()?, parts.next()?, parts.next()?);
    let mut flags = KeyFlags::default();
    names.split(',').for_each(|name| flags.set_named(name));
    let (kind, place) = begin.split_once(':').unwrap_or((begin, ""));
    let begin = match kind {
        "index" => Begin::Index(place.parse().ok()?),
        "keyword" => {
            let (word, from) = place.split_once(',')?;
            Begin::Keyword { word: word.into(), from: from.parse().ok()? }
        }
        _ => Begin::Unknown,
    };
    let (kind, numbers) = find.split_once(':').unwrap_or((find, ""));
    let numbers: Vec<i32> = numbers.split(',').filter_map(|number| number.parse().ok()).collect();
    let find = match (kind, &numbers[..]) {
        ("range", &[last, step, limit]) => Find::Range { last, step: step as u32, limit: limit as u32 },
        ("keynum", &[at, first, step]) => Find::Count { count_at: at as u32, first: first as u32, step: step as u32 },
        _ => Find::Unknown,
    };
    Some(KeySpec { begin, find, flags })
}
