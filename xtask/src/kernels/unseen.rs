//! Rows where no program sees nginx's sends and receives: what the report must call unknown
//! there. Everything else is held to as elsewhere.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fetch::Kernel;
use super::scenarios::Outcome;

/// The hooks that see them.
pub(super) const HOOKS: [&str; 2] = ["sock_send_length", "sock_recv_length"];
/// What `whoclosed doctor` says of such a kernel begins with this.
pub(super) const LIMIT: &str = "Requests cannot be counted";
/// What a capture does without before Linux 5.15, and how what doctor says of that begins.
pub(super) const REGISTERS: &str = "bpf_task_pt_regs";
pub(super) const NO_REGISTERS: &str = "Where a process closes a connection and then starts another";
/// What the demo finds wrong there: its report says that a number is unknown.
const UNKNOWN: &str = "requests is unknown, not ";

/// The lab's constants that rest on counted calls.
const COUNTED: [&str; 2] = ["failed_body_bytes", "request_limit"];

/// How the names of the programs on nginx's sends and receives begin.
pub(super) const CALLS: [&str; 3] = ["whoclosed_send", "whoclosed_recv", "whoclosed_f_"];

/// Whether nginx's sends and receives are seen on this kernel. The tracepoints are there
/// from Linux 6.3 on. Before, programs at the ends of functions see them, which aarch64
/// has from 6.4 on only (DYNAMIC_FTRACE_WITH_DIRECT_CALLS).
pub(super) fn sees_calls(kernel: &Kernel) -> bool {
    let mut numbers = kernel.release.split(['.', '-', '+']).map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    kernel.machine.is_none() || (next(), next()) >= (Some(6), Some(3))
}

/// Whether this constant of the lab's is one that only counted calls tell, and none was
/// inferred.
pub(super) fn is_unknown(constant: &Value) -> bool {
    let value = &constant["constant"]["value"];
    let is_counted = COUNTED.iter().any(|name| value.get(name).is_some());
    is_counted && constant["found"].is_null()
}

/// Whether this mistake of the lab's is one that such a capture may make: a line on a
/// connection that its backend had closed when nginx sent, by the plainer name of a close
/// before the answer. Which of both was first the kernel remembers to one of its ticks only
/// (docs/limits.md), so the cause may be missed, but no side, no means, and never for certain.
pub(super) fn is_plainer(mistake: &str) -> bool {
    let verdict = || {
        let (_, verdict) = mistake.split_once(" is called ")?;
        let (called, truth) = verdict.split_once(" (likely), but is ")?;
        let (how, cause) = called.rsplit_once(' ')?;
        let truth = truth.strip_prefix(how)?.strip_prefix(' ')?;
        Some(cause == "closed-without-answer" && truth.split(' ').next()? == "stale-keepalive")
    };
    verdict().unwrap_or(false)
}

/// Whether this mistake of the lab's claims nothing: a line of which the report says that it
/// has no connection, or that it is not explained.
pub(super) fn claims_nothing(mistake: &str) -> bool {
    mistake.contains(" unexplained (possible), but is ")
        || (mistake.contains(" wrong connection ") && mistake.contains("): None, but "))
}

/// What is wrong with these hooks: they see what nothing should see here.
pub(super) fn attached(hooks: &BTreeMap<String, String>) -> Option<String> {
    let seen = HOOKS.iter().find_map(|hook| {
        let became = hooks.get(*hook)?;
        (became == "attached" || became.starts_with("by ")).then_some(hook)
    })?;
    Some(format!(
        "{seen} is attached, though this kernel was thought to have nothing of it"
    ))
}

/// The demo's own check, which there finds the numbers of requests unknown and nothing else
/// wrong.
pub(super) fn checked(said: &str) -> Outcome {
    let wrong = said.lines().filter(|line| line.contains("WRONG"));
    let wrong = wrong.filter(|line| !line.contains(UNKNOWN));
    let mut wrong: Vec<String> = wrong.map(str::to_owned).collect();
    // "9 faults, 11 incidents: NOT all right"
    let faults = said
        .lines()
        .find_map(|line| line.split_once(" faults, ")?.0.trim().parse().ok());
    if faults.is_none() {
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        wrong.push(format!("the demo came to no end: {}", last.unwrap_or("")));
    }
    if wrong.is_empty() && !said.contains(UNKNOWN) {
        wrong.push("the number of requests is known, though nothing counts them".to_owned());
    }
    Outcome {
        right: if wrong.is_empty() {
            faults.unwrap_or(0)
        } else {
            0
        },
        verdicts: faults.unwrap_or(0),
        wrong,
        ..Outcome::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::AARCH64;

    #[test]
    fn only_the_older_kernels_of_arm_see_no_sends_and_receives() {
        let sees = |release: &str, machine| {
            sees_calls(&Kernel {
                name: String::new(),
                release: release.to_owned(),
                vmlinux: std::path::PathBuf::new(),
                machine,
            })
        };
        assert!(sees("6.1.0-56-cloud-amd64", None));
        assert!(!sees("6.1.0-56-cloud-arm64", Some(AARCH64)));
        assert!(sees("6.12.117+deb12-cloud-arm64", Some(AARCH64)));
        assert!(sees("7.0.13+deb13-arm64", Some(AARCH64)));
    }

    #[test]
    fn the_demo_may_find_nothing_wrong_but_that_requests_are_unknown() {
        let unknown = "refused  1  right: x\nstale  2  WRONG: requests is unknown, not 1\n";
        let said = format!("{unknown}2 faults, 2 incidents: NOT all right\n");
        let outcome = checked(&said);
        assert_eq!((outcome.wrong.len(), outcome.right), (0, 2));
        let other = said.replace("right: x", "WRONG: cause is a, not b");
        assert_eq!(checked(&other).wrong.len(), 1);
        assert_eq!(checked(unknown).wrong.len(), 1);
        let known = said.replace("WRONG: requests is unknown, not 1", "right: y");
        assert_eq!(checked(&known).wrong.len(), 1);
    }

    #[test]
    fn a_stale_connection_may_be_called_a_close_before_the_answer_and_nothing_else() {
        let mistake = "1.22.1: stale, seed 1: 10 (127.0.0.1:40039, /x) of stale is called \
            backend fin closed-without-answer (likely), but is backend fin stale-keepalive (Idle)";
        assert!(is_plainer(mistake));
        for (from, to) in [
            ("(likely)", "(certain)"),
            ("called backend fin", "called nginx fin"),
            ("is backend fin", "is backend rst"),
            ("closed-without-answer", "response-aborted"),
            ("stale-keepalive", "read-timeout"),
            (" is called ", " has "),
        ] {
            assert_ne!(mistake.replace(from, to), mistake);
            assert!(!is_plainer(&mistake.replace(from, to)), "{to}");
        }
    }

    #[test]
    fn a_line_without_a_connection_claims_nothing_and_one_with_another_does() {
        let unexplained = "seed 1: 22 (127.0.0.1:1, /x) of stale is called backend rst \
            unexplained (possible), but is backend rst stale-keepalive (Idle)";
        let none = "seed 1: wrong connection 22 (127.0.0.1:1, /x) of stale (none, possible): \
            None, but the backend has 127.0.0.1:2";
        assert!(claims_nothing(unexplained) && claims_nothing(none));
        assert!(!claims_nothing(
            &unexplained.replace("unexplained", "refused")
        ));
        assert!(!claims_nothing(
            &unexplained.replace("(possible)", "(likely)")
        ));
        assert!(!claims_nothing(&none.replace("None", "Some(127.0.0.1:3)")));
    }

    #[test]
    fn what_only_counted_calls_tell_may_be_missing_and_nothing_else() {
        let constant = |name: &str, found: Value| {
            let mut constant = serde_json::json!({ "constant": { "value": {} }, "found": found });
            constant["constant"]["value"][name] = 5.into();
            is_unknown(&constant)
        };
        assert!(constant("failed_body_bytes", Value::Null));
        assert!(!constant("failed_body_bytes", 4.into()));
        assert!(!constant("idle_timeout_ms", Value::Null));
    }

    #[test]
    fn a_hook_that_should_not_be_there_is_wrong() {
        let hooks = |became: &str| BTreeMap::from([(HOOKS[0].to_owned(), became.to_owned())]);
        assert_eq!(attached(&hooks("absent: no such type")), None);
        assert!(attached(&hooks("attached")).is_some());
        assert!(attached(&hooks("by fexit tcp_sendmsg")).is_some());
    }
}
