//! One function per kind of value. The environment and flags bring everything as text, so each takes text too; each error
//! says what was wrong and how it should look.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{AuthClients, CrossSlot, LogFormat, Present, ReadFrom, Secret, Seeds};
use crate::{
    cluster::{topology::AddressMap, zones::ZoneMap},
    protocol::{
        address::Address,
        endpoint::{self, ListenAddress},
    },
};

/// The longest time that can be set: any point in time and this are one too.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The least that all clients together may be held.
const SMALLEST_BUFFER: usize = 1024 * 1024;

/// A text, number or truth value, as text. An empty one stands for "not set".
struct Scalar(String);

/// A list of scalars, or one text with commas.
struct List(Vec<String>);

pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Scalar::deserialize(from)?.0).filter(|text| !text.is_empty()))
}

pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(text(from)?.map(Secret::new))
}

pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(text(from)?.map(PathBuf::from))
}

pub(super) fn number<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<T, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    text.trim().parse().map_err(|_| D::Error::custom(format!("`{text}` is no whole number, such as 16")))
}

pub(super) fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match number(from)? {
        0 => Err(D::Error::custom("it must be at least 1")),
        number => Ok(number),
    }
}

pub(super) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    one_of(
        from,
        &[("true", true), ("false", false), ("yes", true), ("no", false), ("1", true), ("0", false)],
        "true or false",
    )
}

pub(super) fn cross_slot<'de, D: Deserializer<'de>>(from: D) -> Result<CrossSlot, D::Error> {
    one_of(from, &[("split", CrossSlot::Split), ("reject", CrossSlot::Reject)], "`split` or `reject`")
}

pub(super) fn reads<'de, D: Deserializer<'de>>(from: D) -> Result<ReadFrom, D::Error> {
    let (primary, replica, nearest) = (ReadFrom::Primary, ReadFrom::Replica, ReadFrom::Nearest);
    one_of(
        from,
        &[("primary", primary), ("replica", replica), ("nearest", nearest)],
        "`primary`, `replica` or `nearest`",
    )
}

/// Empty is `None`.
pub(super) fn auth_clients<'de, D: Deserializer<'de>>(from: D) -> Result<Option<AuthClients>, D::Error> {
    let (no, optional, yes) = (Some(AuthClients::No), Some(AuthClients::Optional), Some(AuthClients::Yes));
    one_of(from, &[("", None), ("no", no), ("optional", optional), ("yes", yes)], "`no`, `optional` or `yes`")
}

pub(super) fn log_format<'de, D: Deserializer<'de>>(from: D) -> Result<LogFormat, D::Error> {
    one_of(from, &[("text", LogFormat::Text), ("json", LogFormat::Json)], "`text` or `json`")
}

fn one_of<'de, D: Deserializer<'de>, T: Copy>(from: D, words: &[(&str, T)], expected: &str) -> Result<T, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
    found.map(|&(_, value)| value).ok_or_else(|| D::Error::custom(format!("`{text}` is neither {}", or_nor(expected))))
}

fn or_nor(expected: &str) -> String {
    expected.replace(" or ", " nor ")
}

/// A time that must be above zero.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match delay(from)? {
        Duration::ZERO => Err(D::Error::custom("it must be above zero, as in 500ms or 3s")),
        time => Ok(time),
    }
}

/// A time; zero is `None`.
pub(super) fn duration_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Ok(Some(delay(from)?).filter(|time| !time.is_zero()))
}

/// A time that may be zero.
pub(super) fn delay<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    parse_duration(&text).map_err(D::Error::custom)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text.trim()).map_err(|_| {
        let unit = if text.trim().parse::<f64>().is_ok() { " (the unit is missing)" } else { "" };
        format!("`{text}` is no duration{unit}: write it as 500ms, 3s or \"1m 30s\"")
    })?;
    if time > LONGEST { Err(format!("`{text}` is more than a year")) } else { Ok(time) }
}

pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    let size = text.trim().parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.ok_or_else(|| D::Error::custom(format!("`{text}` is no size: write it as 64KiB, 8MiB or 1GiB")))
}

/// What the proxy holds for its clients: with less, ordinary replies would end their connections.
pub(super) fn buffer<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match size(from)? {
        size if size < SMALLEST_BUFFER => Err(D::Error::custom("it must be at least 1MiB; there is no \"unlimited\"")),
        size => Ok(size),
    }
}

pub(super) fn seeds<'de, D: Deserializer<'de>>(from: D) -> Result<Seeds, D::Error> {
    Seeds::parse(&List::deserialize(from)?.0).map_err(D::Error::custom)
}

pub(super) fn server_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ServerName<'static>>, D::Error> {
    let named = text(from)?.map(|text| {
        ServerName::try_from(text.clone()).map_err(|_| {
            D::Error::custom(format!("`{text}` is no host name or IP address that a certificate could be for"))
        })
    });
    named.transpose()
}

pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ListenAddress>, D::Error> {
    let list = List::deserialize(from)?.0;
    if list.is_empty() {
        return Err(D::Error::custom("it is empty: write where clients connect, such as 127.0.0.1:6380"));
    }
    list.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<ListenAddress, D::Error> {
    Scalar::deserialize(from)?.0.parse().map_err(D::Error::custom)
}

/// Empty is `None`.
pub(super) fn host_and_port<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Address>, D::Error> {
    let parsed =
        |text: String| text.parse().map_err(|_| D::Error::custom(format!("`{text}` is no address: write host:port")));
    text(from)?.map(parsed).transpose()
}

/// Where a collector listens, by HTTP. Empty is `None`.
pub(super) fn collector<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Address>, D::Error> {
    let wrong = |text: &str| {
        format!("`{text}` is no collector: write host:port, as in 127.0.0.1:4318, where it takes OTLP by plain HTTP")
    };
    let parsed = |text: String| {
        let bare = text.trim().strip_prefix("http://").unwrap_or(text.trim()).trim_end_matches('/');
        bare.parse().map_err(|_| D::Error::custom(wrong(&text)))
    };
    text(from)?.map(parsed).transpose()
}

/// A part of a whole.
pub(super) fn part<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    let part = text.trim().parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| D::Error::custom(format!("`{text}` is no number from 0 to 1, such as 0.1")))
}

pub(super) fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Present, D::Error> {
    one_of(from, &[("standalone", Present::Standalone), ("cluster", Present::Cluster)], "`standalone` or `cluster`")
}

/// Networks, or addresses.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map_err(|_| {
            D::Error::custom(format!("`{text}` is no network: write it as 10.0.0.0/8, or one address as 10.1.2.3"))
        })
    };
    List::deserialize(from)?.0.iter().map(network).collect()
}

/// Names, each once, and none empty.
pub(super) fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let list = List::deserialize(from)?.0;
    match list.iter().find(|name| name.trim().is_empty()) {
        Some(_) => Err(D::Error::custom("a name is empty")),
        None => Ok(list),
    }
}

pub(super) fn socket_or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    match text.trim() {
        "" | "off" => Ok(None),
        text => parse_socket(text).map(Some).map_err(|error| D::Error::custom(format!("{error}, or `off`"))),
    }
}

fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    endpoint::socket(text).ok_or_else(|| {
        format!("`{text}` is no IP address and port: write it as 127.0.0.1:6380, 0.0.0.0:6380 or [::]:6380")
    })
}

pub(super) fn address_map<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<AddressMap>, D::Error> {
    let list = List::deserialize(from)?.0;
    AddressMap::parse(&list).map(Arc::new).map_err(D::Error::custom)
}

pub(super) fn zones<'de, D: Deserializer<'de>>(from: D) -> Result<ZoneMap, D::Error> {
    ZoneMap::parse(&List::deserialize(from)?.0).map_err(D::Error::custom)
}

pub(super) fn commands<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let list = List::deserialize(from)?.0;
    Ok(list.iter().map(|name| name.to_lowercase()).collect())
}

pub(super) fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<Targets, D::Error> {
    let text = Scalar::deserialize(from)?.0;
    // Taken for the name of a module, a mistyped level would let nothing be logged.
    let is_clear = |part: &str| {
        let part = part.trim();
        part.contains('=') || !part.is_empty() && part.parse::<LevelFilter>().is_ok()
    };
    match text.parse() {
        Ok(targets) if text.split(',').all(is_clear) => Ok(targets),
        _ => Err(D::Error::custom(format!(
            "`{text}` is no log filter: write a level (error, warn, info, debug, trace) or info,slotway::process::discovery=debug"
        ))),
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Scalar, D::Error> {
        struct AsText;
        impl Visitor<'_> for AsText {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }
        }
        from.deserialize_any(AsText)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<List, D::Error> {
        struct AsTexts;
        impl<'de> Visitor<'de> for AsTexts {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list, or one text with commas")
            }
            fn visit_str<E>(self, text: &str) -> Result<List, E> {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(List(items.map(str::to_owned).collect()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(Scalar(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        from.deserialize_any(AsTexts)
    }
}
