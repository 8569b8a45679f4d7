//! The uprobes, once for each binary of nginx's that is watched, and what to say where
//! there are none.

use std::collections::HashMap;

use anyhow::Result;

use super::host::{Host, Watched};
use super::programs::{HANDSHAKE_FUNCTION, LOG_FUNCTION, Programs};
use crate::trace::record::Hook;

const WITHOUT_LINES: &str = "lines are matched to connections by their order, which is less sure";
const WITHOUT_HANDSHAKES: &str =
    "requests to upstreams over TLS cannot be told from handshakes and are not counted";

/// Attaches them. Tells for each instance whether its log calls are seen.
///
/// # Errors
/// If the binary of an instance cannot be told from others.
pub(super) fn attach(host: &Host, programs: &mut Programs, left_out: bool) -> Result<Vec<bool>> {
    if !left_out {
        programs.load_uprobes();
    }
    let mut attached = HashMap::new();
    let mut seen = Vec::new();
    for watched in &host.watched {
        let identity = watched.binary_identity()?;
        if let Some(known) = attached.get(&identity) {
            seen.push(*known);
            continue;
        }
        let log_calls = attach_to(watched, programs, left_out);
        attached.insert(identity, log_calls);
        seen.push(log_calls);
    }
    Ok(seen)
}

/// Attaches them to the binary of an instance that came later, unless another runs it
/// already. Tells whether its log calls are seen.
pub(super) fn attach_later(
    host: &Host,
    index: usize,
    programs: &mut Programs,
    wanted: bool,
) -> bool {
    let Some(watched) = host.watched.get(index) else {
        return false;
    };
    let identity = watched.binary_identity().ok();
    // Attached twice it would see each line twice; one whose master has ended stays.
    let same = host
        .watched
        .iter()
        .take(index)
        .find(|known| identity.is_some() && known.binary_identity().ok() == identity);
    match same {
        Some(known) => known.sees_log_calls(),
        None => attach_to(watched, programs, !wanted),
    }
}

fn attach_to(watched: &Watched, programs: &mut Programs, left_out: bool) -> bool {
    let binary = &watched.instance.binary;
    let exe = &watched.instance.exe;
    let (log_call, handshake) = if left_out {
        let why = || anyhow::anyhow!("left out by --no-uprobe");
        (Err(why()), Err(why()))
    } else if watched.binary.exports_log_function {
        (
            programs.attach_log_call(exe),
            programs.attach_handshake(exe),
        )
    } else {
        let why = format!("the binary exports no {LOG_FUNCTION}");
        (Err(anyhow::anyhow!(why)), programs.attach_handshake(exe))
    };
    let seen = log_call.is_ok();
    if let (Err(error), Err(_)) = (&log_call, &handshake) {
        // One reason for both, told once.
        programs.hooks.push(Hook {
            name: format!("{LOG_FUNCTION} and {HANDSHAKE_FUNCTION} in {binary}"),
            attached: false,
            by: None,
            reason: Some(format!(
                "{error:#}; without them {WITHOUT_LINES}, and {WITHOUT_HANDSHAKES}"
            )),
        });
        return false;
    }
    let (by, no_links) = match programs.instead_of_links() {
        Some((by, no_links)) => (Some(by.to_owned()), Some(no_links.to_owned())),
        None => (None, None),
    };
    for (function, result, without) in [
        (LOG_FUNCTION, log_call, WITHOUT_LINES),
        (HANDSHAKE_FUNCTION, handshake, WITHOUT_HANDSHAKES),
    ] {
        let refused = result.err();
        let attached = refused.is_none();
        let refused = refused.map(|error| format!("{error:#}; without it {without}"));
        programs.hooks.push(Hook {
            name: format!("{function} in {binary}"),
            attached,
            by: by.clone().filter(|_| attached),
            reason: refused.or_else(|| no_links.clone()),
        });
    }
    seen
}
