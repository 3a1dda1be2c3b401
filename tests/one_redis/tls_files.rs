//! TLS files that change while clients are served.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::support::{Authority, Client, Cluster, NodeTls, Proxy, Settings, Shape, TlsProxy, eventually};

/// A proxy whose files are changed; its certificate ends with that year.
fn start(name: &str, year: i32, expected: &[&str]) -> TlsProxy {
    let authority = Authority::new(name);
    let own = authority.issue_until("proxy", &["localhost"], year);
    TlsProxy::start(authority, own, &[], expected)
}

/// A client that trusts `authority`, and is served.
fn client_of(tls: &TlsProxy, authority: &Authority) -> std::io::Result<Client> {
    let mut client = tls.client_by(authority.trusting(None))?;
    client.try_call(&["PING"]).map(|_| client)
}

/// When the certificate in force ends.
fn until(tls: &TlsProxy) -> f64 {
    tls.proxy.metric("slotway_tls_certificate_expiry_timestamp_seconds", &["side=\"clients\""])
}

fn is_refused(tls: &TlsProxy) -> bool {
    tls.proxy.metric("slotway_tls_certificate_refused", &["side=\"clients\""]) == 1.0
}

fn hang_up(proxy: &Proxy) {
    let done = std::process::Command::new("kill").args(["-HUP", &proxy.pid().to_string()]).status().expect("kill");
    assert!(done.success());
}

/// The end of that year, in seconds since 1970, give or take some days.
fn is_end_of(year: i32, seconds: f64) -> bool {
    (seconds / 86400.0 / 365.2425 - f64::from(year + 1 - 1970)).abs() < 0.02
}

#[test]
fn a_new_certificate_is_taken_when_its_files_change_and_no_connection_is_lost() {
    let expected =
        ["do not come to speak TLS", "does not accept our certificate", "are not taken, the old ones serve on"];
    let tls = start("rotated", 2801, &expected);
    assert!(is_end_of(2801, until(&tls)), "{}", until(&tls));
    let mut old = client_of(&tls, &tls.authority).expect("a client");
    let mut waits = client_of(&tls, &tls.authority).expect("a client");
    waits.send(&["BLPOP", "files:queue", "0"]);
    // Another CA even.
    let next = Authority::new("next");
    let issued = next.issue_until("proxy", &["localhost"], 2802);
    fs::copy(&issued.certificate, &tls.own.certificate).expect("copied");
    fs::copy(&issued.key, &tls.own.key).expect("copied");
    eventually("the new certificate to be in force", || is_end_of(2802, until(&tls)));
    assert!(client_of(&tls, &next).is_ok());
    assert!(client_of(&tls, &tls.authority).is_err(), "the old one is shown no more");
    assert!(tls.proxy.log().contains("the TLS files for clients have been read again, valid until 2802-12-31"));
    // Who was there before goes on.
    assert_eq!(old.line("RPUSH files:queue x"), ":1\r\n");
    assert_eq!(waits.reply(), "*2\r\n$11\r\nfiles:queue\r\n$1\r\nx\r\n");
}

#[test]
fn a_bad_file_is_refused_with_the_reason_and_the_old_one_serves_on() {
    let tls = start("refused", 2803, &["are not taken, the old ones serve on"]);
    let is_logged = |why: &str| tls.proxy.log().lines().any(|line| line.contains("serve on: ") && line.contains(why));
    let (certificate, key) = (fs::read(&tls.own.certificate).expect("read"), fs::read(&tls.own.key).expect("read"));
    let expired = tls.authority.issue_until("expired", &["localhost"], 2001);
    for (pair, why) in [
        ((b"nothing".to_vec(), key.clone()), "there is no certificate in it"),
        ((certificate.clone(), fs::read(&expired.key).expect("read")), "it is not the key of the certificate in"),
        (
            (fs::read(&expired.certificate).expect("read"), fs::read(&expired.key).expect("read")),
            "the certificate ended on 2001-12-31",
        ),
    ] {
        fs::write(&tls.own.certificate, &pair.0).expect("written");
        fs::write(&tls.own.key, &pair.1).expect("written");
        hang_up(&tls.proxy);
        eventually(why, || is_logged(why));
        assert!(is_refused(&tls) && is_end_of(2803, until(&tls)));
        assert!(client_of(&tls, &tls.authority).is_ok());
    }
    fs::write(&tls.own.certificate, &certificate).expect("written");
    fs::write(&tls.own.key, &key).expect("written");
    hang_up(&tls.proxy);
    eventually("the good one to be in force", || !is_refused(&tls));
    assert!(client_of(&tls, &tls.authority).is_ok());
    // A file that is away is refused, too, and said once.
    fs::remove_file(&tls.own.key).expect("removed");
    eventually("it to be missed", || is_logged("cannot read it: No such file"));
    assert!(client_of(&tls, &tls.authority).is_ok());
}

#[test]
fn an_expired_certificate_is_an_error_in_the_log_from_the_start() {
    let tls = start(
        "expired",
        2002,
        &[
            "the certificate for clients is valid no more: it ended on 2002-12-31",
            "our certificate (CertificateExpired)",
        ],
    );
    assert!(client_of(&tls, &tls.authority).is_err());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
    assert!(until(&tls) > 0.0 && until(&tls) < now);
}

#[test]
fn what_nodes_are_shown_and_trusted_by_changes_without_losing_them() {
    let authority = Authority::new("node-files");
    let (own, proxy_own) = (authority.issue("node", &["127.0.0.1"]), authority.issue_until("proxy", &["x"], 2804));
    let tls = NodeTls { own, ca: authority.certificate.clone(), auth_clients: "yes" };
    let cluster = Cluster::start(Shape { tls: Some(tls), ..Shape::default() });
    let ca = authority.folder.join("trusted.pem");
    fs::copy(&authority.certificate, &ca).expect("copied");
    let settings = Settings::new(cluster.tls_seeds("rediss://127.0.0.1"))
        .with("NODE_TLS_CA_CERT_FILE", ca.display())
        .with("NODE_TLS_CERT_FILE", proxy_own.certificate.display())
        .with("NODE_TLS_KEY_FILE", proxy_own.key.display())
        .expecting("files for nodes are not taken, the old ones serve on: `node_tls_ca_cert_file`");
    let proxy = Proxy::start(settings);
    let until = || proxy.metric("slotway_tls_certificate_expiry_timestamp_seconds", &["side=\"nodes\""]);
    assert!(is_end_of(2804, until()));
    let mut client = proxy.client();
    assert_eq!(client.line("SET files:n 1"), "+OK\r\n");
    authority.issue_until("proxy", &["x"], 2805);
    hang_up(&proxy);
    eventually("the new one to be in force", || is_end_of(2805, until()));
    fs::write(&ca, "nothing").expect("written");
    hang_up(&proxy);
    eventually("it to be refused", || proxy.metric("slotway_tls_certificate_refused", &["side=\"nodes\""]) == 1.0);
    // By a connection that is there, and by a new one.
    assert_eq!(client.line("INCR files:n"), ":2\r\n");
    assert_eq!(client.line("BLPOP files:none 0.01"), "*-1\r\n");
}
