//! As `stale`, with the backend on another machine: nothing of its side is seen.

use std::sync::Arc;

use super::stale::raced;
use crate::netns::Namespace;
use crate::scenario::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "remote_stale",
    description: "idle timeout shorter than nginx's, of a backend on another machine",
    alone: false,
    prepare: |draw| {
        let namespace = Arc::new(Namespace::create()?);
        let address = draw.one_of(&[namespace.ipv4(), namespace.ipv6()]);
        raced("remote_stale", draw, |habits| {
            namespace.remote_backend(address, habits)
        })
    },
};
