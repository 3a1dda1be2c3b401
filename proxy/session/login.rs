//! HELLO, AUTH, SELECT and RESET: what changes the lane. They run alone, when nothing is in flight on the old lane.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::{caller::Caller, gate::Gate, listening::Listening};
use crate::{
    clients::users::{LoggedIn, OwnUser},
    cluster::topology::{Route, ServerKind},
    protocol::{
        resp::{Request, Value, request::decimal, write},
        says,
    },
    upstream::dial::{Credentials, DialStep, Login, Version},
};

const OK: Bytes = Bytes::from_static(b"+OK\r\n");

/// What a HELLO asks for.
pub(super) struct Hello<'a> {
    pub(super) version: Option<Version>,
    pub(super) credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

/// HELLO.
pub(super) async fn hello(caller: &mut Caller, listening: &mut Listening, request: &Request<'_>) -> Bytes {
    let hello = match Hello::parse(request) {
        Ok(hello) => hello,
        Err(error) => return write::error_frame(&error),
    };
    if let Some((user, password)) = hello.credentials
        && let Err(error) = log_in(caller, listening, Some(user), password).await
    {
        return write::error_frame(&error);
    }
    if !caller.gate.is_passed() {
        return write::error_frame(says::HELLO_NOAUTH);
    }
    if let Some(name) = hello.name {
        caller.client.about().name = name.to_vec();
    }
    if let Some(version) = hello.version {
        caller.client.resp.store(if version == Version::Resp3 { 3 } else { 2 }, Relaxed);
        change_version(caller, listening, version).await;
    }
    greeting(caller)
}

/// AUTH.
pub(super) async fn auth(caller: &mut Caller, listening: &mut Listening, request: &Request<'_>) -> Bytes {
    let (user, password) = match request.len() {
        2 => (None, request.arg(1)),
        3 => (Some(request.arg(1)), request.arg(2)),
        _ => return write::error_frame(says::SYNTAX),
    };
    match log_in(caller, listening, user, password).await {
        Ok(()) => OK,
        Err(error) => write::error_frame(&error),
    }
}

/// SELECT.
pub(super) fn select(caller: &mut Caller, listening: &mut Listening, request: &Request<'_>) -> Bytes {
    let Some(number) = decimal(request.arg(1)).and_then(|number| i32::try_from(number).ok()) else {
        return write::error_frame(says::NOT_INTEGER);
    };
    match u32::try_from(number) {
        Ok(database) if database < caller.count_databases() => {
            if caller.client.database.swap(database, Relaxed) == database {
                return OK;
            }
            if caller.databases.are_selected() {
                caller.enter_database(database);
                listening.lay_lane(caller, Some("it has changed its database"));
                return OK;
            }
            change_lane(caller, listening, Login { database, ..caller.lane.login().clone() });
            OK
        }
        _ => write::error_frame(says::DB_OUT_OF_RANGE),
    }
}

/// Checks the credentials: against those of the proxy's own users, and of its clients where it has some, else by logging in
/// to a node with them, whose user the client is from then on.
async fn log_in(
    caller: &mut Caller,
    listening: &mut Listening,
    user: Option<&[u8]>,
    password: &[u8],
) -> Result<(), String> {
    let name = user.unwrap_or(b"default");
    if !caller.listener().takes(name) {
        return Err(says::WRONGPASS.to_owned());
    }
    let router = caller.router.clone();
    let of_clients = router.settings().client_credentials.borrow().clone();
    let (gate, databases, credentials, is_said) = if let Some(own) = router.users().find(name) {
        let logged_in = log_in_as(caller, &own, password)?;
        let databases = own.databases().unwrap_or_else(|| caller.listeners_databases());
        (Gate::Guarded(logged_in), databases, router.settings().login.credentials.clone(), false)
    } else if let Some(own) = of_clients {
        let right_name = own.username.as_deref().unwrap_or(b"default") == name;
        if !(bool::from(own.secret.ct_eq(password)) & right_name) {
            return Err(says::WRONGPASS.to_owned());
        }
        (Gate::Open, caller.listeners_databases(), router.settings().login.credentials.clone(), false)
    } else if !router.passes_on(name, caller.listener()) {
        return Err(says::WRONGPASS.to_owned());
    } else {
        let credentials =
            Credentials { username: user.map(Bytes::copy_from_slice), secret: Bytes::copy_from_slice(password) };
        let is_said = router.connector().dialer.were_own(&credentials);
        let login = Login { credentials: Some(credentials.clone()), is_said, ..caller.lane.login().clone() };
        try_login(caller, &login).await?;
        (Gate::Open, caller.listeners_databases(), Some(credentials), is_said)
    };
    let moves = caller.databases != databases;
    let login = caller.work_in(databases, Login { credentials, is_said, ..caller.lane.login().clone() });
    change_lane(caller, listening, login);
    if moves {
        // What it was told of is not what it works in any more.
        listening.lay_lane(caller, Some("it has changed its databases"));
        listening.drop_subscriptions(caller);
    }
    caller.gate = gate;
    let is_own = caller.is_proxys_user();
    let mut about = caller.client.about();
    about.user = String::from_utf8_lossy(name).into_owned();
    about.login = (!is_own).then(|| caller.user.name.clone());
    Ok(())
}

/// Logs the caller in as a user of the proxy's own, where it is not already.
fn log_in_as(caller: &Caller, own: &Arc<OwnUser>, password: &[u8]) -> Result<Rc<LoggedIn>, String> {
    if !own.has(password) {
        return Err(says::WRONGPASS.to_owned());
    }
    match &caller.gate {
        Gate::Guarded(logged_in) if Arc::ptr_eq(&logged_in.user, own) => Ok(logged_in.clone()),
        Gate::Guarded(_) | Gate::Open | Gate::Closed => {
            own.log_in().map(Rc::new).ok_or_else(|| says::too_many_clients_of(&own.name))
        }
    }
}

/// The caller speaks this version of RESP from now on.
async fn change_version(caller: &mut Caller, listening: &mut Listening, version: Version) {
    let login = Login { version, ..caller.lane.login().clone() };
    if *caller.lane.login() != login && !listening.goes_on_in(caller, version).await {
        change_lane(caller, listening, login);
    }
}

/// Nodes know the caller by another login from now on.
fn change_lane(caller: &mut Caller, listening: &mut Listening, login: Login) {
    if *caller.lane.login() != login {
        caller.user = caller.router.user_of(&login);
        caller.lane = caller.router.lane(&login);
        listening.lay_lane(caller, Some("it has changed its connection"));
    }
}

/// What a server says of itself in HELLO: one standalone server, whatever is behind.
fn greeting(caller: &Caller) -> Bytes {
    let topology = caller.router.topology();
    let server = match topology.server.kind {
        ServerKind::Valkey => "valkey",
        _ => "redis",
    };
    let resp3 = caller.speaks_resp3();
    let mut out = Vec::new();
    let map = |out: &mut Vec<u8>, pairs: i64| match resp3 {
        true => write::head(out, b'%', pairs),
        false => write::head(out, b'*', 2 * pairs),
    };
    map(&mut out, 7);
    for (key, value) in [("server", server), ("version", &*topology.server.version)] {
        write::bulk(&mut out, key.as_bytes());
        write::bulk(&mut out, value.as_bytes());
    }
    write::bulk(&mut out, b"proto");
    write::integer(&mut out, if resp3 { 3 } else { 2 });
    write::bulk(&mut out, b"id");
    write::integer(&mut out, caller.client.id as i64);
    let mode = if caller.presents_cluster() { "cluster" } else { "standalone" };
    for (key, value) in [("mode", mode), ("role", "master")] {
        write::bulk(&mut out, key.as_bytes());
        write::bulk(&mut out, value.as_bytes());
    }
    write::bulk(&mut out, b"modules");
    write::array(&mut out, topology.server.modules.len());
    for module in &topology.server.modules {
        let fields = module.items().chunks_exact(2);
        map(&mut out, fields.len() as i64);
        fields.flatten().for_each(|field| write_value(&mut out, field));
    }
    out.into()
}

async fn try_login(caller: &Caller, login: &Login) -> Result<(), String> {
    let node = caller.router.node_for(Route::Any, caller.affinity).ok_or_else(|| caller.router.topology().down())?;
    // RESP2 says AUTH, whose errors are the ones that a client expects.
    let login = Login { version: Version::Resp2, ..login.clone() };
    let descriptor = caller.router.connector().descriptors.take(&node.reach).await;
    let _descriptor = descriptor.map_err(|error| error.reply())?;
    match caller.router.connector().dialer.dial(&node.reach, &login.at(&node)).await {
        Ok(_) => Ok(()),
        Err(error) if error.step == DialStep::Login && error.permanent => Err(error.why),
        Err(error) => Err(error.reply()),
    }
}

impl<'a> Hello<'a> {
    pub(super) fn parse(request: &Request<'a>) -> Result<Hello<'a>, String> {
        let mut hello = Hello { version: None, credentials: None, name: None };
        let Some(version) = request.get(1) else { return Ok(hello) };
        hello.version = match decimal(version) {
            Some(2) => Some(Version::Resp2),
            Some(3) => Some(Version::Resp3),
            Some(_) => return Err(says::NOPROTO.to_owned()),
            None => return Err(says::PROTO_NOT_INTEGER.to_owned()),
        };
        let mut at = 2;
        while at < request.len() {
            let left = request.len() - at - 1;
            if request.is(at, "AUTH") && left >= 2 {
                hello.credentials = Some((request.arg(at + 1), request.arg(at + 2)));
                at += 3;
            } else if request.is(at, "SETNAME") && left >= 1 {
                let name = request.arg(at + 1);
                if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
                    return Err(says::CLIENT_NAME.to_owned());
                }
                hello.name = Some(name);
                at += 2;
            } else {
                return Err(format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(request.arg(at))));
            }
        }
        Ok(hello)
    }
}

/// Appends a module's field: a text, a number or a list of such.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Integer(number) => write::integer(out, *number),
        Value::Array(items) => {
            write::array(out, items.len());
            items.iter().for_each(|item| write_value(out, item));
        }
        other => write::bulk(out, other.text().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn hello_and_select_change_the_lane() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (mut caller, mut listening) = (Caller::of(&nodes), Listening::default());
            let hello3 = request("HELLO 3 SETNAME me");
            let greeting = hello(&mut caller, &mut listening, &hello3.as_request()).await;
            assert!(greeting.starts_with(b"%7\r\n") && caller.speaks_resp3());
            assert_eq!(caller.client.about().name, b"me");
            let before = caller.lane.clone();
            let said = hello(&mut caller, &mut listening, &request("HELLO 4").as_request()).await;
            assert_eq!(said, *write::error_frame(says::NOPROTO));
            assert!(Rc::ptr_eq(&before, &caller.lane), "what is refused changes nothing");
            let said = select(&mut caller, &mut listening, &request("SELECT 99").as_request());
            assert_eq!(said, *write::error_frame(says::DB_OUT_OF_RANGE));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_says_whether_a_password_is_right() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (mut caller, mut listening) = (Caller::of(&nodes), Listening::default());
            let words = request("AUTH bob wrong");
            let words = words.as_request();
            let refused = async {
                let mut node = nodes.dialled(0).await;
                node.hears(&frame("AUTH bob wrong")).await;
                node.says(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
            };
            let (said, ()) = tokio::join!(auth(&mut caller, &mut listening, &words), refused);
            assert!(said.starts_with(b"-WRONGPASS"), "{}", said.escape_ascii());
            assert!(caller.is_proxys_user());
            let words = request("AUTH bob right");
            let words = words.as_request();
            let allowed = async {
                let mut node = nodes.dialled(0).await;
                node.hears(&frame("AUTH bob right")).await;
                node.says(b"+OK\r\n").await;
            };
            let (said, ()) = tokio::join!(auth(&mut caller, &mut listening, &words), allowed);
            assert_eq!(said, "+OK\r\n");
            assert_eq!((&*caller.client.about().user, &caller.user.name[..]), ("bob", &b"bob"[..]));
            assert!(!caller.is_proxys_user());
        })
        .await;
    }
}
