//! compose.sidecar.yaml: an application with a plain client, beside its own proxy, in front of a cluster that is there.

use std::{process::Command, time::Duration};

use super::{
    engine::{docker, said, turn, until},
    readme::block_after,
    stack::Stack,
};

fn curl(method: &str, address: &str, path: &str) -> Result<String, String> {
    said(Command::new("curl").args(["-sSf", "--max-time", "5", "-X", method, &format!("http://{address}{path}")]))
}

#[test]
fn an_application_with_its_sidecar() {
    let Some(_turn) = turn() else { return };
    let cluster = Stack::new("sidecar-cluster", &["compose.yaml"]);
    cluster.form();
    let mut shop = Stack::new("sidecar", &["compose.sidecar.yaml"]);
    shop.set("REDIS_NETWORK", &cluster.network());
    // `up` starts an application only once its proxy is healthy.
    let said = shop.run(
        block_after("## Beside an application")
            .with("docker compose -p shop", "docker compose")
            .with("--build", "--no-build")
            .with("localhost:8000", shop.setting("SHOP_PORT")),
    );
    assert!(said.contains(r#""stock": 10"#) && said.contains(r#""stock": 9, "sold": 1"#), "{said}");
    for (application, proxy) in [("shop", "shop-proxy"), ("kiosk", "kiosk-proxy"), ("stall", "stall-proxy")] {
        let at = |format: &str, service: &str| docker(&["inspect", "--format", format, &shop.container(service)]);
        assert_eq!(at("{{.State.Health.Status}}", proxy), "healthy");
        assert!(at("{{.State.StartedAt}}", application) > at("{{.State.StartedAt}}", proxy), "{application} waits");
        shop.healthy(application);
    }

    let by_name = shop.setting("SHOP_PORT");
    trade(by_name, "cocoa");
    // In one namespace: the same shop, on 127.0.0.1, published by the proxy's container.
    let shared = shop.setting("KIOSK_PORT");
    trade(shared, "coffee");
    let mode = docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &shop.container("kiosk")]);
    assert_eq!(mode, format!("container:{}", shop.container("kiosk-proxy")));
    // By a unix socket in a volume of the two.
    trade(shop.setting("STALL_PORT"), "cake");
    // All see one store.
    let stock = curl("GET", by_name, "/products").expect("the stock");
    assert_eq!(stock.trim(), r#"{"cake": 1, "cocoa": 1, "coffee": 1, "tea": 9}"#);
    // A sidecar listens for its own application alone.
    let address = shop.address("kiosk-proxy");
    let refused = cluster.ask_node("redis-7000", &["-h", &address, "-p", "6380", "ping"]);
    assert!(!refused.clone().unwrap_or_default().contains("PONG"), "{refused:?}");

    // The sidecar is replaced under the running application.
    docker(&["restart", "-t", "10", &shop.container("shop-proxy")]);
    until("the shop to sell again", Duration::from_secs(10), || curl("GET", by_name, "/products").ok());
}

fn trade(address: &str, product: &str) {
    let ask = |method, path: &str| curl(method, address, path).unwrap_or_else(|error| panic!("{error}"));
    assert!(ask("PUT", &format!("/products/{product}?3")).contains(r#""stock": 3"#));
    assert!(ask("POST", &format!("/products/{product}/buy")).contains(r#""stock": 2, "sold": 1"#));
    assert!(ask("POST", &format!("/products/{product}/buy")).contains(r#""stock": 1, "sold": 2"#));
    assert!(ask("GET", "/").contains(r#""visits": "#));
}
