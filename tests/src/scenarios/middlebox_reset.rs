//! A middlebox forgets idle connections and answers requests on idle connections with an RST.

use crate::netns::Forgotten;
use crate::scenario::{Forgetful, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "middlebox_reset",
    description: "a middlebox answers requests on idle connections with an RST",
    alone: false,
    prepare: |draw| {
        let part = Forgetful::prepare("middlebox_reset", Forgotten::Reset, draw)?;
        Ok(Box::new(part))
    },
};
