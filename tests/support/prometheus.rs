//! A real Prometheus, as quick as a test needs it: it scrapes twice a second, and rules do not wait for minutes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{http, ports::free_port, reaper, until};

/// How far back a rate looks, here, whatever an expression says.
pub const RANGE: &str = "6s";

/// A running Prometheus, ended when it is dropped.
pub struct Prometheus {
    port: u16,
    log: PathBuf,
    child: Child,
}

/// Whether there is one on this machine; if not, that is said.
pub fn is_here(test: &str) -> bool {
    let here = ["prometheus", "promtool"].iter().all(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if !here {
        eprintln!("SKIPPED {test}: prometheus and promtool are not installed (Debian's package prometheus has both)");
    }
    here
}

impl Prometheus {
    /// Scrapes these, each a name (its `instance`) and the port of its admin page, as the job `slotway`; with these rules.
    #[track_caller]
    pub fn start(targets: &[(&str, u16)], rules: Option<&str>) -> Prometheus {
        let port = free_port();
        let folder = reaper::folder(&format!("prometheus-{port}"));
        let targets: String = targets
            .iter()
            .map(|(name, port)| {
                format!("      - targets: [\"127.0.0.1:{port}\"]\n        labels: {{instance: {name}}}\n")
            })
            .collect();
        let files = if let Some(rules) = rules {
            fs::write(folder.join("alerts.yml"), rules).expect("a file");
            "rule_files: [alerts.yml]\n"
        } else {
            ""
        };
        let config = format!(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  evaluation_interval: 500ms\n{files}scrape_configs:\n  \
             - job_name: slotway\n    static_configs:\n{targets}"
        );
        fs::write(folder.join("prometheus.yml"), config).expect("a file");
        let log = folder.join("prometheus.log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("prometheus");
        reaper::watch(child.id());
        let prometheus = Prometheus { port, log, child };
        until("Prometheus to be ready", Duration::from_secs(30), || {
            http::fetch(&prometheus.address(), "/-/ready").ok().filter(|(status, _)| *status == 200)
        });
        prometheus
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What a query gives: each series' labels and value. Panics where Prometheus does not understand it.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let asked: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) =
            http::fetch(&self.address(), &format!("/api/v1/query?query={asked}")).expect("Prometheus answers");
        assert_eq!(status, 200, "{expression}: {body}\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let series = body["data"]["result"].as_array().expect("series").iter();
        let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        series.map(|series| (series["metric"].clone(), value(series))).collect()
    }

    /// The alerts that fire now: the names of the alerts with their instance, and with the node where they have one.
    #[track_caller]
    pub fn firing(&self) -> Vec<String> {
        let series = self.query("ALERTS{alertstate=\"firing\"}");
        let text = |labels: &Value, name: &str| labels[name].as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = series
            .iter()
            .map(|(labels, _)| {
                let told = [text(labels, "alertname"), text(labels, "instance"), text(labels, "node")];
                told.join(" ").trim().to_owned()
            })
            .collect();
        names.sort();
        names
    }

    /// Waits until this alert fires.
    #[track_caller]
    pub fn waits_for(&self, alert: &str) {
        let mut last = Vec::new();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !last.iter().any(|firing| firing == alert) {
            assert!(std::time::Instant::now() < end, "{alert} does not fire, but {last:?} do");
            std::thread::sleep(Duration::from_millis(100));
            last = self.firing();
        }
    }

    /// Waits until no alert fires.
    #[track_caller]
    pub fn waits_for_peace(&self) {
        let mut last = Vec::new();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            last.clone_from(&self.firing());
            if last.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < end, "{last:?} fire on");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::forget(self.child.id());
    }
}

/// A file of `deploy/`.
#[track_caller]
pub fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
