//! What will not fit, before anything is written: keys that are there otherwise, and function libraries whose name is taken.

use bytes::Bytes;

use super::{
    Copy, EXAMPLES, Progress, Stage,
    compare::Comparison,
    kept,
    server::{Server, writes},
    shown,
    source::Source,
};
use crate::protocol::resp::Value;

/// What there is in the way.
#[derive(Debug, Default)]
pub struct Fit {
    /// Keys that are there already, alike.
    pub alike: u64,
    /// Keys that are different there.
    pub differing: u64,
    /// Some of those, with what is different.
    pub examples: Vec<String>,
    /// The function libraries.
    pub functions: Functions,
}

/// Function libraries of the server that is copied from.
#[derive(Debug, Default)]
pub struct Functions {
    /// Libraries to be loaded: names and texts.
    pub missing: Vec<(String, Bytes)>,
    /// Libraries whose name another one has there.
    pub taken: Vec<String>,
}

/// Looks at all keys, unless there are none that could be in the way; and at the libraries.
pub(super) async fn look(copy: &mut Copy, progress: &dyn Fn(Progress)) -> Result<Fit, String> {
    let mut fit = Fit { functions: functions(copy).await?, ..Fit::default() };
    if copy.to.count().await? == 0 {
        return Ok(fit);
    }
    let (database, replaces) = (copy.order.database.as_ref(), copy.order.replaces);
    let (mut source, mut looked) = (Source::new(&mut copy.from).await?, 0);
    let expiry = source.tells_when();
    while let Some(keys) = source.next_keys().await? {
        looked += keys.len() as u64;
        let mut frames = Vec::new();
        keys.iter().for_each(|key| writes(&mut frames, &[&b"EXISTS"[..], &kept(database, key)]));
        let said = copy.to.ask_all(&frames, keys.len()).await?;
        if let Some(error) = said.iter().find(|said| matches!(said, Value::Error(_))) {
            return Err(copy.to.odd("EXISTS", error));
        }
        let there = keys.into_iter().zip(said).filter(|(_, said)| said.integer() == Some(1));
        let there: Vec<Bytes> = there.map(|(key, _)| key).collect();
        if replaces {
            // Whatever they are, they will be alike.
            fit.differing += there.len() as u64;
        } else {
            let comparison = Comparison::new(source.server(), &mut copy.to, database, expiry);
            let differing = comparison.of(&there).await?;
            fit.alike += (there.len() - differing.len()) as u64;
            fit.differing += differing.len() as u64;
            let room = EXAMPLES.saturating_sub(fit.examples.len());
            fit.examples.extend(differing.iter().take(room).map(|(key, how)| format!("{} {how}", shown(key))));
        }
        progress(Progress { stage: Stage::Looking, keys: looked, bytes: 0 });
    }
    Ok(fit)
}

async fn functions(copy: &mut Copy) -> Result<Functions, String> {
    let mut functions = Functions::default();
    if copy.order.without_functions {
        return Ok(functions);
    }
    // Before Redis 7.0 there are none.
    let Ok(ours) = libraries(&mut copy.from).await? else { return Ok(functions) };
    if ours.is_empty() {
        return Ok(functions);
    }
    let theirs = match libraries(&mut copy.to).await? {
        Ok(theirs) => theirs,
        Err(error) => return Err(copy.to.odd("FUNCTION LIST", &error)),
    };
    for (name, code) in ours {
        match theirs.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known == code => {}
            Some(_) if !copy.order.replaces => functions.taken.push(name),
            _ => functions.missing.push((name, code)),
        }
    }
    Ok(functions)
}

/// The libraries' names and texts; or the error that the server says.
async fn libraries(server: &mut Server) -> Result<Result<Vec<(String, Bytes)>, Value>, String> {
    let said = server.ask(&["FUNCTION", "LIST", "WITHCODE"]).await?;
    if matches!(said, Value::Error(_)) {
        return Ok(Err(said));
    }
    let library = |library: &Value| match library.field("library_code")? {
        Value::Text(code) => Some((library.field("library_name")?.str()?.to_owned(), code.clone())),
        _ => None,
    };
    Ok(Ok(said.items().iter().filter_map(library).collect()))
}
