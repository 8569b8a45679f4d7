//! A middlebox before a namespace: it forgets connections.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;

use super::Namespace;

/// What it does with segments of a connection that it has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It drops them, in both directions.
    Dropped,
    /// It answers nginx's with an RST, and the backend hears nothing of that.
    Reset,
    /// It answers nginx's by saying that the host is unreachable.
    Unreachable,
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dropped => "dropped",
            Self::Reset => "reset",
            Self::Unreachable => "called unreachable",
        })
    }
}

/// One that has forgotten nothing so far. It stands on the namespace's side of the pair.
#[derive(Debug)]
pub struct Middlebox(Arc<Namespace>);

impl Middlebox {
    /// Puts one before the namespace, which has none yet.
    ///
    /// # Errors
    /// If nft refuses its rules.
    pub fn before(namespace: &Arc<Namespace>) -> Result<Self> {
        // Dropped before addresses are translated. An RST may only be made where a
        // segment has found its way.
        namespace.filter(
            "table inet middlebox {
                set silenced { type inet_service; }
                set refused { type inet_service; }
                set unreachable { type inet_service; }
                chain arriving {
                    type filter hook prerouting priority raw
                    tcp sport @silenced drop
                }
                chain leaving {
                    type filter hook output priority raw
                    tcp dport @silenced drop
                }
                chain delivered {
                    type filter hook input priority filter
                    tcp sport @refused reject with tcp reset
                    tcp sport @unreachable reject with icmpx type host-unreachable
                }
            }",
        )?;
        Ok(Self(Arc::clone(namespace)))
    }

    /// Forgets the connections with these ends of nginx's.
    ///
    /// # Errors
    /// If nft refuses that.
    pub fn forget(&self, ends: &[SocketAddr], how: Forgotten) -> Result<()> {
        let ports: Vec<_> = ends.iter().map(|end| end.port().to_string()).collect();
        let ports = ports.join(", ");
        let set = match how {
            Forgotten::Dropped => "silenced",
            Forgotten::Reset => "refused",
            Forgotten::Unreachable => "unreachable",
        };
        self.0
            .filter(&format!("add element inet middlebox {set} {{ {ports} }}"))
    }
}
