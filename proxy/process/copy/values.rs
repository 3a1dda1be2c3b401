//! Whether two values are alike that are kept otherwise: sets and hashes have no order, and servers of two versions write the
//! same value in two ways. They are read in pages, so that memory is bounded.

use super::server::{Server, writes};
use crate::protocol::resp::Value;

/// Elements, and bytes of a string, that are read at a time.
const PAGE: usize = 512;
const PIECE: usize = 1024 * 1024;

/// What is different: of two keys of one type, `here` at one server and `there` at the other.
pub(super) async fn differ(
    from: &mut Server,
    to: &mut Server,
    kind: &str,
    here: &[u8],
    there: &[u8],
) -> Result<Option<String>, String> {
    let mut both = Both { from, to, here, there };
    let alike = match kind {
        "string" => both.alike("STRLEN", &[]).await? && both.alike_in_pages("GETRANGE", &[], PIECE, is_empty).await?,
        "list" => both.alike("LLEN", &[]).await? && both.alike_in_pages("LRANGE", &[], PAGE, is_empty).await?,
        "zset" => {
            both.alike("ZCARD", &[]).await? && both.alike_in_pages("ZRANGE", &["WITHSCORES"], PAGE, is_empty).await?
        }
        "set" => both.alike("SCARD", &[]).await? && both.all_are_there("SSCAN", 1, "SISMEMBER").await?,
        "hash" => both.alike("HLEN", &[]).await? && both.all_are_there("HSCAN", 2, "HGET").await?,
        "stream" => both.streams_are_alike().await?,
        kind => return Ok(Some(format!("is of the type {kind}, which only DUMP tells of, and that differs"))),
    };
    Ok((!alike).then(|| "has another value there".to_owned()))
}

/// The two keys.
struct Both<'a> {
    from: &'a mut Server,
    to: &'a mut Server,
    here: &'a [u8],
    there: &'a [u8],
}

fn is_empty(said: &Value) -> bool {
    said.items().is_empty() && said.text().is_none_or(<[u8]>::is_empty)
}

impl Both<'_> {
    /// The same command with both keys, and what each says. `sub` stands before the key.
    async fn ask(&mut self, sub: &[&str], more: &[&str]) -> Result<[Value; 2], String> {
        fn words<'a>(sub: &[&'a str], key: &'a [u8], more: &[&'a str]) -> Vec<&'a [u8]> {
            let (sub, more) = (sub.iter().map(|word| word.as_bytes()), more.iter().map(|word| word.as_bytes()));
            sub.chain([key]).chain(more).collect()
        }
        let (ours, theirs) = (words(sub, self.here, more), words(sub, self.there, more));
        let (ours, theirs) = tokio::join!(self.from.ask(&ours), self.to.ask(&theirs));
        let (ours, theirs) = (ours?, theirs?);
        for (server, said) in [(&*self.from, &ours), (&*self.to, &theirs)] {
            if matches!(said, Value::Error(_)) {
                return Err(server.odd(&sub.join(" "), said));
            }
        }
        Ok([ours, theirs])
    }

    async fn alike(&mut self, command: &str, more: &[&str]) -> Result<bool, String> {
        let [ours, theirs] = self.ask(&[command], more).await?;
        Ok(ours == theirs)
    }

    /// Pages by first and last index, up to one that is the `last`.
    async fn alike_in_pages(
        &mut self,
        command: &str,
        more: &[&str],
        page: usize,
        last: fn(&Value) -> bool,
    ) -> Result<bool, String> {
        let mut first = 0;
        loop {
            let (from, until) = (first.to_string(), (first + page - 1).to_string());
            let [ours, theirs] = self.ask(&[command], &[&[&*from, &*until][..], more].concat()).await?;
            if ours != theirs {
                return Ok(false);
            }
            if last(&ours) {
                return Ok(true);
            }
            first += page;
        }
    }

    /// Whether all elements of one are the other's, too. Both have as many: so they are all there are. An element is its name, and
    /// its value where `width` is 2, which `asks` tells of; else whether it is there.
    async fn all_are_there(&mut self, scans: &str, width: usize, asks: &str) -> Result<bool, String> {
        let mut cursor = bytes::Bytes::from_static(b"0");
        loop {
            let scan =
                [scans.as_bytes(), self.here, &cursor, b"COUNT", PAGE.to_string().as_bytes()].map(<[u8]>::to_vec);
            let page = self.from.ask(&scan).await?;
            let [Value::Text(next), elements] = page.items() else { return Err(self.from.odd(scans, &page)) };
            let elements: Vec<&[Value]> = elements.items().chunks_exact(width).collect();
            let mut frames = Vec::new();
            for element in &elements {
                writes(&mut frames, &[asks.as_bytes(), self.there, element[0].text().unwrap_or_default()]);
            }
            let said = self.to.ask_all(&frames, elements.len()).await?;
            let is_there = |(element, said): (&&[Value], &Value)| match element.get(1) {
                Some(value) => said == value,
                None => said.integer() == Some(1),
            };
            if !elements.iter().zip(&said).all(is_there) {
                return Ok(false);
            }
            if **next == *b"0" {
                return Ok(true);
            }
            cursor = next.clone();
        }
    }

    /// Entries, the last id, and groups with what they have pending. Times that are counted from now are passed over.
    async fn streams_are_alike(&mut self) -> Result<bool, String> {
        let [ours, theirs] = self.ask(&["XINFO", "STREAM"], &[]).await?;
        for field in ["length", "last-generated-id", "max-deleted-entry-id", "entries-added", "groups"] {
            if let (Some(ours), Some(theirs)) = (ours.field(field), theirs.field(field))
                && ours != theirs
            {
                return Ok(false);
            }
        }
        let mut start = "-".to_owned();
        loop {
            let [ours, theirs] = self.ask(&["XRANGE"], &[&start, "+", "COUNT", &PAGE.to_string()]).await?;
            if ours != theirs {
                return Ok(false);
            }
            let Some(last) = ours.items().last().and_then(|entry| entry.items().first()?.str()) else { break };
            start = format!("({last}");
        }
        self.groups_are_alike().await
    }

    async fn groups_are_alike(&mut self) -> Result<bool, String> {
        let [ours, theirs] = self.ask(&["XINFO", "GROUPS"], &[]).await?;
        let known = |group: &Value| ["name", "pending", "last-delivered-id"].map(|field| group.field(field).cloned());
        let all = |groups: &Value| groups.items().iter().map(known).collect::<Vec<_>>();
        if all(&ours) != all(&theirs) {
            return Ok(false);
        }
        for group in ours.items() {
            let Some(name) = group.field("name").and_then(Value::str) else { continue };
            let mut start = "-".to_owned();
            loop {
                let pages = self.ask(&["XPENDING"], &[name, &start, "+", &PAGE.to_string()]).await?;
                // An entry's id, its consumer, how long ago it was delivered, and how often.
                let [ours, theirs] = pages.map(|page| {
                    let entries = page.items().iter().map(|entry| entry.items().to_vec());
                    entries
                        .map(|mut entry| {
                            if entry.len() > 2 {
                                entry.remove(2);
                            }
                            entry
                        })
                        .collect::<Vec<_>>()
                });
                if ours != theirs {
                    return Ok(false);
                }
                let Some(last) = ours.last().and_then(|entry| entry.first()?.str()) else { break };
                start = format!("({last}");
            }
        }
        Ok(true)
    }
}
