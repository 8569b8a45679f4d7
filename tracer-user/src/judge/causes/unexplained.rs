//! `unexplained`: no cause is established. Says what is known and what is missing.

use super::{Case, Verdict, how_it_ended, in_flight, reuse, sentences};
use crate::judge::workers::Socket;
use crate::report::model::{Cause, Confidence};

pub(super) fn decide(case: &Case<'_>) -> Verdict {
    let missing = match case.socket {
        Socket::Found(_) => None,
        Socket::NoneByNature(why) => Some(format!("there is no connection to look at: {why}")),
        Socket::Missing(why) => Some(format!("the connection of this line is not known: {why}")),
    };
    Verdict {
        cause: Cause::Unexplained,
        confidence: Confidence::Possible,
        evidence: sentences([how_it_ended(case), in_flight(case), reuse(case), missing]),
        advice: None,
    }
}
