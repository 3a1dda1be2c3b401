//! What can be said of the files without an engine.

use std::{collections::BTreeSet, fs, process::Command};

use super::{
    engine::{PUBLIC_IMAGES, repository},
    support::{Cluster, Shape, proxy::only_set_here, reaper},
};

fn read(path: &str) -> String {
    fs::read_to_string(repository().join("deploy").join(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

fn dashboard() -> serde_json::Value {
    serde_json::from_str(&read("grafana/dashboards/slotway.json")).expect("the dashboard is JSON")
}

/// The metrics of ours that the dashboard and the alerts use; a histogram's by its own name.
pub fn metrics_asked_for() -> BTreeSet<String> {
    let texts = format!("{}{}", dashboard(), read("prometheus/alerts.yml"));
    let words = texts.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("slotway_") || word.starts_with("process_"));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn the_images_are_those_the_tests_provide() {
    let all: String = [
        "compose.yaml",
        "compose.replicas.yaml",
        "compose.sidecar.yaml",
        "compose.databases.yaml",
        "Dockerfile",
        "sidecar/Dockerfile",
    ]
    .map(read)
    .concat();
    for image in PUBLIC_IMAGES {
        assert!(all.contains(image), "no file names {image}");
    }
}

/// A second file that is laid on top later must not change what the first one says of its services: docker-compose 1.29 writes
/// networks and volumes anew when it merges, and recreates containers whose hash has changed.
#[test]
fn laying_the_replicas_on_top_changes_no_container() {
    let hashes = |files: &[&str]| -> Option<BTreeSet<String>> {
        let mut command = Command::new("docker-compose");
        for file in files {
            command.args(["-f", file]);
        }
        let output = command.args(["config", "--hash=*"]).current_dir(repository().join("deploy")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    };
    let Some(alone) = hashes(&["compose.yaml"]) else {
        eprintln!("SKIPPED: there is no docker-compose 1.29 here");
        return;
    };
    let merged = hashes(&["compose.yaml", "compose.replicas.yaml"]).expect("the merged files");
    let changed: Vec<&String> = alone.difference(&merged).collect();
    // The one-shot service has more nodes to look after.
    assert!(changed.iter().all(|service| service.starts_with("cluster ")), "{changed:?}");
}

/// What forms the cluster takes nodes that are its own, or does nothing: two clusters that became one are never two again.
#[test]
fn the_script_joins_no_other_cluster() {
    let form = |nodes: &[String]| {
        let mut command = Command::new("sh");
        command.args(["deploy/redis/cluster.sh", "form", "0"]).args(nodes).current_dir(repository());
        let output = command.output().expect("sh");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let known = |cluster: &Cluster| cluster.node(0).line("CLUSTER NODES").string().lines().count();
    let (theirs, ours) = (Cluster::three(), Cluster::unformed(Shape::default()));
    // A name of ours leads to a node of theirs, as happens where two containers have one name on a network.
    let mixed = [theirs.node(0).address(), ours.node(1).address(), ours.node(2).address()];
    let (well, said) = form(&mixed);
    assert!(!well && said.contains("nothing is done") && said.contains("2 other nodes"), "{said}");
    assert_eq!((known(&theirs), known(&ours)), (3, 1));

    let all: Vec<String> = ours.nodes.iter().map(|node| node.address()).collect();
    for time in ["first", "second"] {
        let (well, said) = form(&all);
        assert!(well && said.contains("ready: 3 nodes, 16384 slots"), "{time}: {said}");
    }
    assert_eq!((known(&theirs), known(&ours)), (3, 3));
}

/// Grafana itself cannot be had everywhere; what it is given can be checked anyway.
#[test]
fn the_dashboard_is_complete() {
    let board = dashboard();
    assert_eq!(board["uid"], "slotway");
    let variables: Vec<_> =
        board["templating"]["list"].as_array().expect("variables").iter().map(|v| &v["name"]).collect();
    assert_eq!(variables, ["datasource", "job", "instance", "node"]);
    let panels = board["panels"].as_array().expect("panels");
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").map(|panel| &panel["title"]).collect();
    assert_eq!(rows, ["Overview", "Nodes", "Slots and redirects", "Clients", "Process"]);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "two panels of one id: {}", panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            let asked = target["expr"].as_str().expect("a query");
            assert_eq!(asked.matches('(').count(), asked.matches(')').count(), "{asked}");
        }
    }
    assert!(metrics_asked_for().len() > 30, "{:?}", metrics_asked_for());

    // Where Grafana looks is where the compose file mounts it, and the data source is the Prometheus beside it.
    let compose = read("compose.yaml");
    let provider = read("grafana/provisioning/dashboards/slotway.yml");
    assert!(provider.contains("path: /var/lib/grafana/dashboards"), "{provider}");
    assert!(compose.contains("./grafana/dashboards:/var/lib/grafana/dashboards"));
    assert!(compose.contains("./grafana/provisioning:/etc/grafana/provisioning"));
    assert!(read("grafana/provisioning/datasources/prometheus.yml").contains("http://prometheus:9090"));
    assert!(read("prometheus/prometheus.yml").contains("port: 9380"));
}

#[test]
fn no_file_holds_a_secret_and_every_port_stays_on_this_machine() {
    for file in [
        "compose.yaml",
        "compose.replicas.yaml",
        "compose.sidecar.yaml",
        "compose.databases.yaml",
        "compose.password.yaml",
        "compose.tls.yaml",
        "compose.tls.replicas.yaml",
    ] {
        for line in read(file).lines().filter(|line| !line.trim_start().starts_with('#')) {
            let secret = line.to_ascii_lowercase().contains("password")
                && !line.contains("/run/secrets/")
                && !line.contains("_FILE");
            let read_from_elsewhere = line.contains("_FILE: ") && !line.contains("_FILE: /run/secrets/");
            assert!(!read_from_elsewhere, "{file}: no secret is mounted there: {line}");
            let names_it = line.contains("redis_password") || line.contains(" # ");
            assert!(!secret || names_it, "{file}: {line}");
            let published = line.trim_start().starts_with("ports:") || line.trim_start().starts_with("- \"${");
            assert!(!published || line.contains(":-127.0.0.1:") || line.trim_end() == "    ports:", "{file}: {line}");
        }
    }
}

/// The script makes what compose.tls.yaml mounts, and the proxy takes it.
#[test]
fn the_certificates_are_those_that_the_files_name() {
    let folder = reaper::folder("tls-certificates");
    let script = repository().join("deploy/tls-certificates");
    let make = || {
        let made = Command::new(&script).arg(&folder).output().expect("the script");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make();
    let file = |name: &str| folder.join(name);
    let (ca, first) = (fs::read(file("ca.crt")).expect("a CA"), fs::read(file("proxy.crt")).expect("a certificate"));
    make();
    assert_eq!(fs::read(file("ca.crt")).expect("a CA"), ca, "the CA is kept");
    assert_ne!(fs::read(file("proxy.crt")).expect("a certificate"), first, "certificates are made anew");
    for (name, purpose) in
        [("node", "sslserver"), ("node", "sslclient"), ("proxy", "sslserver"), ("client", "sslclient")]
    {
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-purpose", purpose, "-CAfile"]).arg(file("ca.crt")).arg(file(&format!("{name}.crt")));
        let verified = verify.output().expect("openssl");
        assert!(verified.status.success(), "{name}: {}", String::from_utf8_lossy(&verified.stderr));
    }

    let (compose, cluster) = (read("compose.tls.yaml"), read("redis/cluster.sh"));
    let mut check = Command::new(env!("CARGO_BIN_EXE_slotway"));
    let check = only_set_here(&mut check).arg("check");
    for line in compose.lines().map(str::trim).filter(|line| line.starts_with("SLOTWAY_")) {
        let (name, value) = line.split_once(": ").expect("a value");
        check.env(name, value.replace("/run/secrets/tls", folder.to_str().expect("UTF-8")));
    }
    let checked = check.output().expect("slotway");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    for name in cluster.split("$secrets/").skip(1).filter_map(|rest| rest.split([' ', '"', '\n']).next()) {
        assert!(file(name).exists(), "cluster.sh names {name}");
    }
}

/// One file for every processor, the same crates each time, and nothing in the image but what is built.
#[test]
fn the_dockerfile_builds_from_the_lock_file_for_any_processor() {
    let text = read("Dockerfile").lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(text.matches("cargo build").count(), text.matches("cargo build --release --locked").count(), "{text}");
    assert!(text.contains("COPY Cargo.toml Cargo.lock ./"), "{text}");
    for name in ["x86_64", "aarch64", "amd64", "arm64"] {
        assert!(!text.contains(name), "{name} is named: {text}");
    }
    let (_, image) = text.split_once("FROM scratch\n").expect("an empty image");
    assert_eq!(image.matches("COPY ").count(), 1, "{image}");
    assert!(!image.contains("RUN "), "{image}");
    assert_eq!(text.matches("FROM ").count(), 2, "{text}");
}

/// Everything that `kubernetes-validate`'s schemas, strictly, and Kubernetes' restricted pod security standard ask for.
#[test]
fn the_kubernetes_manifests_are_valid_and_restricted() {
    const JUDGE: &str = r#"
import sys, yaml, kubernetes_validate as judge
for path in sys.argv[1:]:
    for document in yaml.safe_load_all(open(path)):
        judge.validate(document, "1.30", strict=True)
        pod = document.get("spec", {}).get("template", {}).get("spec")
        if not pod:
            continue
        common = pod["securityContext"]
        assert common["runAsNonRoot"] and common["seccompProfile"]["type"] == "RuntimeDefault", path
        for container in pod.get("initContainers", []) + pod["containers"]:
            own, name = container["securityContext"], container["name"]
            assert own["capabilities"]["drop"] == ["ALL"] and not own["allowPrivilegeEscalation"], name
            assert own["readOnlyRootFilesystem"] and "memory" in container["resources"]["limits"], name
"#;
    let Some(python) = std::env::var_os("SLOTWAY_TEST_PYTHON") else {
        eprintln!("SKIPPED: SLOTWAY_TEST_PYTHON names no Python with kubernetes-validate");
        return;
    };
    let has_it = Command::new(&python).args(["-c", "import kubernetes_validate"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {} has no kubernetes-validate", python.display());
        return;
    }
    let folder = repository().join("deploy/kubernetes");
    let files = ["deployment.yaml", "sidecar.yaml"].map(|name| folder.join(name));
    let judged = Command::new(&python).args(["-c", JUDGE]).args(files).output().expect("Python");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

/// systemd takes the units, and finds the service exposed less than 2.0 of 10.
#[test]
fn the_systemd_units_are_valid_and_hardened() {
    let folder = reaper::folder("units");
    // The program is not installed here.
    let service = read("systemd/slotway.service").replace("/usr/bin/slotway", "/bin/true");
    fs::write(folder.join("slotway.service"), service).expect("written");
    fs::write(folder.join("slotway.socket"), read("systemd/slotway.socket")).expect("written");
    let analyze = |args: &[&str]| Command::new("systemd-analyze").args(args).current_dir(&folder).output();
    let Ok(verified) = analyze(&["verify", "./slotway.service", "./slotway.socket"]) else {
        eprintln!("SKIPPED: there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("slotway."), "{said}");
    let judged = analyze(&["security", "--offline=true", "--threshold=20", "./slotway.service"]).expect("it runs");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
