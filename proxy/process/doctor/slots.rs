//! Does every slot have one owner, of whom all nodes think alike?

use std::collections::BTreeMap;

use super::{Report, exam::Exam, some_of};
use crate::{
    cluster::topology::NOBODY,
    protocol::{names::Name, slot::SLOTS},
};

const SLOTS_TOPIC: &str = "slots";

pub fn judge(exam: &Exam, report: &mut Report) {
    uncovered(exam, report);
    claimed_twice(exam, report);
    open(exam, report);
    if !report.complains_of(SLOTS_TOPIC) {
        report.ok(SLOTS_TOPIC, format!("all {SLOTS} slots have one owner"));
    }
}

fn uncovered(exam: &Exam, report: &mut Report) {
    let Some(view) = &exam.view else { return };
    let bare: Vec<usize> = (0..SLOTS).filter(|&slot| view.slots[slot] == NOBODY).collect();
    if bare.is_empty() || bare.len() == SLOTS {
        return;
    }
    report.problem(
        SLOTS_TOPIC,
        Name::Slots,
        format!("{} of {SLOTS} slots have no owner: {}", bare.len(), ranges(&bare)),
        format!(
            "if the node that had them will not come back, give them to others (what was in them is lost):  \
             redis-cli --cluster fix {}",
            anyone(exam)
        ),
    );
}

/// Slots that several nodes take for their own, and slots of which the nodes think differently.
fn claimed_twice(exam: &Exam, report: &mut Report) {
    let mut claims: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (member, chart) in exam.charts() {
        let own = chart.own();
        for slot in own.iter().flat_map(|own| own.ranges()).flat_map(|(first, last)| first..=last.min(SLOTS - 1)) {
            claims.entry(slot).or_default().push(member.found.announced.to_string());
        }
    }
    let mut rivals: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
    for (slot, by) in claims.into_iter().filter(|(_, by)| by.len() > 1) {
        rivals.entry(by).or_default().push(slot);
    }
    for (by, slots) in &rivals {
        report.problem(
            SLOTS_TOPIC,
            Name::Slots,
            format!("{} all own {}, as they see it", by.join(" and "), ranges(slots)),
            format!(
                "they agree by themselves within seconds where they are in touch; else:  redis-cli --cluster fix {}",
                anyone(exam)
            ),
        );
    }
    if rivals.is_empty() {
        disputed(exam, report);
    }
}

fn disputed(exam: &Exam, report: &mut Report) {
    let Some(view) = &exam.view else { return };
    for (member, chart) in exam.charts() {
        let Ok(theirs) = &chart.view else { continue };
        let owner = |view: &crate::cluster::topology::View, slot: usize| {
            view.seen.get(usize::from(view.slots[slot])).map(|seen| seen.id.clone())
        };
        let other: Vec<usize> = (0..SLOTS).filter(|&slot| owner(view, slot) != owner(theirs, slot)).collect();
        if !other.is_empty() && other.len() < SLOTS {
            report.warning(
                SLOTS_TOPIC,
                Name::Slots,
                format!("{} knows other owners than the rest for {}", member.found.announced, ranges(&other)),
                "while slots move it takes a second until all know; where it stays so, that node is cut off from the \
                 others: see the bus port",
            );
        }
    }
}

/// Slots between two nodes.
fn open(exam: &Exam, report: &mut Report) {
    let mut moves: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (member, chart) in exam.charts() {
        let here = member.found.announced.to_string();
        let own = chart.own();
        for (slot, gives, other) in own.iter().flat_map(|own| own.open_slots()) {
            let pair = if gives { (here.clone(), exam.name(other)) } else { (exam.name(other), here.clone()) };
            let slots = moves.entry(pair).or_default();
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
    }
    for ((from, to), slots) in &mut moves {
        slots.sort_unstable();
        report.warning(
            SLOTS_TOPIC,
            Name::OpenSlots,
            format!("open, on the way from {from} to {to}: {}", ranges(slots)),
            format!("unless somebody is just moving them, finish it:  redis-cli --cluster fix {}", anyone(exam)),
        );
    }
}

/// A node that answers.
fn anyone(exam: &Exam) -> String {
    exam.charts().next().map_or("HOST:PORT".to_owned(), |(_, chart)| chart.at.to_string())
}

/// `slots 1-3, 7`.
fn ranges(slots: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &slot in slots {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => runs.push((slot, slot)),
        }
    }
    let runs: Vec<String> = runs
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    format!("{} {}", if slots.len() == 1 { "slot" } else { "slots" }, some_of(&runs))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_are_short() {
        assert_eq!(super::ranges(&[7]), "slot 7");
        assert_eq!(super::ranges(&[1, 2, 3, 7, 9, 10]), "slots 1-3, 7, 9-10");
        let many: Vec<usize> = (0..20).map(|n| n * 2).collect();
        assert_eq!(super::ranges(&many), "slots 0, 2, 4, 6, 8 and 15 more");
    }
}
