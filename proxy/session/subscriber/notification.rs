//! Keyspace notifications, by the names of their channels.

use super::TopicKind;

/// How the channels of keyspace notifications begin.
const NOTIFICATIONS: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];

/// Whether a message on this channel is one.
pub fn is_notification(channel: &[u8]) -> bool {
    NOTIFICATIONS.iter().any(|start| channel.starts_with(start))
}

/// Whether keyspace notifications can come on this channel or pattern.
pub fn may_be_notified(kind: TopicKind, name: &[u8]) -> bool {
    if kind == TopicKind::Channel {
        return is_notification(name);
    }
    let literal = name.iter().position(|byte| b"*?[\\".contains(byte)).map_or(name, |end| &name[..end]);
    literal.len() == name.len() && is_notification(name)
        || literal.len() < name.len()
            && NOTIFICATIONS.iter().any(|start| start.starts_with(literal) || literal.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_recognised() {
        for (kind, name, expected) in [
            (TopicKind::Channel, "__keyspace@0__:a", true),
            (TopicKind::Channel, "news", false),
            (TopicKind::Pattern, "*", true),
            (TopicKind::Pattern, "__key*__:*", true),
            (TopicKind::Pattern, "__keyevent@0__:expired", true),
            (TopicKind::Pattern, "__keyevent@0__:*", true),
            (TopicKind::Pattern, "_?keyevent@0__:*", true),
            (TopicKind::Pattern, "__", false),
            (TopicKind::Pattern, "news.*", false),
            (TopicKind::Pattern, "[_n]*", true),
        ] {
            assert_eq!(may_be_notified(kind, name.as_bytes()), expected, "{name}");
        }
    }
}
