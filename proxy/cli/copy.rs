//! `slotway copy`.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    path::PathBuf,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use slotway::{
    commands::database::Database,
    config::{Secret, passwords_in},
    process::copy::{Copy, Fit, Order, Place, Progress, Report, Stage},
};

use super::{Failure, say};

/// How often a line tells how far it is, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is to be copied.
#[derive(Args)]
pub struct CopyFlags {
    /// The server to copy from: redis://host:6379/0, rediss:// where it speaks TLS
    #[arg(long, value_name = "URL")]
    from: Place,
    /// Where to copy to: a proxy, say; its listener and user say into which database
    #[arg(long, value_name = "URL")]
    to: Place,
    /// A file with the password of the first
    #[arg(long, value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// A file with the password of the second
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// The CA of servers that speak TLS (PEM) [the system's CAs]
    #[arg(long, value_name = "FILE")]
    tls_ca_cert_file: Option<PathBuf>,
    /// Copy into this database of its own, through a proxy that serves all of the cluster
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// What the keys of such a database begin with, % for its name
    #[arg(long, value_name = "FORM", default_value = "{%}", requires = "database")]
    database_prefix: String,
    /// Replace keys and function libraries that are there otherwise
    #[arg(long)]
    replace: bool,
    /// Leave function libraries behind
    #[arg(long)]
    without_functions: bool,
    /// Compare all keys with their copies afterwards
    #[arg(long)]
    verify: bool,
}

/// Copies, and says what has become of it.
pub fn run(flags: CopyFlags) -> Result<(), Failure> {
    let verifies = flags.verify;
    let order = flags.order()?;
    let (from, to, replaces) = (order.from.clone(), order.to.clone(), order.replaces);
    super::serve::block_on(async move {
        let mut copy = Copy::begin(order).await.map_err(Failure::Other)?;
        let size = copy.size().await.map_err(Failure::Other)?;
        say(format_args!("{size} keys at {from}"));
        let shown = Shown::new(size);
        let fit = copy.look(&|progress| shown.tell(progress)).await.map_err(|why| shown.failed(why))?;
        shown.ended();
        tell_what_fits(&fit, &to, replaces)?;
        copy.load_functions(&fit.functions).await.map_err(|why| shown.failed(why))?;
        let report = copy.run(&|progress| shown.tell(progress)).await.map_err(|why| shown.failed(why))?;
        shown.ended();
        tell(&report);
        if report.differing > 0 {
            return Err(differing(&report, "could not be copied, as others have written them meanwhile"));
        }
        if verifies {
            let report = copy.verify(&|progress| shown.tell(progress)).await.map_err(|why| shown.failed(why))?;
            shown.ended();
            if report.differing > 0 {
                return Err(differing(&report, "are not alike"));
            }
            say(format_args!("all {} keys are alike", report.there));
        }
        Ok(())
    })
}

impl CopyFlags {
    fn order(self) -> Result<Order, Failure> {
        let password = |file: Option<&PathBuf>| -> Result<Option<Secret>, Failure> {
            let Some(file) = file else { return Ok(None) };
            let found = passwords_in(file).map_err(|why| Failure::Config(format!("{}: {why}", file.display())))?;
            Ok(found.into_iter().next())
        };
        let from = Place { password: password(self.from_password_file.as_ref())?, ..self.from };
        let to = Place { password: password(self.to_password_file.as_ref())?, ..self.to };
        let database = self.database.map(|name| Database::new(&name, &self.database_prefix));
        Ok(Order {
            from,
            to,
            database: database.transpose().map_err(Failure::Config)?,
            ca: self.tls_ca_cert_file,
            replaces: self.replace,
            without_functions: self.without_functions,
        })
    }
}

/// What is in the way; a failure where that has to be settled first.
fn tell_what_fits(fit: &Fit, to: &Place, replaces: bool) -> Result<(), Failure> {
    if fit.alike > 0 {
        say(format_args!("{} keys are at {to} already, alike: they are passed over", fit.alike));
    }
    if replaces {
        if fit.differing > 0 {
            say(format_args!("{} keys are at {to} already: they are replaced", fit.differing));
        }
        return Ok(());
    }
    for library in &fit.functions.taken {
        say(format_args!("the function library {library} is at {to} already, and is another"));
    }
    fit.examples.iter().for_each(say);
    match (fit.differing, fit.functions.taken.len()) {
        (0, 0) => Ok(()),
        (keys, libraries) => Err(Failure::Other(format!(
            "{keys} keys and {libraries} function libraries are at {to} already, and differ: nothing has been copied. Remove \
             them there, choose another database, or say --replace"
        ))),
    }
}

fn tell(report: &Report) {
    let Report { copied, bytes, there, gone, .. } = report;
    let mut text = format!("{copied} keys copied, {}", ByteSize(*bytes));
    if *there > 0 {
        text += &format!("; {there} were there already, alike");
    }
    if *gone > 0 {
        text += &format!("; {gone} had gone meanwhile");
    }
    say(text);
}

fn differing(report: &Report, what: &str) -> Failure {
    report.examples.iter().for_each(say);
    Failure::Other(format!("{} keys {what}", report.differing))
}

/// How far it is: a bar on a terminal, else a line from time to time.
struct Shown {
    bar: ProgressBar,
    size: u64,
    line: Cell<Instant>,
    is_terminal: bool,
}

impl Shown {
    fn new(size: u64) -> Shown {
        let is_terminal = io::stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(size) } else { ProgressBar::hidden() };
        let form = "{msg:10} {wide_bar} {pos} of about {len} keys, {per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Shown { bar, size, line: Cell::new(Instant::now()), is_terminal }
    }

    fn tell(&self, progress: Progress) {
        let doing = match progress.stage {
            Stage::Looking => "looking",
            Stage::Copying => "copying",
            Stage::Comparing => "comparing",
        };
        if self.is_terminal {
            if progress.keys < self.bar.position() {
                self.bar.reset();
            }
            self.bar.set_message(doing);
            self.bar.set_position(progress.keys);
        } else if self.line.get().elapsed() >= LINE_EVERY {
            self.line.set(Instant::now());
            say(format_args!("{doing}: {} of about {} keys", progress.keys, self.size));
        }
    }

    /// A stage is over: what follows begins on a line of its own.
    fn ended(&self) {
        self.bar.finish_and_clear();
        self.bar.reset();
    }

    fn failed(&self, why: String) -> Failure {
        self.bar.finish_and_clear();
        Failure::Other(why)
    }
}
