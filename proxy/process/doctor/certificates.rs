//! Certificates: ours, and those that nodes show.

use std::time::SystemTime;

use super::{Report, exam::Exam, some_of};
use crate::{
    config::Config,
    metrics::Side,
    process::certificates::{Certificates, Validity, day},
    protocol::names::Name,
    upstream::transport::tls::to_nodes::ToNodes,
};

const TLS: &str = "tls";

/// Judges our own; how nodes are to be reached, or `None` where that cannot be found out.
pub fn judge_ours(config: &Config, report: &mut Report) -> Option<Option<ToNodes>> {
    let remedy = "mend that file; the proxy does not start with it, and does not take it while it runs";
    match Certificates::for_clients_only(config) {
        Ok(certificates) => validity(&certificates, report),
        Err(why) => report.problem(TLS, Name::TlsFiles, why.to_string(), remedy),
    }
    if config.speaks_unchecked_tls() {
        report.warning(
            TLS,
            Name::TlsUnchecked,
            "nodes' certificates are not checked: whoever sits between the proxy and the nodes can read and change everything",
            "node_tls_ca_cert_file and node_tls_server_name say what to trust; leave node_tls_insecure_skip_verify away",
        );
    }
    match Certificates::for_nodes_only(config) {
        Ok(certificates) => {
            validity(&certificates, report);
            Some(certificates.to_nodes(None))
        }
        Err(why) => {
            report.problem(TLS, Name::TlsFiles, why.to_string(), remedy);
            None
        }
    }
}

fn validity(certificates: &Certificates, report: &mut Report) {
    for (side, until) in certificates.ends() {
        let files = if side == Side::Clients { "tls_cert_file" } else { "node_tls_cert_file" };
        let (side, day) = (side.label(), day(until));
        let remedy = format!("put a new one, and its key, into the files ({files}): they are taken without a restart");
        match Validity::of(until, SystemTime::now()) {
            Validity::Over => {
                report.problem(
                    TLS,
                    Name::CertificateEnds,
                    format!("the certificate that {side} are shown is valid no more: it ended on {day}"),
                    remedy,
                );
            }
            Validity::FewDays(days) => {
                report.warning(
                    TLS,
                    Name::CertificateEnds,
                    format!("the certificate that {side} are shown ends in {days} days, on {day}"),
                    remedy,
                );
            }
            Validity::Days(days) => {
                report.ok(TLS, format!("the certificate that {side} are shown is valid for {days} days, until {day}"));
            }
        }
    }
}

/// Judges those of nodes, as far as they have been seen.
pub fn judge_nodes(exam: &Exam, report: &mut Report) {
    let seen =
        exam.charts().filter_map(|(member, chart)| Some((member.found.announced.to_string(), chart.valid_until?)));
    let (mut first, mut short) = (None::<SystemTime>, Vec::new());
    for (name, until) in seen {
        first = Some(first.map_or(until, |first| first.min(until)));
        match Validity::of(until, SystemTime::now()) {
            Validity::Days(_) => {}
            Validity::FewDays(_) | Validity::Over => short.push(format!("{name} ({})", day(until))),
        }
    }
    let Some(first) = first else { return };
    if short.is_empty() {
        report.ok(TLS, format!("the nodes' certificates are valid, the first of them until {}", day(first)));
    } else {
        let remedy =
            "new files there, and  redis-cli --tls ... config set tls-cert-file FILE tls-key-file FILE  on each";
        report.warning(
            TLS,
            Name::CertificateEnds,
            format!("certificates of nodes end soon, or have ended: {}", some_of(&short)),
            remedy,
        );
    }
}
