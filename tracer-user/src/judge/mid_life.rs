//! What is not known of a connection that was open before the capture began. Its record
//! says when it was taken over instead of when it was opened, and one exchange stands for
//! all that there were before (`trace/record.rs`).

use super::end::peer_end_ns;
use crate::trace::record::Connection;

/// Did its last request begin before the capture, so that the request's size and start
/// are not known?
pub(super) fn request_began_before(connection: &Connection) -> bool {
    connection.first_seen_mid_life
        && connection
            .request_started_ns
            .is_some_and(|started| started <= connection.opened_ns)
}

/// Had the backend's FIN come before the capture, so that its time is not known?
pub(super) fn ended_before(connection: &Connection) -> bool {
    connection.first_seen_mid_life
        && peer_end_ns(connection).is_some_and(|end| end <= connection.opened_ns)
}
