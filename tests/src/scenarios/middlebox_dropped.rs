//! A middlebox forgets idle connections and drops what comes on an idle connection, both ways.

use crate::netns::Forgotten;
use crate::scenario::{Forgetful, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "middlebox_dropped",
    description: "a middlebox drops what comes on an idle connection, both ways",
    alone: false,
    prepare: |draw| {
        let part = Forgetful::prepare("middlebox_dropped", Forgotten::Dropped, draw)?;
        Ok(Box::new(part))
    },
};
