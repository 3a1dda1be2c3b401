//! compose.databases.yaml: three applications on one cluster, each with a database of its own.

use super::{
    engine::{said, turn},
    readme::block_after,
    stack::Stack,
};

#[test]
fn three_applications_share_a_cluster() {
    let Some(_turn) = turn() else { return };
    let cluster = Stack::new("databases-cluster", &["compose.yaml"]);
    cluster.form();
    let mut town = Stack::new("databases", &["compose.databases.yaml"]);
    town.set("REDIS_NETWORK", &cluster.network());
    let told = town.run(
        block_after("## Several applications")
            .with("docker compose -p town", "docker compose")
            .with("--build", "--no-build")
            .with("localhost:8000", town.setting("SHOP_PORT"))
            .with("localhost:8001", town.setting("KIOSK_PORT")),
    );
    // What one has in stock the other has not.
    assert!(told.contains(r#"{"tea": 10}"#) && told.trim_end().ends_with("{}"), "{told}");
    // The shop's products, stock and counters lie in one slot, which is the database's.
    let proxy = town.address("shop-redis");
    let ask = |line: &str| {
        let words: Vec<&str> = ["-h", &proxy, "-p", "6380"].into_iter().chain(line.split(' ')).collect();
        cluster.ask_node("redis-7000", &words).unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    assert_eq!(ask("MGET product:tea stock:{tea}"), "tea\n10");
    assert_eq!(ask("RENAMENX stock:{tea} another"), "1", "keys of other tags");
    let market = curl(town.setting("MARKET_PORT"));
    assert_eq!(market, "{}");
}

fn curl(address: &str) -> String {
    let mut command = std::process::Command::new("curl");
    let products = format!("http://{address}/products");
    let text = said(command.args(["-sSf", "--max-time", "5", "--retry", "9", "--retry-all-errors", &products]));
    text.unwrap_or_else(|error| panic!("{error}")).trim().to_owned()
}
