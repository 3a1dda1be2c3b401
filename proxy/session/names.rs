//! Commands that an operator renamed: what a node calls so ([`crate::commands::table`]). Such a request stays at the front
//! of the input until a node has told, and then is what the command is.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{ask::ask, caller::Caller};
use crate::{
    protocol::{
        resp::{Value, write},
        says,
    },
    upstream::router::Router,
};

/// How long one node may take to tell; then the next is asked.
const PATIENCE: Duration = Duration::from_millis(500);

/// Makes the table know whose name this is, where it can be a command's; an error where no node has told.
pub(super) async fn learn(caller: &Caller, name: &[u8]) -> Result<(), String> {
    let commands = caller.router.topology().commands.clone();
    if commands.named(name, b"").is_none() && commands.is_open(name) {
        let told = ask_nodes(&caller.router, caller.affinity, name).await.map_err(|why| says::no_name(&why))?;
        commands.learn_name(name, &told);
    }
    Ok(())
}

/// What the primaries say of a name, asked in turn by the proxy's own login until one answers.
async fn ask_nodes(router: &Router, affinity: usize, name: &[u8]) -> Result<Value, String> {
    router.refresh();
    let mut nodes: Vec<_> = router.topology().owners().cloned().collect();
    let mut why = router.topology().down();
    let first = affinity % nodes.len().max(1);
    nodes.rotate_left(first);
    let mut frame = Vec::new();
    write::request(&mut frame, &[&b"COMMAND"[..], b"INFO", name]);
    for node in nodes {
        let link = router.first_lane().link_to(router, &node);
        why = match timeout(PATIENCE, ask(router, &link, &frame)).await {
            Ok(Ok(reply)) => match parsed(&reply) {
                Value::Array(rows) => return Ok(Value::Array(rows)),
                Value::Error(text) => String::from_utf8_lossy(&text).into_owned(),
                _ => says::no_answer(&node.label, PATIENCE),
            },
            Ok(Err(error)) => error,
            Err(_) => says::no_answer(&node.label, PATIENCE),
        };
    }
    Err(why)
}

fn parsed(reply: &Bytes) -> Value {
    Value::parse(reply).ok().flatten().map_or(Value::Null, |(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn what_the_table_has_nobody_is_asked() {
        within_a_minute(async {
            let caller = Caller::of(&Scripted::new(1));
            assert_eq!(learn(&caller, b"get").await, Ok(()));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_asked_where_one_does_not_tell() {
        within_a_minute(async {
            let mut nodes = Scripted::new(2);
            let router = nodes.router.clone();
            let script = async {
                let mut first = nodes.node(0).await;
                first.hears(&frame("COMMAND INFO mine")).await;
                first.says(b"-LOADING Redis is loading the dataset in memory\r\n").await;
                let mut second = nodes.node(1).await;
                second.hears(&frame("COMMAND INFO mine")).await;
                second.says(b"*1\r\n*-1\r\n").await;
            };
            let (told, ()) = tokio::join!(ask_nodes(&router, 0, b"mine"), script);
            assert_eq!(told.map(|rows| rows.items().len()), Ok(1));
        })
        .await;
    }
}
