//! Users that change or go: what is known of them is forgotten, and the clients of those that are gone end.

use std::{rc::Rc, time::Duration};

use tokio::time::timeout;

use super::{PATIENCE, is_closed_to_us, value};
use crate::{
    clients::ChangeOfUsers,
    commands::table::Spec,
    protocol::resp::Value,
    session::{ask::ask, caller::Caller},
    upstream::{router::Router, ticket::OnSuccess},
};

/// How often, and how many times, it is looked whether users that were deleted have gone from all nodes.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: usize = 20;

/// Has all that is known of users forgotten once a node has done `spec`, which changes them, and ends the clients of
/// those that are gone.
pub(in crate::session) fn users_change(caller: &Caller, spec: Option<&Spec>) -> Option<OnSuccess> {
    spec.filter(|spec| spec.traits.changes_users)?;
    let (router, change) = (caller.router.clone(), caller.client.changes_users());
    Some(OnSuccess::new(move || look_after_change(&router, change)))
}

/// Users have changed: what is known is forgotten, again once all nodes have heard; clients of deleted users end.
pub(in crate::session) fn look_after_change(router: &Rc<Router>, change: ChangeOfUsers) {
    router.rights().forget();
    let router = router.clone();
    tokio::task::spawn_local(async move {
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK).await;
            router.rights().forget();
            sweep(&router).await;
        }
        drop(change);
    });
}

/// From time to time: ends the clients of users that nodes have no more.
pub fn look_after_users(router: &Rc<Router>) {
    let now = router.clock().tick();
    if !has_foreign_users(router) || !router.rights().is_time_to_sweep(now) {
        return;
    }
    let router = router.clone();
    tokio::task::spawn_local(async move { sweep(&router).await });
}

fn has_foreign_users(router: &Router) -> bool {
    router.rights().in_use().iter().any(|name| *name != router.own_user().name)
}

/// Ends the clients of users that no primary has any more.
async fn sweep(router: &Rc<Router>) {
    let mut missing = router.rights().in_use();
    missing.retain(|name| *name != router.own_user().name);
    let (mut asked, mut silent) = (0, 0);
    let nodes: Vec<_> = router.topology().owners().cloned().collect();
    for node in nodes {
        if missing.is_empty() {
            return;
        }
        let link = router.first_lane().link_to(router, &node);
        asked += 1;
        match timeout(PATIENCE, ask(router, &link, b"*2\r\n$3\r\nACL\r\n$5\r\nUSERS\r\n")).await {
            Ok(Ok(reply)) => match value(&reply) {
                Value::Array(users) => {
                    missing.retain(|name| !users.iter().any(|user| user.text() == Some(&name[..])));
                }
                Value::Error(text) if is_closed_to_us(&text) => return router.rights().may_not_sweep(),
                _ => silent += 1,
            },
            _ => silent += 1,
        }
    }
    // A node that does not answer may have them. Where most do not answer, nothing is known.
    if silent * 2 < asked {
        missing.iter().for_each(|name| end_clients(router, name));
    }
}

/// Ends all clients that work as a user that is gone, as Redis does.
pub(super) fn end_clients(router: &Router, user: &[u8]) {
    router.clients().all().iter().filter(|client| client.works_as(user)).for_each(|client| client.loses_its_user());
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        clients::{Client, Order},
        upstream::router::scripted::{Scripted, within_a_minute},
    };

    fn client_of(nodes: &Scripted, user: &'static str) -> std::sync::Arc<Client> {
        let client = Caller::of(nodes).client.clone();
        client.about().login = Some(Bytes::from(user));
        client
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_of_a_user_that_is_gone_end() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (issuer, gone, other) = (client_of(&nodes, "eve"), client_of(&nodes, "eve"), client_of(&nodes, "bob"));
            let _change = issuer.changes_users();
            end_clients(&nodes.router, b"eve");
            assert_eq!([issuer, gone, other].map(|client| client.order()), [Order::Drain, Order::Leave, Order::Serve]);
        })
        .await;
    }
}
