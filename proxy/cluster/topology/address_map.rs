//! The operator's rules for addresses: what is announced, and what to dial instead.
//!
//! Host and port are replaced together, once, where an address enters. A rule for a whole host or network keeps the
//! port: were it to set one, all nodes of that host would meet at one address.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::Error as _};

use crate::protocol::address::Address;

/// The rules. The exact ones are asked first, then those for a host, then those for a network, the smallest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    rules: Vec<Rule>,
}

/// One rule, written `from=to`: `172.18.0.2:7000=127.0.0.1:7000`, `172.18.0.2=127.0.0.1` or `172.18.0.0/16=127.0.0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// This address becomes that one.
    Exact(Address, Address),
    /// This host becomes that one; the port stays.
    Host(String, String),
    /// Any host of this network becomes that one; the port stays.
    Network(IpNet, String),
}

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule(String);

impl AddressMap {
    /// Reads the rules.
    pub fn parse<T: AsRef<str>>(rules: &[T]) -> Result<AddressMap, BadRule> {
        let mut rules = rules.iter().map(|rule| rule.as_ref().parse()).collect::<Result<Vec<Rule>, _>>()?;
        rules.sort_by_key(Rule::breadth);
        for pair in rules.windows(2) {
            if let [one, other] = pair
                && one.announced() == other.announced()
                && one != other
            {
                return Err(BadRule(format!("`{one}` and `{other}` contradict each other: keep one of them")));
            }
        }
        Ok(AddressMap { rules })
    }

    /// The address to dial for an announced one where a rule says so.
    pub fn find(&self, announced: &Address) -> Option<Address> {
        let ip = announced.host.parse::<IpAddr>().ok();
        self.rules.iter().find_map(|rule| match rule {
            Rule::Exact(from, to) => (from == announced).then(|| to.clone()),
            Rule::Host(from, to) => (*from == announced.host).then(|| Address::new(to.clone(), announced.port)),
            Rule::Network(from, to) => {
                ip.is_some_and(|ip| from.contains(&ip)).then(|| Address::new(to.clone(), announced.port))
            }
        })
    }

    /// The address to dial for an announced one: itself where no rule says else.
    pub fn apply(&self, announced: &Address) -> Address {
        self.find(announced).unwrap_or_else(|| announced.clone())
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, the first to be asked first.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Rule {
    fn announced(&self) -> String {
        match self {
            Rule::Exact(from, _) => from.to_string(),
            Rule::Host(from, _) => from.clone(),
            Rule::Network(from, _) => from.to_string(),
        }
    }

    /// How much a rule covers: what it is sorted by. The text behind keeps rules for the same side by side.
    fn breadth(&self) -> (u8, String) {
        let class = match self {
            Rule::Exact(..) => 0,
            Rule::Host(..) => 1,
            Rule::Network(net, _) => 2 + (net.max_prefix_len() - net.prefix_len()),
        };
        (class, self.announced())
    }
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Rule, BadRule> {
        let wrong = |why: &str| BadRule(format!("address_map rule `{text}`: {why}"));
        let shape =
            "write from=to, as in 172.18.0.2:7000=127.0.0.1:7000, 172.18.0.2=127.0.0.1 or 172.18.0.0/16=127.0.0.1";
        let (from, to) = text.split_once('=').ok_or_else(|| wrong(shape))?;
        let (from, to) = (from.trim(), to.trim());
        if let Some(exact) = address(from) {
            let to = address(to).ok_or_else(|| wrong("the left side has a port, so the right side needs one too"))?;
            return Ok(Rule::Exact(exact, to));
        }
        if address(to).is_some() {
            let why = "a rule for a whole host or network keeps the port, so the right side must be a host alone: nodes \
                       that differ in nothing but the port would meet at one address";
            return Err(wrong(why));
        }
        let to = host(to).ok_or_else(|| wrong(shape))?;
        if from.contains('/') {
            let net = from.parse().map_err(|_| wrong("the left side is no network such as 172.18.0.0/16"))?;
            return Ok(Rule::Network(net, to));
        }
        Ok(Rule::Host(host(from).ok_or_else(|| wrong(shape))?, to))
    }
}

/// A host and port; not a bare IPv6 address, whose last group looks like a port.
fn address(text: &str) -> Option<Address> {
    text.parse().ok()
}

/// A host alone: a name or an IP address, with or without brackets.
fn host(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let name = !bare.is_empty() && bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    (name || bare.parse::<IpAddr>().is_ok()).then(|| bare.to_owned())
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Exact(from, to) => write!(f, "{from}={to}"),
            Rule::Host(from, to) => write!(f, "{from}={to}"),
            Rule::Network(from, to) => write!(f, "{from}={to}"),
        }
    }
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRule {}

impl FromStr for AddressMap {
    type Err = BadRule;

    /// Reads rules with commas between, as a flag or an environment variable has them.
    fn from_str(text: &str) -> Result<AddressMap, BadRule> {
        let rules: Vec<&str> = text.split(',').map(str::trim).filter(|rule| !rule.is_empty()).collect();
        AddressMap::parse(&rules)
    }
}

impl Serialize for AddressMap {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rules.iter().map(Rule::to_string))
    }
}

/// A list of rules, or one text with commas between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    List(Vec<String>),
    Text(String),
}

impl<'de> Deserialize<'de> for AddressMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<AddressMap, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::List(rules) => AddressMap::parse(&rules),
            Written::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_rule_wins() {
        let map = AddressMap::parse(&[
            "172.18.0.0/16=127.0.0.1",
            "172.0.0.0/8=127.0.0.9",
            "172.18.0.2=127.0.0.2",
            "172.18.0.2:7000=localhost:17000",
            "redis-1=10.0.0.1",
            "fd00::/8=::1",
            "[fd00::5]:7000=[::2]:7005",
            "fd00::6=::6",
        ])
        .unwrap();
        for (from, to) in [
            ("172.18.0.2:7000", "localhost:17000"),
            ("172.18.0.2:7001", "127.0.0.2:7001"),
            ("172.18.0.3:7001", "127.0.0.1:7001"),
            ("172.19.0.3:7001", "127.0.0.9:7001"),
            ("redis-1:7000", "10.0.0.1:7000"),
            ("redis-10:7000", "redis-10:7000"),
            ("[fd00::5]:7000", "[::2]:7005"),
            ("[fd00::6]:7000", "[::6]:7000"),
            ("[fd00::7]:7000", "[::1]:7000"),
        ] {
            assert_eq!(map.apply(&from.parse().unwrap()).to_string(), to, "{from}");
        }
        assert_eq!(map.find(&"10.1.1.1:1".parse().unwrap()), None);
    }

    #[test]
    fn bad_rules_say_what_is_wrong() {
        for (rule, why) in [
            ("172.18.0.2", "write from=to"),
            ("172.18.0.2:7000=127.0.0.1", "needs one too"),
            ("172.18.0.2=127.0.0.1:7000", "must be a host alone"),
            ("172.18.0.0/16=127.0.0.1:7000", "must be a host alone"),
            ("172.18.0.0/99=127.0.0.1", "no network"),
            ("=127.0.0.1", "write from=to"),
            ("a b=c", "write from=to"),
        ] {
            let error = rule.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(rule), "{rule}: {error}");
        }
        let error = AddressMap::parse(&["10.0.0.1=a", "10.0.0.2=c", "10.0.0.1=b"]).unwrap_err().to_string();
        assert!(error.contains("10.0.0.1=a") && error.contains("10.0.0.1=b"), "{error}");
    }

    #[test]
    fn rules_come_as_a_list_or_as_one_text() {
        let list: AddressMap = serde_json::from_str(r#"["10.0.0.1=a","10.0.0.2:1=b:2"]"#).unwrap();
        assert_eq!(list, "10.0.0.1=a, 10.0.0.2:1=b:2".parse().unwrap());
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"["10.0.0.2:1=b:2","10.0.0.1=a"]"#);
        assert!(serde_json::from_str::<AddressMap>(r#"["nonsense"]"#).unwrap_err().to_string().contains("nonsense"));
    }
}
