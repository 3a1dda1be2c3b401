//! What operators see of databases of their own: PROXY DATABASES, the status page, metrics, the log and the doctor.

use std::process::Command;

use crate::{
    one_redis::listeners::{at, with_file},
    support::{Cluster, Proxy, eventually, proxy::only_set_here},
};

const TWO: &str = "databases = 2\n\
    [[listeners]]\naddress = \"127.0.0.1:{a}\"\ndatabase = \"shop\"\n\
    [[listeners]]\naddress = \"127.0.0.1:{b}\"\ndatabase = \"jobs\"\n";

#[test]
fn each_database_is_counted_and_shown() {
    let cluster = Cluster::three();
    let (settings, ports) = with_file(&cluster, TWO);
    let proxy = Proxy::start(settings);
    assert_eq!(proxy.metric("slotway_database_requests_total", &["database=\"jobs\""]), 0.0, "there from the start");
    let (mut shop, mut numbered, mut whole) = (at(ports[0]), at(ports[0]), proxy.client());
    shop.pipeline(
        &(0..50).map(|number| vec!["SET".to_owned(), format!("key:{number}"), "v".into()]).collect::<Vec<_>>(),
    );
    // What has to wait, has a connection of its own, or is refused counts once, too.
    for line in ["MULTI", "GET a", "EXEC", "BLPOP none 0.01", "WATCH a", "MONITOR", "SUBSCRIBE x", "UNSUBSCRIBE x"] {
        shop.line(line);
    }
    numbered.line("SELECT 1");
    numbered.line("SET foo bar");
    let requests = |name: &str| proxy.metric("slotway_database_requests_total", &[&format!("database=\"{name}\"")]);
    eventually("all requests are counted", || requests("shop") == 60.0);
    assert_eq!(requests("jobs"), 0.0);
    assert_eq!(proxy.metric("slotway_database_clients", &["database=\"shop\""]), 2.0);
    eventually("keys are counted", || proxy.metric("slotway_database_keys", &["database=\"shop\""]) == 51.0);
    assert!(!proxy.page("/metrics").1.contains("shop/1"), "series are those of the configuration's names");

    let node = |tag: &str| cluster.node(cluster.home_of(tag)).address();
    let slot = |tag: &str| cluster.node(0).client().call(&["CLUSTER", "KEYSLOT", tag]).integer();
    let line = |tag: &str, keys: usize| format!("{tag} slot {} at {} keys {keys} clients 1", slot(tag), node(tag));
    let told = whole.line("PROXY DATABASES").texts();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with(&line("shop", 50)), "{told:?}");
    assert!(told[1].starts_with(&line("shop/1", 1)), "{told:?}");
    let mut jobs = at(ports[1]);
    eventually("its own are told, as far as they are in use", || {
        let told = jobs.line("PROXY DATABASES").texts();
        told.len() == 1 && told[0].starts_with("jobs slot ")
    });
    let status = proxy.page("/api/status").1;
    assert!(
        status.contains(&format!(
            "\"database\":\"shop\",\"slot\":{},\"node\":\"{}\",\"keys\":50",
            slot("shop"),
            node("shop")
        )),
        "{status}"
    );
    drop(numbered);
    eventually("who leaves is counted", || proxy.metric("slotway_database_clients", &["database=\"shop\""]) == 1.0);
}

#[test]
fn keys_that_bear_the_prefix_are_told_of() {
    let cluster = Cluster::three();
    for key in ["{shop}left", "x{shop}other"] {
        cluster.node(cluster.home_of(key)).client().call(&["SET", key, "v"]);
    }
    let (settings, _) = with_file(&cluster, TWO);
    let flags = settings.flags.clone();
    let proxy = Proxy::start(settings);
    eventually("the log tells", || {
        let log = proxy.log();
        log.contains("1 keys begin with {shop} already: they are those of the database shop")
            && log.contains("1 keys are in the slot of the database shop and do not begin with {shop}")
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    let done = only_set_here(&mut command).arg("doctor").args(&flags).args(["--seeds", &cluster.seeds()]).output();
    let said = String::from_utf8_lossy(&done.expect("slotway doctor").stdout).into_owned();
    assert!(said.contains("keys begin with {shop} already (1 that were found at "), "{said}");
    assert!(said.contains("jobs is in slot ") && said.contains(", and has no keys yet"), "{said}");
    assert_eq!(said.contains("are all at "), cluster.home_of("shop") == cluster.home_of("jobs"), "{said}");
}
