//! The way of a request to a node: its reply gets a place in the line, and its envelope says what it is.

use super::{Dispatcher, Flow};
use crate::{
    cluster::topology::Route,
    commands::{
        plan,
        table::{Keys, Spec},
    },
    metrics::hot::Sample,
    protocol::{resp::Request, slot::Slot},
    session::caller::Caller,
    upstream::ticket::{Envelope, Label, Needs, RequestTraits},
};

impl Dispatcher {
    /// Sends a request on as it came.
    pub(in crate::session) fn forward(&mut self, request: &Request<'_>, spec: Option<&Spec>, route: Route) -> Flow {
        if self.caller.router.tally().sampler.is_due() {
            sample(&self.caller, request, spec);
        }
        let envelope = self.open(request, spec, route);
        self.barrier.guard(&self.caller.router, spec, route);
        self.caller.send(request.frame(), envelope);
        Flow::Taken
    }

    /// Opens the place of a request's reply, and says what the request is.
    pub(in crate::session) fn open(&mut self, request: &Request<'_>, spec: Option<&Spec>, route: Route) -> Envelope {
        self.open_as(self.caller.said().unwrap_or_else(|| Label::of(spec)), request, spec, route)
    }

    /// As [`Dispatcher::open`], for a request that goes in parts.
    pub(in crate::session) fn open_split(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Envelope {
        self.open_as(Label::of(spec).in_parts(), request, spec, Route::Any)
    }

    #[inline]
    fn open_as(&mut self, label: Label, request: &Request<'_>, spec: Option<&Spec>, route: Route) -> Envelope {
        let ticket = self.open_place(label, request.frame().len(), route);
        let traits = RequestTraits {
            repeatable: spec.is_some_and(Spec::is_readonly),
            writes: spec.is_none_or(|spec| spec.is_write() || !spec.is_readonly() && spec.has_keys()),
            exclusive: spec.is_some_and(|spec| plan::is_echoed(request, spec)),
            unknown: spec.is_none(),
            caching: self.listening.caching(),
            needs: Needs::default(),
            keys: 0,
        };
        let mut envelope = Envelope::new(ticket, route, traits);
        if self.front.has_place() {
            envelope.hold(self.front.take_place());
        }
        envelope
    }
}

/// Counts one of a request's keys as asked for, for all requests since the last one that was.
#[cold]
pub(super) fn sample(caller: &Caller, request: &Request<'_>, spec: Option<&Spec>) {
    let sampler = &caller.router.tally().sampler;
    let mut keys = Vec::new();
    let known = spec.is_some_and(|spec| spec.keys_of(request, &mut keys) == Keys::Known);
    let chosen = if known && !keys.is_empty() { keys.get(sampler.random() % keys.len()) } else { None };
    let sample = chosen.and_then(|at| request.get(*at)).zip(spec).map(|(key, spec)| Sample {
        key,
        keys: keys.len(),
        slot: Slot::of(key),
        writes: spec.is_write(),
        command: spec.metric,
    });
    sampler.take(sample);
}
