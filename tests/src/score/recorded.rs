//! What the lab itself recorded of one run: all that a score holds a report against.

use serde::{Deserialize, Serialize};

use super::{Carried, LogLine};
use crate::act::{Act, Constant};

/// One run's records. None of them is the tool's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recorded {
    /// What happened, each with the name of its scenario.
    pub acts: Vec<(String, Act)>,
    /// What backends were configured with.
    pub constants: Vec<(String, Constant)>,
    /// Lines of nginx's log that report a failed attempt.
    pub log: Vec<LogLine>,
    /// Requests of failed attempts, as they were on the wire.
    pub wire: Vec<Carried>,
    /// Good requests beside.
    pub traffic: Option<Traffic>,
    /// The capture saw no line being written: it may miss some connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_uprobe: bool,
    /// The kernel may skip runs of the programs: what is lost of that kind is no failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub runs_may_be_missed: bool,
}

impl Recorded {
    /// The same without normal acts, of which there may be thousands: an incident about
    /// one of them has then no act at all behind it and is as false.
    #[must_use]
    pub fn without_normal_acts(&self) -> Self {
        let mut fewer = self.clone();
        fewer.acts.retain(|(_, act)| act.expected.is_some());
        fewer
    }
}

/// Good requests that went through the same nginx to upstreams without faults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Answered in full with status 200.
    pub answered: u64,
    /// The others.
    pub failed: u64,
    /// From the first one sent to the last one answered.
    pub seconds: f64,
    /// How some of the others failed, in words.
    pub failures: Vec<String>,
}

impl Traffic {
    /// Good answers a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 {
            f64::from(u32::try_from(self.answered).unwrap_or(u32::MAX)) / self.seconds
        } else {
            0.0
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.seconds += other.seconds;
        self.failures.extend(other.failures);
    }
}
