//! Some nodes of the cluster, as the operator names them.

use std::ops::Deref;

use crate::protocol::address::Address;

/// The seeds: addresses, and whether they say that TLS is spoken there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    addresses: Vec<Address>,
    are_secured: bool,
}

impl Seeds {
    /// From `host:port`, `redis://host:port` and `rediss://host:port`: the seeds are of one cluster, so that one that says
    /// TLS says it for all.
    ///
    /// # Errors
    /// One is no address, or says the opposite of another.
    pub(super) fn parse(texts: &[String]) -> Result<Seeds, String> {
        let secured = |text: &String| text.trim().starts_with("rediss://");
        let plain = |text: &String| text.trim().starts_with("redis://");
        let are_secured = texts.iter().any(secured);
        if are_secured && texts.iter().any(plain) {
            return Err(
                "some say rediss:// (TLS) and some redis://: the nodes of one cluster speak the same".to_owned()
            );
        }
        let bare = |text: &String| {
            let text = text.trim();
            text.strip_prefix("rediss://").or_else(|| text.strip_prefix("redis://")).unwrap_or(text).to_owned()
        };
        let addresses = texts.iter().map(|text| bare(text).parse::<Address>().map_err(|wrong| wrong.to_string()));
        Ok(Seeds { addresses: addresses.collect::<Result<_, _>>()?, are_secured })
    }

    /// Whether TLS is spoken there, as far as they say.
    pub fn are_secured(&self) -> bool {
        self.are_secured
    }
}

impl Deref for Seeds {
    type Target = [Address];

    fn deref(&self) -> &[Address] {
        &self.addresses
    }
}

impl FromIterator<Address> for Seeds {
    fn from_iter<T: IntoIterator<Item = Address>>(addresses: T) -> Seeds {
        Seeds { addresses: addresses.into_iter().collect(), are_secured: false }
    }
}
