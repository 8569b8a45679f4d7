//! The column `nobody`: stale connections, captured by a user who owns nothing and has the
//! four capabilities of docs/doctor.md alone. What it holds once it runs is read from
//! outside. From Linux 6.6 on each line has to find its connection exactly, and nothing may
//! be kept but what processes are looked at with; before, it is as the kernel lets it.

use serde_json::Value;

/// Runs it.
pub(super) const SCRIPT: &str = include_str!("nobody.sh");

/// The user's number.
const NOBODY: &str = "65534";
/// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (include/uapi/linux/capability.h).
const READS: u64 = 1 << 19 | 1 << 2;
/// CAP_PERFMON, for uprobes by perf_event_open().
const PERFMON: u64 = 1 << 38;
/// The first with links of uprobes.
const LINKS: (u32, u32) = (6, 6);

/// What is wrong beside the verdicts, where there are any: `said` as the script does, and
/// the lab's score in it.
pub(super) fn wrong(said: &str, score: &Value) -> Vec<String> {
    let fact = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
    };
    let mut wrong = Vec::new();
    if fact("user: ") != NOBODY {
        wrong.push(format!("the capture ran as user {:?}", fact("user: ")));
    }
    let has_links = release(fact("release: ")) >= Some(LINKS);
    let most = if has_links { READS } else { READS | PERFMON };
    match u64::from_str_radix(fact("kept: "), 16) {
        Ok(kept) if kept & !most == 0 => {}
        _ => wrong.push(format!("the capture kept {:?}", fact("kept: "))),
    }
    let matches = score["matches"].as_object().into_iter().flatten();
    for (how, _) in matches.filter(|(how, _)| has_links && *how != "exact") {
        wrong.push(format!("lines found their connections by {how}"));
    }
    wrong
}

/// `6.12.117+deb12-amd64`
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(release: &str, user: &str, kept: &str) -> String {
        format!("release: {release}\nuser: {user}\nkept: {kept}\nnginx 1.22.1, stale\n{{}}")
    }

    #[test]
    fn on_a_kernel_with_links_lines_are_exact_and_nothing_is_kept_for_uprobes() {
        let exact = json!({"matches": {"exact": {}}});
        let on = |release, kept| wrong(&said(release, NOBODY, kept), &exact);
        assert_eq!(on("6.12.117+deb12-amd64", "0000000000080004"), [""; 0]);
        assert_eq!(
            on("6.12.117+deb12-amd64", "0000004000080004"),
            ["the capture kept \"0000004000080004\""]
        );
        assert_eq!(on("6.1.0-56-amd64", "0000004000080004"), [""; 0]);
        assert_eq!(on("6.1.0-56-amd64", "0000008000080004").len(), 1);
        assert_eq!(on("6.12.117+deb12-amd64", "").len(), 1);
    }

    #[test]
    fn lines_that_are_matched_by_their_order_are_wrong_where_there_are_links() {
        let ordered = json!({"matches": {"exact": {}, "ordered": {}}});
        let on = |release, user| wrong(&said(release, user, "0000000000080004"), &ordered);
        assert_eq!(
            on("7.1.13+deb13-amd64", NOBODY),
            ["lines found their connections by ordered"]
        );
        assert_eq!(on("6.1.0-56-amd64", NOBODY), [""; 0]);
        assert_eq!(on("6.1.0-56-amd64", "0"), ["the capture ran as user \"0\""]);
    }
}
