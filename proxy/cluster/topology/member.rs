//! CLUSTER NODES: the members of a cluster as one of them knows them, and what it thinks of each.

use std::collections::HashMap;

/// A line of the reply: `id ip:port@busport,hostname flags primary ping pong epoch link slots...`.
pub struct Member<'a> {
    /// The node id. During a handshake it is only made up.
    pub id: &'a str,
    /// The address on which it listens, as far as that is known; may be empty.
    pub host: &'a str,
    /// The port for clients.
    pub port: u16,
    /// The port on which the nodes talk to each other.
    pub bus: u16,
    /// The name that it announces; may be empty.
    pub hostname: &'a str,
    flags: &'a str,
    /// The id of the primary that it follows.
    pub replicates: Option<&'a str>,
    /// The config epoch of its slots.
    pub epoch: u64,
    /// Whether the node that tells has a connection to it.
    pub connected: bool,
    slots: &'a str,
}

/// The members, by id.
pub fn members(text: &str) -> HashMap<&str, Member<'_>> {
    text.lines().filter_map(|line| Member::parse(line).map(|member| (member.id, member))).collect()
}

impl<'a> Member<'a> {
    /// Reads a line.
    pub fn parse(line: &'a str) -> Option<Member<'a>> {
        let mut words = line.trim_end().splitn(9, ' ');
        let (id, place, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let epoch = words.nth(2)?.parse().ok()?;
        let connected = words.next() == Some("connected");
        let mut parts = place.split(',');
        let address = parts.next()?;
        let hostname = parts.next().filter(|name| !name.contains('=')).unwrap_or_default();
        let (address, bus) = address.split_once('@').unwrap_or((address, ""));
        let (host, port) = address.rsplit_once(':')?;
        Some(Member {
            id,
            host,
            port: port.parse().ok()?,
            bus: bus.parse().unwrap_or(0),
            hostname,
            flags,
            replicates: (primary != "-").then_some(primary),
            epoch,
            connected,
            slots: words.next().unwrap_or_default(),
        })
    }

    /// Whether it has this flag, such as `myself`, `fail` or `handshake`.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.split(',').any(|word| word == flag)
    }

    /// Whether it is a member that others believe to be alive.
    pub fn is_well(&self) -> bool {
        !["fail", "fail?", "noaddr", "handshake"].iter().any(|flag| self.has(flag))
    }

    /// Whether it is a member that others hold for failing, and may come back.
    pub fn is_fallen(&self) -> bool {
        (self.has("fail") || self.has("fail?")) && !self.has("noaddr") && !self.has("handshake")
    }

    /// The slots that it owns: first and last of each range.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, usize)> {
        let words = self.slots.split(' ').filter(|word| !word.starts_with('['));
        words.filter_map(|word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        })
    }

    /// The slots that it is about to give away or to take, which only the node itself tells: the slot, whether it gives,
    /// and the id of the other node.
    pub fn open_slots(&self) -> impl Iterator<Item = (usize, bool, &'a str)> {
        let words = self.slots.split(' ').filter_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        words.filter_map(|word| {
            let given = word.split_once("->-").map(|(slot, to)| (slot, true, to));
            let (slot, gives, other) =
                given.or_else(|| word.split_once("-<-").map(|(slot, from)| (slot, false, from)))?;
            Some((slot.parse().ok()?, gives, other))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_form() {
        let text = "\
            07c3 172.18.0.2:7000@17000,redis-a,shard-id=1 myself,master - 0 0 7 connected 0-5460 5462 [93->-292f] [77-<-e7d1]\n\
            67ed :0@0 slave,fail,noaddr 07c3 1 2 3 disconnected\n\
            292f 127.0.0.1:7001 handshake - 0 0 0 connected\n\
            8fa1 127.0.0.1:7005@17005 slave,fail 07c3 1 2 3 disconnected\n\
            nonsense\n";
        let all = members(text);
        assert_eq!(all.len(), 4);
        assert!(all["8fa1"].is_fallen() && !all["8fa1"].is_well() && !all["07c3"].is_fallen());
        let own = &all["07c3"];
        assert_eq!((own.host, own.port, own.bus, own.hostname), ("172.18.0.2", 7000, 17000, "redis-a"));
        assert!(own.has("myself") && own.is_well() && own.connected && own.epoch == 7);
        assert_eq!(own.ranges().collect::<Vec<_>>(), [(0, 5460), (5462, 5462)]);
        assert_eq!(own.open_slots().collect::<Vec<_>>(), [(93, true, "292f"), (77, false, "e7d1")]);
        let lost = &all["67ed"];
        assert!(
            !lost.is_well()
                && !lost.is_fallen()
                && !lost.connected
                && lost.host.is_empty()
                && lost.replicates == Some("07c3")
        );
        assert!(all["292f"].has("handshake") && all["292f"].bus == 0 && all["292f"].ranges().count() == 0);
    }
}
