//! The column `nobody`: stale connections, captured by a user who owns nothing and has the
//! four capabilities of docs/doctor.md alone. What it holds once it runs is read from
//! outside. From Linux 6.6 on each line has to find its connection exactly, and nothing may
//! be kept but what processes are looked at with; before, it is as the kernel lets it, and
//! doctor, asked by the same user, has to have said so.

use serde_json::Value;

use super::unseen;
use super::withheld::Calls;

/// Runs it.
pub(super) const SCRIPT: &str = concat!(include_str!("quiet_nginx.sh"), include_str!("nobody.sh"));

/// The user's number.
const NOBODY: &str = "65534";
/// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (include/uapi/linux/capability.h).
const READS: u64 = 1 << 19 | 1 << 2;
/// CAP_PERFMON, for uprobes by perf_event_open().
const PERFMON: u64 = 1 << 38;
/// The first with links of uprobes.
const LINKS: (u32, u32) = (6, 6);
/// CAP_BPF, for reading maps where nobody else may.
const BPF: u64 = 1 << 39;
/// The first on which maps that are open can be read without it, whatever
/// kernel.unprivileged_bpf_disabled is (c8644cd0efe7 "bpf: refine kernel.unprivileged_bpf_disabled
/// behaviour").
const OPEN_MAPS: (u32, u32) = (5, 19);
/// What doctor names where lines cannot be seen being written.
const ADMIN: &str = "CAP_SYS_ADMIN";

/// Whether such a capture sees neither nginx's lines being written nor its sends and
/// receives, on the kernel of which `said` is.
pub(super) fn is_blind(said: &str, calls: Calls) -> bool {
    !calls.are_seen() && release(fact(said, "release: ")) < Some(LINKS)
}

/// What the script found itself.
fn fact<'a>(said: &'a str, name: &str) -> &'a str {
    said.lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default()
        .trim()
}

/// What is wrong beside the verdicts, where there are any: `said` as the script does, and
/// the lab's score in it.
pub(super) fn wrong(said: &str, score: &Value, calls: Calls) -> Vec<String> {
    let fact = |name: &str| fact(said, name);
    let mut wrong = Vec::new();
    if fact("user: ") != NOBODY {
        wrong.push(format!("the capture ran as user {:?}", fact("user: ")));
    }
    let release = release(fact("release: "));
    let has_links = release >= Some(LINKS);
    let is_disabled = !["", "0"].contains(&fact("unprivileged_bpf_disabled: "));
    let mut most = READS;
    if !has_links {
        most |= PERFMON;
    }
    if is_disabled && release < Some(OPEN_MAPS) {
        most |= BPF;
    }
    match u64::from_str_radix(fact("kept: "), 16) {
        Ok(kept) if kept & !most == 0 => {}
        _ => wrong.push(format!("the capture kept {:?}", fact("kept: "))),
    }
    let matches = score["matches"].as_object().into_iter().flatten();
    let others: Vec<&String> = matches
        .map(|(how, _)| how)
        .filter(|how| *how != "exact")
        .collect();
    for how in others.iter().filter(|_| has_links) {
        wrong.push(format!("lines found their connections by {how}"));
    }
    let answer = serde_json::from_str(fact("doctor: ")).unwrap_or_default();
    let found = Found {
        is_exact: others.is_empty(),
        sees_calls: calls.are_seen(),
        has_registers: fact("hands out registers: ") == "yes",
    };
    let told = doctor(&answer, fact("doctor's status: "), found);
    wrong.extend(told.map(|told| format!("doctor, asked by nobody, {told}")));
    wrong
}

/// What is known of such a capture from elsewhere.
#[derive(Clone, Copy)]
struct Found {
    /// Every line found its connection exactly.
    is_exact: bool,
    sees_calls: bool,
    has_registers: bool,
}

/// What is wrong with doctor's answer to this user.
fn doctor(answer: &Value, status: &str, found: Found) -> Option<String> {
    let Some(all) = answer["statements"].as_array() else {
        return Some("said nothing that can be read".to_owned());
    };
    let says = |one: &&Value, what: &str| {
        let text = |field: &str| one[field].as_str().is_some_and(|text| text.contains(what));
        text("text") || text("do")
    };
    let Found {
        is_exact,
        sees_calls,
        has_registers,
    } = found;
    let not_full = all.iter().filter(|one| one["weight"] != "note");
    let other: Vec<&Value> = not_full
        .filter(|one| sees_calls || !says(one, unseen::LIMIT))
        .filter(|one| has_registers || !says(one, unseen::NO_REGISTERS))
        .collect();
    let names_admin = |one: &&Value| one["weight"] == "limits" && says(one, ADMIN);
    match other.iter().find(|one| is_exact || !names_admin(one)) {
        Some(one) => return Some(format!("says {}", one["text"])),
        None if !is_exact && other.is_empty() => {
            return Some(format!("does not say that lines want {ADMIN}"));
        }
        None => {}
    }
    let is_full = is_exact && sees_calls && has_registers;
    let expected = if is_full { "0" } else { "1" };
    (status != expected).then(|| format!("ended with status {status:?}, not {expected}"))
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

    /// What the script writes, on a kernel as root finds it.
    fn said(release: &str, user: &str, kept: &str) -> String {
        format!(
            "release: {release}\nunprivileged_bpf_disabled: 2\nhands out registers: yes\n\
             user: {user}\nkept: {kept}\ndoctor: {{ \"statements\": [] }}\ndoctor's status: 0\nnginx 1.22.1, stale\n{{}}"
        )
    }

    /// The same where doctor says that uprobes want CAP_SYS_ADMIN.
    fn limited(release: &str, user: &str, kept: &str) -> String {
        let limit = json!({ "weight": "limits", "text": "x", "do": "give it CAP_SYS_ADMIN" });
        said(release, user, kept)
            .replace("[]", &json!([limit]).to_string())
            .replace("status: 0", "status: 1")
    }

    fn wrong(said: &str, score: &Value) -> Vec<String> {
        super::wrong(said, score, Calls::Seen)
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
    fn cap_bpf_may_be_kept_only_before_5_19_and_only_where_maps_want_it() {
        let exact = json!({"matches": {"exact": {}}});
        let kept = "000000c000080004";
        let on = |release| said(release, NOBODY, kept);
        assert_eq!(wrong(&on("5.15.0-130-generic"), &exact), [""; 0]);
        assert_eq!(wrong(&on("5.19.0"), &exact).len(), 1);
        let open = on("5.15.0-130-generic").replace("disabled: 2", "disabled: 0");
        assert_eq!(wrong(&open, &exact).len(), 1);
        let not_told = on("5.15.0-130-generic").replace("unprivileged_bpf_disabled: 2\n", "");
        assert_eq!(wrong(&not_told, &exact).len(), 1);
    }

    #[test]
    fn lines_that_are_matched_by_their_order_are_wrong_where_there_are_links() {
        let ordered = json!({"matches": {"exact": {}, "ordered": {}}});
        let on = |release, user| wrong(&limited(release, user, "0000000000080004"), &ordered);
        assert_eq!(
            on("7.1.13+deb13-amd64", NOBODY),
            ["lines found their connections by ordered"]
        );
        assert_eq!(on("6.1.0-56-amd64", NOBODY), [""; 0]);
        assert_eq!(on("6.1.0-56-amd64", "0"), ["the capture ran as user \"0\""]);
    }

    #[test]
    fn only_where_neither_lines_nor_calls_are_seen_it_is_blind() {
        let on = |release| said(release, NOBODY, "");
        assert!(is_blind(&on("6.1.0-56-amd64"), Calls::Unseen));
        assert!(!is_blind(&on("6.1.0-56-amd64"), Calls::Seen));
        assert!(!is_blind(&on("6.12.117+deb12-amd64"), Calls::Unseen));
    }

    #[test]
    fn the_script_knows_a_blind_capture_by_doctors_own_words() {
        // Statements stand before what was found.
        let words = format!("*'{}'*'\"log_calls_seen\": false'*", unseen::LIMIT);
        assert!(SCRIPT.contains(&words), "{words}");
    }

    #[test]
    fn doctor_has_to_have_said_whether_lines_would_be_exact() {
        let exact = json!({"matches": {"exact": {}}});
        let ordered = json!({"matches": {"ordered": {}}});
        let on = |said: fn(&str, &str, &str) -> String| {
            said("6.1.0-56-amd64", NOBODY, "0000000000080004")
        };
        assert_eq!(wrong(&on(limited), &ordered), [""; 0]);
        // Not said, said in vain, not in these words, with another status, not at all.
        let other = on(limited).replace(ADMIN, "CAP_NET_ADMIN");
        let status = on(limited).replace("status: 1", "status: 0");
        let none = on(said).replace("doctor: {", "doctor: not permitted {");
        for (said, score) in [
            (on(said), &ordered),
            (on(limited), &exact),
            (other, &ordered),
            (status, &ordered),
            (none, &exact),
        ] {
            let wrong = wrong(&said, score);
            assert_eq!(wrong.len(), 1, "{said}");
            assert!(
                wrong[0].starts_with("doctor, asked by nobody, "),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn where_calls_are_not_seen_doctor_may_say_that_and_ends_with_1() {
        let exact = json!({"matches": {"exact": {}}});
        let text = format!("{}, nor", unseen::LIMIT);
        let limit = json!([{ "weight": "limits", "text": text, "do": null }]);
        let said = said("6.12.117+deb12-amd64", NOBODY, "0000000000080004")
            .replace("[]", &limit.to_string());
        let unseen = |said: &str| super::wrong(said, &exact, Calls::Unseen).len();
        assert_eq!(unseen(&said), 1);
        assert_eq!(unseen(&said.replace("status: 0", "status: 1")), 0);
        assert_eq!(wrong(&said, &exact).len(), 1);
    }
}
