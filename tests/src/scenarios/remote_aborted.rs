//! As `aborted`, with the backend on another machine: nothing of its side is seen.

use std::sync::Arc;

use super::aborted::told;
use crate::backend::Habits;
use crate::netns::Namespace;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "remote_aborted",
    description: "responses that are closed or reset half-way, by a backend on another machine",
    alone: false,
    prepare: |draw| {
        let namespace = Arc::new(Namespace::create()?);
        let address = draw.one_of(&[namespace.ipv4(), namespace.ipv6()]);
        let backend = namespace.remote_backend(address, Habits::default())?;
        told("remote_aborted", draw, backend)
    },
};
