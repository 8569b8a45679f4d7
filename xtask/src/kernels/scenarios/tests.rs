//! Scores and ends as the guests write them.

use super::*;

const SCORE: &str = r#"{
  "causes": { "stale-keepalive": { "lines": 2 }, "read-timeout": { "lines": 1 } },
  "constants": [{ "constant": { "value": { "idle_timeout_ms": 5.0 } }, "found": 5.1, "right": true }],
  "hooks": { "one": "attached" },
  "failures": [],
  "mistakes": []
}"#;

fn output(score: &str, status: u8) -> String {
    format!(
        "guest: up\nscenario: stale\nnginx 1.22.1, stale: 3 of 3\n{score}\nstatus: {status}\n\
         scenario: demo\n9 faults, 11 incidents: all right\nstatus: 0\nguest: ended 0\n"
    )
}

fn read(scenarios: &[&Scenario], output: &str, refuses: Option<&str>) -> Vec<Outcome> {
    super::read(scenarios, output, refuses, Calls::Seen)
}

fn both() -> Vec<&'static Scenario> {
    chosen(&["stale".to_owned(), "demo".to_owned()]).unwrap()
}

#[test]
fn scores_are_read_in_their_order_and_verdicts_counted() {
    let outcomes = read(&both(), &output(SCORE, 0), None);
    assert_eq!(outcomes.len(), 2);
    assert_eq!((outcomes[0].verdicts, outcomes[1].verdicts), (3, 9));
    assert!(
        outcomes.iter().all(|outcome| outcome.wrong.is_empty()),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[0].hooks["one"], "attached");
}

#[test]
fn a_mistake_of_any_confidence_and_a_wrong_constant_are_wrong() {
    for (from, to) in [
        (r#""mistakes": []"#, r#""mistakes": ["x"]"#),
        (r#""failures": []"#, r#""failures": ["x"]"#),
        (r#""right": true"#, r#""right": false"#),
        (
            r#""lines": 2 }, "read-timeout": { "lines": 1"#,
            r#""lines": 0"#,
        ),
    ] {
        let score = SCORE.replace(from, to);
        assert_ne!(score, SCORE);
        let outcomes = read(&both(), &output(&score, 0), None);
        assert_eq!(outcomes[0].wrong.len(), 1, "{to}: {outcomes:?}");
        assert!(outcomes[1].wrong.is_empty());
    }
    assert_eq!(read(&both(), &output(SCORE, 1), None)[0].wrong.len(), 1);
}

#[test]
fn where_the_ends_of_functions_are_to_see_calls_other_hooks_are_wrong() {
    let wrong = |hooks: &str| {
        let score = SCORE.replace(r#""one": "attached""#, hooks);
        super::read(&both(), &output(&score, 0), None, Calls::AtEnds)[0]
            .wrong
            .len()
    };
    let fexit = r#""sock_send_length": "by fexit x", "sock_recv_length": "by fexit y""#;
    assert_eq!(wrong(fexit), 0);
    assert_eq!(wrong(&fexit.replace("by fexit y", "attached")), 1);
    assert_eq!(wrong(r#""one": "attached""#), 1);
}

#[test]
fn what_came_to_no_end_is_not_taken_for_right() {
    let whole = output(SCORE, 0);
    let cut = whole.split("status: 0").next().unwrap();
    assert!(read(&both(), cut, None).is_empty());
    let outcomes = read(&both(), &output("thread panicked", 101), None);
    assert!(
        outcomes[0].wrong[0].contains("thread panicked"),
        "{outcomes:?}"
    );
    let failed = whole.replace("all right\nstatus: 0", "NOT all right\nstatus: 1");
    assert!(read(&both(), &failed, None)[1].wrong[0].contains("NOT all right"));
    let silent = whole.replace("9 faults, 11 incidents: all right", "no word of it");
    assert_eq!(read(&both(), &silent, None)[1].wrong, ["no word of it"]);
}

#[test]
fn the_script_names_every_scenario_and_ends_each_with_its_status() {
    let scenarios = chosen(&[]).unwrap();
    let script = script(&scenarios, 7);
    for scenario in &scenarios {
        assert!(script.contains(&format!("echo 'scenario: {}'", scenario.column)));
    }
    assert_eq!(script.matches("status: $?").count(), scenarios.len());
    assert!(script.contains("whoclosed-lab read_timeout --seed 7 --json --runs-may-be-missed"));
    assert!(chosen(&["nonsense".to_owned()]).is_err());
}

#[test]
fn the_script_ends_with_0_whatever_its_scenarios_do() {
    // None of the programs is there.
    let script = script(&both(), 7);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &script]).env("PATH", "/nowhere");
    let ended = shell.env_remove(withheld::VARIABLE);
    let ended = ended.stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("status: 127\n").count(), 2, "{said}");
}

#[test]
fn where_a_capture_has_to_refuse_only_a_refusal_that_says_why_is_right() {
    let refused = output("capture: lockdown=confidentiality forbids it", 1);
    let outcomes = read(&both(), &refused, Some("lockdown"));
    assert!(outcomes[0].refused && outcomes[0].wrong.is_empty());
    // The demo ran.
    assert!(!outcomes[1].refused && outcomes[1].wrong.len() == 1);
    let outcomes = read(&both(), &output("Invalid argument", 1), Some("lockdown"));
    assert!(
        outcomes[0].wrong[0].contains("without a word"),
        "{outcomes:?}"
    );
}

#[test]
fn what_the_kernel_skipped_is_read_from_a_score_and_from_the_demo() {
    let lost =
        r#""lost": { "missed_runs:send": 5, "connection_records": 1 }, "crowd": 9, "failures""#;
    let score = SCORE.replace(r#""failures""#, lost);
    let said = output(&score, 0).replace("9 faults", "lost: 3 missed_runs:recv\n9 faults");
    let outcomes = read(&both(), &said, None);
    // Whatever else was lost stands among the score's failures.
    let missed: Vec<_> = outcomes.iter().map(|outcome| &outcome.missed).collect();
    assert_eq!(
        missed[0].clone().into_iter().collect::<Vec<_>>(),
        [("send".to_owned(), 5)]
    );
    assert_eq!(
        missed[1].clone().into_iter().collect::<Vec<_>>(),
        [("recv".to_owned(), 3)]
    );
    assert_eq!((outcomes[0].crowd, outcomes[1].crowd), (9, 0));
}

#[test]
fn a_count_may_be_unknown_only_where_the_kernel_skipped_runs() {
    let unknown = SCORE.replace("idle_timeout_ms", "request_limit").replace(
        r#""found": 5.1, "right": true"#,
        r#""found": null, "right": false"#,
    );
    let wrong = |score: &str| read(&both(), &output(score, 0), None)[0].wrong.len();
    assert_eq!(wrong(&unknown), 1);
    let other = r#""lost": { "missed_runs:whoclosed_exit": 5 }, "failures""#;
    assert_eq!(wrong(&unknown.replace(r#""failures""#, other)), 1);
    let lost = r#""lost": { "missed_runs:whoclosed_recv": 5 }, "failures""#;
    let skipped = unknown.replace(r#""failures""#, lost);
    assert_eq!(wrong(&skipped), 0);
    // Not a time, and nothing wrong.
    assert_eq!(
        wrong(&skipped.replace("request_limit", "idle_timeout_ms")),
        1
    );
    assert_eq!(
        wrong(&skipped.replace(r#""found": null"#, r#""found": 7"#)),
        1
    );
}

#[test]
fn a_mistake_about_a_line_is_no_right_verdict_and_one_about_a_constant_is_no_line() {
    let mistake = r#""mistakes": ["1 (x) of stale is called nginx fin y (likely), but is z"]"#;
    let score = SCORE.replace(r#""mistakes": []"#, mistake);
    let outcomes = read(&both(), &output(&score, 0), None);
    assert_eq!((outcomes[0].right, outcomes[0].verdicts), (2, 3));
    let score = SCORE.replace(r#""right": true"#, r#""right": false"#);
    let outcomes = read(&both(), &output(&score, 0), None);
    assert_eq!((outcomes[0].right, outcomes[0].wrong.len()), (3, 1));
}

#[test]
fn a_plainer_name_is_no_mistake_only_where_calls_are_not_seen() {
    let mistake = r#""mistakes": ["1 (x) of stale is called backend fin closed-without-answer \
        (likely), but is backend fin stale-keepalive (y)"]"#;
    let mistake = mistake.replace("\\\n        ", "");
    let score = SCORE.replace(r#""mistakes": []"#, &mistake);
    let outcome = |calls| super::read(&both(), &output(&score, 0), None, calls).remove(0);
    let unseen = outcome(Calls::Unseen);
    assert!(unseen.is_plainer() && unseen.right == 2, "{unseen:?}");
    assert_eq!(outcome(Calls::Seen).wrong.len(), 1);
}

#[test]
fn nobodys_lines_may_be_unexplained_only_where_neither_they_nor_calls_are_seen() {
    let mistakes = |count: usize| {
        let mistake = r#""x is called backend rst unexplained (possible), but is y""#;
        let mistakes = vec![mistake; count].join(", ");
        SCORE.replace(r#""mistakes": []"#, &format!(r#""mistakes": [{mistakes}]"#))
    };
    let wrong = |release: &str, calls, count| {
        let said = format!(
            "scenario: nobody\nrelease: {release}\nuser: 65534\nkept: 80004\ndoctor: {{}}\n\
             x\n{}\nstatus: 0\n",
            mistakes(count)
        );
        let nobody = chosen(&["nobody".to_owned()]).unwrap();
        let outcome = super::read(&nobody, &said, None, calls).remove(0);
        // What it says of doctor is not what this is about.
        let about_doctor = |wrong: &&String| wrong.starts_with("doctor, ");
        let wrong = outcome.wrong.iter();
        wrong.filter(|wrong| !about_doctor(wrong)).count()
    };
    assert_eq!(wrong("6.1.0-57-amd64", Calls::Unseen, 2), 0);
    assert_eq!(wrong("6.1.0-57-amd64", Calls::Seen, 2), 2);
    assert_eq!(wrong("6.12.117+deb12-amd64", Calls::Unseen, 2), 2);
}

#[test]
fn verdicts_of_which_none_is_right_are_wrong_however_little_they_claim() {
    let plainer = "is called backend fin closed-without-answer (likely), but is backend fin \
        stale-keepalive";
    let score = |count: usize| {
        let mistakes = vec![format!("\"x {plainer}\""); count].join(", ");
        SCORE.replace(r#""mistakes": []"#, &format!(r#""mistakes": [{mistakes}]"#))
    };
    let wrong = |count| {
        super::read(&both(), &output(&score(count), 0), None, Calls::Unseen)[0]
            .wrong
            .len()
    };
    assert_eq!((wrong(2), wrong(3)), (0, 1));
}

#[test]
fn when_a_kernel_preempts_is_the_word_in_brackets() {
    assert_eq!(
        preemption("guest: up\npreemption: full (lazy) \nx\n"),
        Some("lazy")
    );
    assert_eq!(
        preemption("preemption: none (voluntary) full\n"),
        Some("voluntary")
    );
    assert_eq!(preemption("preemption: \n"), None);
}

#[test]
fn each_scenario_begins_where_its_line_is() {
    let said = output(SCORE, 0);
    let begun: Vec<_> = beginnings(&both(), &said).collect();
    assert_eq!(begun[0], ("stale", said.find("scenario: stale").unwrap()));
    assert_eq!(begun[1], ("demo", said.find("scenario: demo").unwrap()));
}
