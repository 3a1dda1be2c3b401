//! `slotway doctor`: what usually goes wrong in front of a cluster, found out by asking, with the line that mends it.
//!
//! [`examine`] visits the seeds, searches the nodes as discovery would ([`crate::process::discovery::reach`]) and visits those too,
//! everybody at once under short deadlines. What they say is judged without further I/O, one file per question.
//! The doctor changes nothing anywhere: every question is one that a node answers without a trace.

mod addresses;
mod certificates;
mod chart;
mod databases;
mod exam;
mod health;
mod members;
mod seeds;
mod slots;

use serde::Serialize;

use crate::{config::Config, protocol::names::Name};
use exam::Exam;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Something works now, and may not always.
    Warning,
    /// Something does not work.
    Problem,
}

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad the finding is.
    pub verdict: Severity,
    /// The finding's name in `deploy/troubleshooting.md`, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What the finding is about, in one word.
    pub about: &'static str,
    /// What was found, for a person.
    pub says: String,
    /// What to do about it: a line to paste, or the way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All that was found out, in the order in which it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Adds what is as it should be.
    pub fn ok(&mut self, about: &'static str, says: impl Into<String>) {
        self.findings.push(Finding { verdict: Severity::Ok, name: None, about, says: says.into(), remedy: None });
    }

    /// Adds what works now and may not always.
    pub fn warning(&mut self, about: &'static str, name: Name, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warning, about, name, says, remedy);
    }

    /// Adds what does not work.
    pub fn problem(&mut self, about: &'static str, name: Name, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Problem, about, name, says, remedy);
    }

    fn add(
        &mut self,
        verdict: Severity,
        about: &'static str,
        name: Name,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            verdict,
            name: Some(name),
            about,
            says: says.into(),
            remedy: Some(remedy.into()),
        });
    }

    /// How many findings are that bad.
    pub fn count(&self, verdict: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether anything about this is worse than [`Severity::Ok`].
    fn complains_of(&self, about: &str) -> bool {
        self.findings.iter().any(|finding| finding.about == about && finding.verdict > Severity::Ok)
    }
}

/// Looks at the cluster that `config` leads to, and adds to the report what it finds.
pub async fn examine(config: &Config, report: &mut Report) {
    let Some(tls) = certificates::judge_ours(config, report) else { return };
    let exam = Exam::of(config, tls).await;
    seeds::judge(&exam, report);
    if exam.members.is_empty() {
        return;
    }
    addresses::judge(&exam, report);
    members::judge(&exam, report);
    slots::judge(&exam, report);
    health::judge(&exam, report);
    certificates::judge_nodes(&exam, report);
    databases::judge(&exam, report).await;
}

/// Some of many, for a sentence.
fn some_of(all: &[String]) -> String {
    const MOST: usize = 5;
    let more = all.len().saturating_sub(MOST);
    let shown = all.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
