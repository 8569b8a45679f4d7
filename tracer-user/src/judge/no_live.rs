//! Which incidents disabled the peers that a `no live upstreams` line misses.

use std::collections::{BTreeMap, VecDeque};

use super::{Entry, Judge, settings};
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Incident};

/// `fail_timeout` unless a `server` says otherwise: for so long a failure counts.
const FAIL_TIMEOUT_NS: u64 = 10_000_000_000;
/// Failures named.
const NAMED: usize = 6;

/// Adds to each such incident the ids of the failures before it.
pub(super) fn name_the_failures(judge: &Judge, incidents: &mut [Incident]) {
    // The last failures of each upstream block in each worker, which counts for itself.
    let mut failures: BTreeMap<(u32, u32, String), VecDeque<(u64, u64)>> = BTreeMap::new();
    for (incident, entry) in incidents.iter_mut().zip(&judge.entries) {
        if incident.cause != Cause::NoLiveUpstreams {
            if let Some(block) = block_of(judge, entry).filter(|_| counts(entry)) {
                let key = (entry.line.master_pid, entry.line.summary.pid, block);
                let last = failures.entry(key).or_default();
                last.push_back((entry.ns(), incident.id));
                if last.len() > NAMED {
                    last.pop_front();
                }
            }
            continue;
        }
        let key = (
            entry.line.master_pid,
            entry.line.summary.pid,
            entry.line.upstream.clone(),
        );
        let since = entry.ns().saturating_sub(FAIL_TIMEOUT_NS);
        let ids: Vec<String> = failures
            .get(&key)
            .into_iter()
            .flatten()
            .filter(|(ns, _)| *ns >= since)
            .map(|(_, id)| format!("#{id}"))
            .collect();
        incident.evidence.push(if ids.is_empty() {
            "no failure of its peers in this worker was seen within the 10 s before; with a \
             `zone`, failures in other workers count too"
                .to_owned()
        } else {
            format!(
                "its peers had failed in this worker within the 10 s before: {}",
                ids.join(", ")
            )
        });
    }
}

/// Does nginx count this against the peer (`ngx_http_upstream_free_round_robin_peer`)?
fn counts(entry: &Entry) -> bool {
    !matches!(
        entry.line.kind,
        MessageKind::ClientClosed | MessageKind::Resources | MessageKind::NotResolved
    )
}

fn block_of(judge: &Judge, entry: &Entry) -> Option<String> {
    let master = entry.line.master_pid;
    let nginx = judge.generations.of(master, entry.pid, entry.ns())?;
    let configuration = nginx.configuration.as_ref()?;
    settings::block_of(configuration, Some(entry.line.peer?), "").map(|block| block.name.clone())
}
