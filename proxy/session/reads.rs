//! Reads from replicas, for a client that wants them.
//!
//! A client finds at a replica what it has written itself: after a write it reads from the primary until the replica has
//! that write ([`crate::cluster::replication`]). And its requests keep their order: whatever else it sends waits until
//! its reads at replicas are answered, since a write must not show in a read that was sent ahead of it.

use std::{collections::HashMap, rc::Rc, time::Instant};

use super::{
    caller::Caller,
    dispatch::{Dispatcher, Flow},
    fan_out::{parts_of, send_part},
};
use crate::{
    cluster::{
        replication::{Read, ReadFrom},
        topology::Route,
    },
    commands::{
        plan::{self, Plan},
        table::Spec,
    },
    protocol::{resp::Request, slot::Slot},
    upstream::{
        dial::Login,
        router::Lane,
        ticket::{Clock, Line},
    },
};

/// Slots whose writes are remembered one by one; beyond that the last write counts for all.
const MOST_SLOTS: usize = 256;

/// What a session knows of its reads and writes.
pub(super) struct Reads {
    from: ReadFrom,
    /// The lane by which replicas are read, and the one that it goes with.
    lane: Option<(Rc<Lane>, Rc<Lane>)>,
    /// The last request that went to a replica.
    last: Option<u64>,
    /// The last writes by slot, and the last one that may be about any.
    written: HashMap<Slot, Write>,
    written_anywhere: Option<Write>,
}

/// A write: its place in the line, and when it was first seen to have been answered.
#[derive(Clone, Copy, Debug)]
struct Write {
    place: u64,
    answered: Option<Instant>,
}

/// What becomes of a request, as far as replicas are concerned.
pub(super) enum ReadWay {
    /// The request goes to a replica.
    Replica(Rc<Lane>, Route),
    /// The request goes in parts, by slot: those with a route to replicas, the others as they would.
    Parts(Rc<Lane>, Vec<Option<Route>>),
    /// The request goes where it would.
    AsEver,
    /// The request waits until the reads at replicas are answered.
    Waits,
}

impl Reads {
    /// The state of a client that reads `from` replicas; `None` where it reads from primaries.
    pub(super) fn from(caller: &Caller, from: ReadFrom) -> Option<Box<Reads>> {
        if from == ReadFrom::Primary || caller.router.settings().strict_order.get() {
            return None;
        }
        caller.router.watch_replicas();
        // What it may have written before is not known.
        let before = caller.line.next().checked_sub(1).map(|place| Write { place, answered: None });
        Some(Box::new(Reads { from, lane: None, last: None, written: HashMap::new(), written_anywhere: before }))
    }

    /// As [`Reads::from`], by the client's choice, or else the operator's.
    pub(super) fn as_chosen(caller: &Caller, chosen: Option<ReadFrom>) -> Option<Box<Reads>> {
        Reads::from(caller, chosen.unwrap_or(caller.router.settings().reads.borrow().from))
    }

    /// What becomes of a request; `alone` says that its session has asked for something that only the primary can do
    /// (WATCH, tracking).
    pub(super) fn way(&mut self, caller: &Caller, plan: &Plan, spec: Option<&Spec>, alone: bool) -> ReadWay {
        let reads = |columns: fn(&Spec) -> bool| !alone && spec.is_some_and(columns);
        let slot = plan.one_slot();
        if let Some(slot) = slot.filter(|_| reads(Spec::reads_one_key)) {
            return self.replica(caller, slot).map_or(ReadWay::AsEver, |(lane, route)| ReadWay::Replica(lane, route));
        }
        if reads(Spec::reads_key_by_key) {
            if let Some(slot) = slot {
                return self.parts(caller, [slot].into_iter());
            }
            if let Plan::Split(split) = plan {
                return self.parts(caller, split.parts.iter().map(|part| part.slot));
            }
        }
        if self.is_under_way(&caller.line) {
            return ReadWay::Waits;
        }
        self.note(plan, spec, &caller.line);
        ReadWay::AsEver
    }

    fn parts(&mut self, caller: &Caller, slots: impl Iterator<Item = Slot>) -> ReadWay {
        let mut any = None;
        let routes = slots.map(|slot| {
            let (lane, route) = self.replica(caller, slot)?;
            any = Some(lane);
            Some(route)
        });
        let routes: Vec<Option<Route>> = routes.collect();
        any.map_or(ReadWay::AsEver, |lane| ReadWay::Parts(lane, routes))
    }

    /// The replica that a read of the slot goes to, and the lane by which; `None` where that is the primary.
    fn replica(&mut self, caller: &Caller, slot: Slot) -> Option<(Rc<Lane>, Route)> {
        let written = self.written(slot, &caller.line, caller.router.clock()).ok()?;
        let now = caller.router.clock().now();
        let lane = self.lane(caller);
        let read = Read { slot, from: self.from, written, now };
        let route = lane.replica_for(&caller.router, &read, caller.affinity)?;
        self.last = Some(caller.line.next());
        // That this replica has the write tells nothing of others. One that lags behind a write of so long ago answers nobody.
        let most = caller.router.settings().reads.borrow().max_lag;
        if written.is_some_and(|written| now.saturating_duration_since(written) > most) {
            self.written.remove(&slot);
        }
        Some((lane, route))
    }

    fn is_under_way(&self, line: &Line) -> bool {
        !line.is_settled() && self.last.is_some_and(|last| line.front() <= last)
    }

    /// The lane for replicas that goes with the client's present one.
    fn lane(&mut self, caller: &Caller) -> Rc<Lane> {
        match &self.lane {
            Some((lane, with)) if Rc::ptr_eq(with, &caller.lane) => lane.clone(),
            _ => {
                let lane = caller.router.lane(&Login { readonly: true, ..caller.lane.login().clone() });
                self.lane = Some((lane.clone(), caller.lane.clone()));
                lane
            }
        }
    }

    /// Takes note of what may write.
    fn note(&mut self, plan: &Plan, spec: Option<&Spec>, line: &Line) {
        let write = Write { place: line.next(), answered: None };
        if !plan.may_write() || spec.is_some_and(Spec::is_readonly) {
            return;
        }
        match plan.one_slot() {
            Some(slot) if self.written.len() < MOST_SLOTS || self.written.contains_key(&slot) => {
                self.written.insert(slot, write);
            }
            Some(_) | None => {
                self.written.clear();
                self.written_anywhere = Some(write);
            }
        }
    }

    /// When the last write that may be about a slot was answered; an error while one is not.
    fn written(&mut self, slot: Slot, line: &Line, clock: &Clock) -> Result<Option<Instant>, ()> {
        let front = if line.is_settled() { u64::MAX } else { line.front() };
        let mut last = None;
        for write in self.written.get_mut(&slot).into_iter().chain(&mut self.written_anywhere) {
            if write.place >= front {
                return Err(());
            }
            // Read anew: on a connection of a client's own nobody has, and a time ahead of the answer would prove nothing.
            last = last.max(Some(*write.answered.get_or_insert_with(|| clock.tick())));
        }
        Ok(last)
    }
}

impl Dispatcher {
    /// Sends what only reads to a replica.
    pub(super) fn read_at_replica(
        &mut self,
        lane: &Lane,
        route: Route,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) -> Flow {
        let envelope = self.open(request, spec, route);
        self.caller.router.tally().read_at_replica();
        lane.send(&self.caller.router, self.caller.affinity, request.frame(), envelope);
        Flow::Taken
    }

    /// Sends what only reads key by key in parts, those with a route to a replica.
    pub(super) fn read_parts_at_replicas(
        &mut self,
        lane: &Lane,
        routes: &[Option<Route>],
        plan: Plan,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) -> Flow {
        let split = if let Plan::Split(split) = plan {
            split
        } else if let Some(split) = spec.and_then(|spec| plan::one_part(request, spec)) {
            // Keys of one slot are one part: where one is missing at the replica, the primary is asked for all of them.
            Rc::new(split)
        } else {
            return self.carry_out(plan, request, spec);
        };
        let envelope = self.open_split(request, spec);
        let mut frame = Vec::new();
        let parts = parts_of(&self.caller, request, spec, &split, envelope).into_iter().enumerate();
        for ((index, mut envelope), route) in parts.zip(routes) {
            envelope.traits.keys = split.keys_of(index).len() as u32;
            match route {
                Some(route) => {
                    frame.clear();
                    split.encode(index, request, &mut frame);
                    envelope.route = *route;
                    self.caller.router.tally().read_at_replica();
                    lane.send(&self.caller.router, self.caller.affinity, &frame, envelope);
                }
                None => {
                    self.barrier.guard(&self.caller.router, spec, Route::Slot(split.parts[index].slot));
                    send_part(&self.caller, &split, index, request, envelope, &mut frame);
                }
            }
        }
        Flow::Taken
    }

    /// What becomes of a request, as far as replicas are concerned.
    #[inline]
    pub(super) fn way_to_read(&mut self, plan: &Plan, spec: Option<&Spec>) -> ReadWay {
        let Some(reads) = &mut self.reads else { return ReadWay::AsEver };
        let alone = self.multi.is_open() || self.multi.watch.is_some() || self.listening.tracking.is_some();
        reads.way(&self.caller, plan, spec, alone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cluster::{
            replication::{CaughtUp, Progress, Replication},
            topology::{Node, Role},
        },
        upstream::router::scripted::{Scripted, within_a_minute},
    };

    /// A client of one primary and its replica.
    fn caller(nodes: &Scripted) -> Caller {
        let topology = nodes.topology.borrow().clone();
        let primary = &topology.nodes[0];
        let replica =
            Node { role: Role::Replica, replicates: Some(primary.id.clone()), ..(*topology.nodes[1]).clone() };
        let slots = Box::new([0; 16384]);
        let layout = vec![primary.clone(), replica.into()];
        let shard = topology.with_layout(layout, slots);
        nodes.topology.send_replace(shard.into());
        nodes.router.refresh();
        Caller::of(nodes)
    }

    fn note(nodes: &Scripted, with: Instant) {
        let mut known = Replication::default();
        let id = nodes.topology.borrow().nodes[1].id.as_str().into();
        known.note(&id, Progress { caught_up: CaughtUp::With(with), round_trip: Duration::ZERO });
        nodes.progress.send_replace(known.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_read_from_the_primary_until_the_replica_has_it() {
        within_a_minute(async {
            let nodes = Scripted::new(2);
            let caller = caller(&nodes);
            let table = caller.router.topology().commands.clone();
            let (get, set) = (table.named(b"get", b""), table.named(b"set", b""));
            let (mget, sinter, touch) =
                (table.named(b"mget", b""), table.named(b"sinter", b""), table.named(b"touch", b""));
            let mut reads = Reads::from(&caller, ReadFrom::Replica).expect("it reads from replicas");
            let plan = Plan::One(Slot::of(b"foo"));
            let now = |reads: &mut Reads, spec, alone| match reads.way(&caller, &plan, spec, alone) {
                ReadWay::Replica(..) => "replica",
                ReadWay::Parts(_, routes) => {
                    if routes.len() == 1 {
                        "one part"
                    } else {
                        "parts"
                    }
                }
                ReadWay::AsEver => "as ever",
                ReadWay::Waits => "waits",
            };
            let start = caller.router.clock().now();
            assert_eq!(now(&mut reads, get, false), "as ever", "nobody knows how far the replica is");
            note(&nodes, start);
            assert_eq!(now(&mut reads, get, true), "as ever", "it watches, or tracks");
            assert_eq!(now(&mut reads, mget, true), "as ever");
            assert_eq!(now(&mut reads, sinter, false), "as ever", "nothing tells what of it is missing");
            assert_eq!(now(&mut reads, touch, false), "as ever");
            let place = |route| caller.line.open(None, 1, route);
            assert_eq!(now(&mut reads, get, false), "replica");
            let read = place(Route::Replica(Slot::of(b"foo"), 1));
            assert_eq!(now(&mut reads, get, false), "replica", "reads do not wait for each other");
            let other = place(Route::Replica(Slot::of(b"foo"), 1));
            assert_eq!(now(&mut reads, set, false), "waits", "the read could find it");
            assert_eq!(now(&mut reads, mget, false), "one part");
            read.fill(b"$-1\r\n");
            assert_eq!(now(&mut reads, set, false), "waits");
            other.fill(b"$-1\r\n");
            assert_eq!(now(&mut reads, set, false), "as ever");
            let write = place(Route::Slot(Slot::of(b"foo")));
            assert_eq!(now(&mut reads, get, false), "as ever", "it is not answered yet");
            drop(place(Route::Slot(Slot::of(b"foo"))));
            write.fill(b"+OK\r\n");
            tokio::time::advance(Duration::from_secs(1)).await;
            let answered = caller.router.clock().tick();
            assert_eq!(now(&mut reads, get, false), "as ever", "the replica has not got it");
            note(&nodes, answered - Duration::from_millis(1));
            assert_eq!(now(&mut reads, get, false), "as ever");
            note(&nodes, answered);
            assert_eq!(now(&mut reads, get, false), "replica");
        })
        .await;
    }
}
