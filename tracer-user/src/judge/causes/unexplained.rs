//! `unexplained`: no cause is established. Says what is known and what is missing.

use super::{Case, Verdict, how_it_ended, in_flight, reuse, sentences};
use crate::judge::fitting::ANOTHERS;
use crate::judge::socket::Socket;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence};
use crate::report::words::counted;

pub(super) fn decide(case: &Case<'_>) -> Verdict {
    let missing = match case.socket {
        Socket::Found(_) | Socket::Aligned(_) => None,
        Socket::NoneByNature(why) => Some(format!("there is no connection to look at: {why}")),
        Socket::Assumed(_) => Some(format!(
            "the connection of this line is not known: {ANOTHERS}"
        )),
        Socket::Missing(why) => Some(format!("the connection of this line is not known: {why}")),
    };
    Verdict {
        cause: Cause::Unexplained,
        confidence: Confidence::Possible,
        evidence: sentences([
            how_it_ended(case),
            in_flight(case),
            early_answer(case),
            reuse(case),
            missing,
        ]),
        advice: None,
    }
}

/// A backend may answer, say 413, while nginx still sends, and reset the connection for
/// the rest of the request that it leaves unread; nginx's write then fails first.
fn early_answer(case: &Case<'_>) -> Option<String> {
    let unread = case.connection()?.unread_at_end?;
    (case.line.kind == MessageKind::SendFailed).then(|| {
        format!(
            "{} from the backend had not been read: it may have answered early and left the \
             rest of the request",
            counted(u64::from(unread), "byte", "bytes")
        )
    })
}
