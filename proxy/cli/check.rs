//! `slotway check`.

use std::time::SystemTime;

use slotway::{
    config::{self, Config},
    process::certificates::{self, Certificates, Validity},
    protocol::names::Name,
};

use super::{
    Failure,
    flags::ServeFlags,
    say,
    serve::{UNCHECKED, lent, open_to_all, strange},
};

/// Prints every key, its value and where that came from; fails where `serve` would.
pub fn run(flags: &ServeFlags) -> Result<(), Failure> {
    let sources = flags.sources();
    let config = Config::load(&sources)?;
    let shown = config::shown(&sources)?;
    let width = |column: fn(&config::ShownKey) -> &str| shown.iter().map(|line| column(line).len()).max().unwrap_or(0);
    let (keys, values) = (width(|line| &line.key), width(|line| &line.value).min(40));
    for line in &shown {
        say(format_args!("{:keys$} = {:values$}  # {}", line.key, line.value, line.from));
    }
    for address in config.insecure_binds() {
        warn(Name::OpenPort, open_to_all(&address, config.protected_mode));
    }
    if let Some(user) = config.lent_user() {
        warn(Name::LentUser, lent(user));
    }
    if config.speaks_unchecked_tls() {
        warn(Name::TlsUnchecked, UNCHECKED);
    }
    for name in config.strange_commands() {
        warn(Name::StrangeCommand, strange(name));
    }
    config.ready_to_serve()?;
    for (side, until) in Certificates::load(&config)?.ends() {
        let (side, day) = (side.label(), certificates::day(until));
        match Validity::of(until, SystemTime::now()) {
            Validity::Over => warn(
                Name::CertificateEnds,
                format!("the certificate that {side} are shown is valid no more: it ended on {day}"),
            ),
            Validity::FewDays(days) => {
                warn(
                    Name::CertificateEnds,
                    format!("the certificate that {side} are shown ends in {days} days, on {day}"),
                );
            }
            Validity::Days(_) => {}
        }
    }
    Ok(())
}

fn warn(name: Name, text: impl Into<String>) {
    eprintln!("warning: {}", name.on(text));
}
