//! Rows whose captures do without hooks that their kernel has, so that what takes the place
//! of those runs on it: which hooks, how the guest learns of it, and what is then left to
//! see nginx's sends and receives.

use std::collections::BTreeMap;

use super::fetch::Kernel;
use super::unseen;

/// Puts a script in the place of the agent that hands the options on.
pub(super) const SCRIPT: &str = include_str!("withheld.sh");
/// What the guest's first process has from the kernel's command line, and its scripts after
/// it: options of `capture` and `doctor` with commas between.
pub(super) const VARIABLE: &str = "WITHHELD";
/// What a row's name ends in, and what the guest has from that.
pub(super) const ENDINGS: [(&str, &str); 2] = [
    ("-fexit", "WITHHELD=--no-io-tracepoints"),
    ("-unseen", "WITHHELD=--no-io-tracepoints,--no-fentry"),
];

/// What sees nginx's sends and receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Calls {
    /// Whatever this kernel has for that.
    #[default]
    Seen,
    /// Programs at the ends of functions, and nothing else.
    AtEnds,
    /// Nothing.
    Unseen,
}

impl Calls {
    /// What a kernel has, of which `append` may withhold something.
    pub(super) fn of(kernel: &Kernel, append: &str) -> Self {
        let [at_ends, unseen] = ENDINGS.map(|(_, withheld)| withheld);
        match unseen::sees_calls(kernel) {
            true if append == at_ends => Self::AtEnds,
            true if append != unseen => Self::Seen,
            _ => Self::Unseen,
        }
    }

    /// Whether anything does.
    pub(super) fn are_seen(self) -> bool {
        self != Self::Unseen
    }

    /// What is wrong with a capture's hooks, each with what became of it, if they see what
    /// nothing should see here, or by other means than they should.
    pub(super) fn wrong(self, hooks: &BTreeMap<String, String>) -> Option<String> {
        match self {
            Self::Seen => None,
            Self::Unseen => unseen::attached(hooks),
            Self::AtEnds => unseen::HOOKS.into_iter().find_map(|hook| {
                let became = hooks.get(hook).map_or("not told", String::as_str);
                (!became.starts_with("by fexit ")).then(|| {
                    format!("{hook} is {became}, though the ends of functions were to see it")
                })
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::machine::{AARCH64, Machine};

    fn calls(release: &str, machine: Option<Machine>, append: &str) -> Calls {
        let kernel = Kernel {
            name: String::new(),
            release: release.to_owned(),
            vmlinux: std::path::PathBuf::new(),
            machine,
        };
        Calls::of(&kernel, append)
    }

    #[test]
    fn what_sees_calls_is_told_by_the_kernel_and_by_what_the_row_withholds() {
        let [at_ends, unseen] = ENDINGS.map(|(_, withheld)| withheld);
        assert_eq!(calls("7.3.4+deb13-amd64", None, ""), Calls::Seen);
        assert_eq!(calls("7.3.4+deb13-amd64", None, at_ends), Calls::AtEnds);
        assert_eq!(calls("6.1.0-56-amd64", None, unseen), Calls::Unseen);
        assert_eq!(calls("6.1.0-56-amd64", None, "preempt=full"), Calls::Seen);
        // It has no ends of functions.
        let arm = |append| calls("6.1.0-56-arm64", Some(AARCH64), append);
        assert_eq!(arm(at_ends), Calls::Unseen);
        assert_eq!(arm(""), Calls::Unseen);
    }

    #[test]
    fn hooks_that_are_not_what_the_row_is_for_are_wrong() {
        let hooks = |became: &str| {
            unseen::HOOKS
                .map(|hook| (hook.to_owned(), became.to_owned()))
                .into()
        };
        let fexit = hooks("by fexit tcp_sendmsg");
        let tracepoint = hooks("attached");
        let absent = hooks("absent (withheld on request)");
        for (calls, right) in [
            (Calls::Seen, [true, true, true]),
            (Calls::AtEnds, [true, false, false]),
            (Calls::Unseen, [false, false, true]),
        ] {
            let is_right = |hooks| calls.wrong(hooks).is_none();
            assert_eq!([&fexit, &tracepoint, &absent].map(is_right), right);
        }
        assert!(Calls::AtEnds.wrong(&BTreeMap::new()).is_some());
    }

    /// What the agent in such a row is started with.
    #[track_caller]
    fn started(withheld: &str, arguments: &str) -> String {
        let script = format!("{SCRIPT}\n\"$WHOCLOSED\" {arguments}\n");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env(VARIABLE, withheld);
        let output = shell.env("WHOCLOSED", "/bin/echo").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn captures_of_nginx_and_doctor_get_the_options_and_nothing_else_does() {
        let [_, (_, both)] = ENDINGS;
        let (variable, both) = both.split_once('=').unwrap();
        assert_eq!(variable, VARIABLE);
        let capture = started(both, "capture --output 'a b'");
        assert_eq!(
            capture,
            "capture --no-io-tracepoints --no-fentry --output a b\n"
        );
        let doctor = started("--no-io-tracepoints", "doctor --nginx 7");
        assert_eq!(doctor, "doctor --no-io-tracepoints --nginx 7\n");
        let backend = "doctor --role backend --port 7";
        assert_eq!(started(both, backend), format!("{backend}\n"));
        assert_eq!(started(both, "report x"), "report x\n");
        assert_eq!(started("", "capture x"), "capture x\n");
    }
}
