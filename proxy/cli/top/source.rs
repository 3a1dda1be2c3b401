//! Where the status comes from: the admin port, by HTTP/1.0, in which a body goes on as it is until its end, so that its lines
//! are all that has to be understood.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use slotway::{config::Config, upstream::transport::tls::to_ourselves};

use super::{super::healthcheck::near, status::Status};
use crate::cli::Failure;

/// How long connecting, and silence of a stream that speaks each second, may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a proxy that does not answer is left alone.
const AGAIN: Duration = Duration::from_secs(1);
/// More than any status; a longer line is no status.
const LONGEST_LINE: u64 = 16 << 20;

/// An admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `host:port`, as it was said.
    pub at: String,
    pub by_tls: bool,
}

/// What there is to be seen.
pub enum News {
    Status(Box<Status>),
    /// Why there is none now.
    Trouble(String),
    /// The program has been asked to end.
    End,
}

impl Source {
    /// The admin port that a URL names, or the one of this configuration.
    pub fn of(url: Option<&str>, config: &Config) -> Result<Source, Failure> {
        let Some(url) = url else {
            let off = || Failure::Config("the admin port is off, so that nothing can be asked; set `admin`".to_owned());
            return Ok(Source { at: near(config.admin.ok_or_else(off)?).to_string(), by_tls: config.admin_tls });
        };
        let (at, by_tls) = match url.split_once("://") {
            Some(("http", at)) => (at, false),
            Some(("https", at)) => (at, true),
            Some(_) => return Err(Failure::Config(format!("{url}: say http://host:port or https://host:port"))),
            None => (url, config.admin_tls),
        };
        let at = at.split('/').next().unwrap_or(at);
        let has_port = at.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Source { at: if has_port { at.to_owned() } else { format!("{at}:9380") }, by_tls })
    }

    /// The status as it is told, as JSON.
    pub fn ask(&self) -> io::Result<String> {
        let mut body = String::new();
        self.get("/api/status")?.take(LONGEST_LINE).read_to_string(&mut body)?;
        Ok(body)
    }

    /// Tells the status each second, again and again, until nobody listens.
    pub fn follow(self, news: Sender<News>) {
        thread::spawn(move || {
            loop {
                let why = match self.stream(&news) {
                    Ok(()) => return,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => "it is silent".to_owned(),
                    Err(error) => error.to_string(),
                };
                if news.send(News::Trouble(why)).is_err() {
                    return;
                }
                thread::sleep(AGAIN);
            }
        });
    }

    /// Passes on what a stream tells; well where nobody listens any more.
    fn stream(&self, news: &Sender<News>) -> io::Result<()> {
        let mut body = self.get("/api/stream")?;
        loop {
            let mut line = String::new();
            if body.by_ref().take(LONGEST_LINE).read_line(&mut line)? == 0 {
                return Err(io::Error::other("it closed the connection"));
            }
            let Some(data) = line.strip_prefix("data:") else { continue };
            if news.send(News::Status(Box::new(Status::parse(data)?))).is_err() {
                return Ok(());
            }
        }
    }

    /// The body of what is there.
    fn get(&self, path: &str) -> io::Result<BufReader<Box<dyn Read>>> {
        let mut last = io::Error::other("the name leads nowhere");
        let mut connected = None;
        for address in self.at.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    connected = Some((stream, address));
                    break;
                }
                Err(error) => last = error,
            }
        }
        let (stream, address) = connected.ok_or(last)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if self.by_tls { body(to_ourselves::secured(stream)?, address, path) } else { body(stream, address, path) }
    }
}

fn body(mut stream: impl Read + Write + 'static, at: SocketAddr, path: &str) -> io::Result<BufReader<Box<dyn Read>>> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
    stream.flush()?;
    let mut answer = BufReader::new(Box::new(stream) as Box<dyn Read>);
    let mut line = String::new();
    answer.by_ref().take(LONGEST_LINE).read_line(&mut line)?;
    if !(line.starts_with("HTTP/1.") && line.get(9..12) == Some("200")) {
        return Err(io::Error::other("what answers there is no admin port of Slotway"));
    }
    while !line.trim().is_empty() {
        line.clear();
        answer.by_ref().take(LONGEST_LINE).read_line(&mut line)?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_is_named_by_a_url_or_found_as_the_healthcheck_finds_it() {
        let config = Config::load(&slotway::config::Sources::default()).expect("the defaults");
        for (url, at, by_tls) in [
            (None, "127.0.0.1:9380", false),
            (Some("http://proxy:9381/"), "proxy:9381", false),
            (Some("https://proxy:9381"), "proxy:9381", true),
            (Some("proxy"), "proxy:9380", false),
            (Some("10.0.0.1:1/api/status"), "10.0.0.1:1", false),
        ] {
            let found = Source::of(url, &config).ok().expect("a source");
            assert_eq!(found, Source { at: at.to_owned(), by_tls }, "{url:?}");
        }
        assert!(Source::of(Some("redis://proxy"), &config).is_err());
    }
}
