//! What became of the search for a line's connection.

use std::rc::Rc;

use crate::trace::record::Connection;

/// How a line's search for its socket ended.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    /// The line was seen being written, and it is this connection.
    Found(Rc<Connection>),
    /// The same, if a call of nginx's on it was missed, which is not known yet.
    Assumed(Rc<Connection>),
    /// It was not, and this connection is where its place in the order puts it.
    Aligned(Aligned),
    /// The message speaks of no socket, or of one without a TCP connection.
    NoneByNature(&'static str),
    /// There should be one.
    Missing(&'static str),
}

/// A connection that a line was given by its order.
#[derive(Clone, Debug)]
pub(super) struct Aligned {
    pub(super) connection: Rc<Connection>,
    /// Connections that it may be, this one included.
    pub(super) candidates: u32,
    /// No other alignment of the worker's lines and closes is about as good.
    pub(super) ordered: bool,
    /// No other connection, and no other line, comes into question in any order.
    pub(super) forced: bool,
    /// It shows what the line reports only because calls of nginx's were missed then.
    pub(super) end_not_met: bool,
}

impl Socket {
    pub(super) const fn connection(&self) -> Option<&Rc<Connection>> {
        match self {
            Self::Found(connection) => Some(connection),
            Self::Aligned(aligned) => Some(&aligned.connection),
            Self::Assumed(_) | Self::NoneByNature(_) | Self::Missing(_) => None,
        }
    }
}
