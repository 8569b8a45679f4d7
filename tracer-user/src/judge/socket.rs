//! What became of the search for a line's connection.

use std::rc::Rc;

use crate::trace::record::Connection;

/// How a line's search for its socket ended.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    /// It is this connection.
    Found(Rc<Connection>),
    /// The message speaks of no socket, or of one without a TCP connection.
    NoneByNature(&'static str),
    /// There should be one.
    Missing(&'static str),
}
