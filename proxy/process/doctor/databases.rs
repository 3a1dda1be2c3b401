//! Databases of their own: which node each is at, and whether keys bear its prefix already.

use std::{collections::BTreeMap, time::Duration};

use super::{Report, exam::Exam, some_of};
use crate::{
    cluster::topology::NOBODY,
    commands::database::Database,
    process::databases::{getkeys, told_apart},
    protocol::{address::Address, names::Name},
    upstream::dial::{Control, Credentials, Login},
};

const DATABASES: &str = "databases";
/// How long a node may take to tell of the keys of a slot: longer than it may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the first database of each name of the configuration.
pub async fn judge(exam: &Exam<'_>, report: &mut Report) {
    let Some(view) = &exam.view else { return };
    let names = exam.config.own_databases().unwrap_or_default();
    let mut at: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for database in names.values().filter_map(|numbered| numbered.get(0)) {
        let owner = view.slots[database.slot().index()];
        let owner = view.seen.get(usize::from(owner)).filter(|_| owner != NOBODY);
        let member = owner.and_then(|owner| exam.members.iter().find(|member| member.seen.id == owner.id));
        let Some(member) = member else { continue };
        let node = member.found.announced.to_string();
        at.entry(node.clone()).or_default().push(database.name().to_owned());
        match sample(exam, &member.found.reach, database).await {
            Ok((0, others)) => {
                let others =
                    if others > 0 { format!("; {others} keys of others are in it, too") } else { String::new() };
                let (name, slot) = (database.name(), database.slot());
                report.ok(DATABASES, format!("{name} is in slot {slot}, at {node}, and has no keys yet{others}"));
            }
            Ok((own, _)) => {
                let (name, prefix) = (database.name(), String::from_utf8_lossy(database.prefix()));
                report.warning(
                    DATABASES,
                    Name::Databases,
                    format!("keys begin with {prefix} already ({own} that were found at {node}): they are those of the database {name}"),
                    "nothing, where its clients wrote them; else another name, or another `database_prefix`",
                );
            }
            Err(why) => report.warning(
                DATABASES,
                Name::Databases,
                format!(
                    "what keys {} has cannot be seen: {node} did not tell within {PATIENCE:?} ({why})",
                    database.name()
                ),
                "ask again once that node is less busy",
            ),
        }
    }
    crowded(exam, &at, report);
}

/// How many keys of its slot are its own, and others', of some that are looked at; why nobody knows.
async fn sample(exam: &Exam<'_>, node: &Address, database: &Database) -> Result<(usize, usize), String> {
    let login = Login { credentials: Credentials::of(exam.config), ..Login::default() };
    let dialer = exam.dialer.within(PATIENCE);
    let mut node = Control::open(node, &login, &dialer).await.map_err(|why| why.to_string())?;
    let said = node.ask_all(&[&getkeys(&database.slot().to_string())]).await.map_err(|why| why.to_string())?;
    Ok(said.first().map_or((0, 0), |said| told_apart(database, said)))
}

/// Several at one node, while others have none.
fn crowded(exam: &Exam, at: &BTreeMap<String, Vec<String>>, report: &mut Report) {
    let Some(view) = &exam.view else { return };
    let owns =
        |id: &str| view.slots.iter().any(|&slot| view.seen.get(usize::from(slot)).is_some_and(|seen| seen.id == id));
    let all = exam.members.iter().filter(|member| owns(&member.seen.id));
    let free: Vec<String> =
        all.map(|member| member.found.announced.to_string()).filter(|node| !at.contains_key(node)).collect();
    for (node, databases) in at.iter().filter(|(_, databases)| databases.len() > 1 && !free.is_empty()) {
        report.warning(
            DATABASES,
            Name::Databases,
            format!("{} are all at {node}, and none is at {}", some_of(databases), some_of(&free)),
            "where several of them are busy, give the slot of one to another node (redis-cli --cluster reshard), or choose another name",
        );
    }
}
