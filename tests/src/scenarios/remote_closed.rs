//! As `closed`, with the backend on another machine: nothing of its side is seen.

use std::sync::Arc;

use super::closed::told;
use crate::backend::Habits;
use crate::netns::Namespace;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "remote_closed",
    description: "requests that are closed or reset without an answer, by a backend on another machine",
    alone: false,
    prepare: |draw| {
        let namespace = Arc::new(Namespace::create()?);
        let address = draw.one_of(&[namespace.ipv4(), namespace.ipv6()]);
        let backend = namespace.remote_backend(address, Habits::default())?;
        told("remote_closed", draw, backend)
    },
};
