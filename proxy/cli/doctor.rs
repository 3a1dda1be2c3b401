//! `slotway doctor`: looks at the cluster ([`slotway::process::doctor`]) and at this machine, and prints what it finds.

mod here;

use serde_json::json;
use slotway::{
    config::{Config, ConfigError},
    process::doctor::{self, Finding, Report, Severity},
};

use super::{Failure, flags::DoctorFlags, say, serve::block_on};

/// Prints the findings; fails where one is a problem.
pub fn run(flags: &DoctorFlags) -> Result<(), Failure> {
    let config = Config::load(&flags.serve.sources())?;
    match config.ready_to_serve() {
        // One more finding: the cluster is looked at all the same.
        Ok(()) | Err(ConfigError::LentUser { .. }) => {}
        Err(why) => return Err(why.into()),
    }
    let mut report = Report::default();
    block_on(async {
        doctor::examine(&config, &mut report).await;
        Ok(())
    })?;
    here::look(&config, &mut report);
    let problems = report.count(Severity::Problem);
    let (text, summary) =
        if flags.json { (as_json(&report), String::new()) } else { (for_people(&report), summary(&report)) };
    say(format_args!("{text}{summary}"));
    if problems > 0 { Err(Failure::Other(String::new())) } else { Ok(()) }
}

fn as_json(report: &Report) -> String {
    let (problems, warnings) = (report.count(Severity::Problem), report.count(Severity::Warning));
    json!({ "problems": problems, "warnings": warnings, "findings": report.findings }).to_string()
}

/// The findings by how bad they are, the worst last: that is where people look in a terminal.
fn for_people(report: &Report) -> String {
    let mut text = String::new();
    for (verdict, title) in [(Severity::Ok, "ok"), (Severity::Warning, "warning"), (Severity::Problem, "problem")] {
        for Finding { name, about, says, remedy, .. } in
            report.findings.iter().filter(|finding| finding.verdict == verdict)
        {
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            text += &format!("{title:8} {about}: {says}{name}\n");
            text += &remedy.as_ref().map(|remedy| format!("         -> {remedy}\n")).unwrap_or_default();
        }
    }
    text + "\n"
}

fn summary(report: &Report) -> String {
    let count = |verdict, word: &str| match report.count(verdict) {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    format!("{}, {}", count(Severity::Problem, "problem"), count(Severity::Warning, "warning"))
}
