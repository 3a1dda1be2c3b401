//! Which commands answer with what is stored: their replies are as long as that is.

use super::{spec::Spec, treatment::Treatment};

/// Commands that write and answer with what was there, and with how many arguments at least, the name included.
const WRITES: &[(&str, usize)] = &[
    ("getdel", 2),
    ("getex", 2),
    ("getset", 3),
    ("hgetdel", 5),
    ("hgetex", 5),
    ("lmove", 5),
    ("lmpop", 4),
    ("lpop", 2),
    ("rpop", 2),
    ("rpoplpush", 3),
    ("set", 4),
    ("sort", 2),
    ("spop", 2),
    ("xautoclaim", 6),
    ("xclaim", 6),
    ("xreadgroup", 7),
    ("zmpop", 4),
    ("zpopmax", 2),
    ("zpopmin", 2),
];

/// From how many arguments on its reply may be long; `None`: it never is.
pub(super) fn long_from(spec: &Spec) -> Option<usize> {
    let is_script = matches!(spec.treatment, Treatment::Scripting(which) if which.runs());
    // What commands of modules answer is not known.
    if is_script || spec.is_readonly() || spec.name.contains('.') {
        return Some(0);
    }
    WRITES.iter().find(|(name, _)| *name == &*spec.name).map(|(_, least)| *least)
}
