//! Answers as the guests give them.

use serde_json::json;

use super::*;

const LOCKED: &str = "lockdown=confidentiality";

fn prevents(text: &str) -> Value {
    json!({ "weight": "prevents", "text": text, "do": null })
}

fn answer(lockdown: Option<&str>, obstacles: &[&str], has_nginx: bool, has_types: bool) -> Value {
    let is_free = obstacles.is_empty();
    let nginx = json!({
        "master_pid": 7, "workers": 2, "exports_log_function": true, "log_calls_seen": is_free,
        "configuration_path": "/x/nginx.conf", "configuration_read": true,
        "error_logs": [{ "path": "/x/logs/error.log", "level": "info" }]
    });
    json!({
        "possible": is_free,
        "full": is_free,
        "statements": obstacles.iter().map(|text| prevents(text)).collect::<Vec<Value>>(),
        "found": {
            "kernel": {
                "release": "6.1.9", "type_information": has_types, "lockdown": lockdown,
                "clock_source": "tsc"
            },
            "hooks": [{ "name": "one", "attached": is_free }],
            "nginx": has_nginx.then_some(nginx).into_iter().collect::<Vec<Value>>()
        }
    })
}

/// What the script writes of these answers.
fn said(lockdown: &str, answers: [&Value; 3]) -> String {
    let mut said = format!(
        "release: 6.1.9\nlockdown: {lockdown}\nclock: tsc\nnginx: 7\nworkers: 2\nfolder: /x\n"
    );
    let names = ["whole", "without-nginx", "without-types"];
    for (name, answer) in names.iter().zip(answers) {
        let status = u8::from(answer["full"] != true);
        said += &format!("case: {name}\n{answer:#}\nexit: {status}\n");
    }
    said
}

fn ordinary() -> [Value; 3] {
    let nginx = format!("{NO_NGINX} (looked for processes named x)");
    let types = format!("{NO_TYPES}: this is not BTF");
    [
        answer(None, &[], true, true),
        answer(None, &[&nginx], false, true),
        answer(None, &[&types], true, false),
    ]
}

fn locked() -> [Value; 3] {
    let mode = Some("confidentiality");
    let sentence = format!("this kernel is locked down ({LOCKED}): no program may look into it");
    [
        answer(mode, &[&sentence], true, true),
        answer(mode, &[NO_NGINX, &sentence], false, true),
        answer(mode, &[NO_TYPES, &sentence], true, false),
    ]
}

const OPEN: &str = "[none] integrity confidentiality";
const CLOSED: &str = "none integrity [confidentiality]";

#[test]
fn the_answers_of_an_ordinary_kernel_and_of_one_locked_down_are_right_there_only() {
    let (ordinary, locked) = (ordinary(), locked());
    let ordinary = said(OPEN, ordinary.each_ref());
    let locked = said(CLOSED, locked.each_ref());
    assert_eq!(judge(&ordinary, None, true), (3, Vec::new()));
    assert_eq!(judge(&locked, Some(LOCKED), true), (3, Vec::new()));
    assert_eq!(judge(&ordinary, Some(LOCKED), true).1.len(), 4);
    assert_eq!(judge(&locked, None, true).1.len(), 4);
}

#[test]
fn one_wrong_statement_status_or_fact_is_wrong() {
    let kernel = |field: &str| format!("/found/kernel/{field}");
    let nginx = |field: &str| format!("/found/nginx/0/{field}");
    let limit = json!([{ "weight": "limits", "text": "x", "do": null }]);
    for (field, value) in [
        ("/statements".to_owned(), limit),
        ("/statements".to_owned(), json!([prevents(LOCKED)])),
        ("/possible".to_owned(), json!(false)),
        ("/found/hooks/0/attached".to_owned(), json!(false)),
        ("/found/nginx".to_owned(), json!([])),
        (kernel("release"), json!("6.12")),
        (kernel("lockdown"), json!("integrity")),
        (kernel("type_information"), json!(false)),
        (nginx("workers"), json!(1)),
        (nginx("configuration_read"), json!(false)),
        (nginx("error_logs/0/level"), json!("error")),
        (nginx("log_calls_seen"), json!(false)),
    ] {
        let mut answers = ordinary();
        *answers[0].pointer_mut(&field).unwrap() = value;
        let (count, wrong) = judge(&said(OPEN, answers.each_ref()), None, true);
        assert!(count == 3 && !wrong.is_empty(), "{field}");
        assert!(wrong.iter().all(|wrong| wrong.starts_with("whole: ")));
    }
    let right = said(OPEN, ordinary().each_ref());
    for (from, to) in [("exit: 0", "exit: 1"), ("workers: 2\nf", "workers: 1\nf")] {
        assert_ne!(
            judge(&right.replace(from, to), None, true).1,
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_note_is_right_only_of_the_clock_that_the_guest_has() {
    let mut answers = ordinary();
    let text = "A capture costs more: the kernel takes its time from hpet";
    answers[0]["statements"] = json!([{ "weight": "note", "text": text, "do": null }]);
    assert_eq!(
        judge(&said(OPEN, answers.each_ref()), None, true).1.len(),
        1
    );
    for answer in &mut answers {
        answer["found"]["kernel"]["clock_source"] = json!("hpet");
    }
    let said = said(OPEN, answers.each_ref()).replace("clock: tsc", "clock: hpet");
    assert_eq!(judge(&said, None, true), (3, Vec::new()));
}

#[test]
fn an_answer_that_never_came_is_wrong() {
    let whole = said(OPEN, ordinary().each_ref());
    let (cut, _) = whole.split_once("case: without-types").unwrap();
    let (count, wrong) = judge(cut, None, true);
    assert_eq!((count, wrong.len()), (2, 1));
    assert!(
        wrong[0].starts_with("without-types: no answer: "),
        "{wrong:?}"
    );
    assert_eq!(judge("", None, true).0, 0);
}

#[test]
fn where_nothing_sees_sends_and_receives_that_alone_has_to_be_said() {
    let limit = |text: &str| json!({ "weight": "limits", "text": text, "do": null });
    let mut answers = ordinary();
    let whole = &mut answers[0];
    whole["full"] = false.into();
    whole["statements"] = json!([limit("Requests cannot be counted, nor")]);
    whole["found"]["hooks"] = json!([
        { "name": "one", "attached": true },
        { "name": "sock_send_length", "attached": false }
    ]);
    let right = said(OPEN, answers.each_ref());
    assert_eq!(judge(&right, None, false), (3, Vec::new()));
    assert_eq!(judge(&right, None, true).1.len(), 2);
    let silent = said(OPEN, ordinary().each_ref());
    assert_eq!(judge(&silent, None, false).1.len(), 2);
    let other = right.replace("Requests cannot be counted", "Nothing is seen");
    assert_eq!(judge(&other, None, false).1.len(), 1);
    let another = right.replace("sock_send_length", "tcp_receive_reset");
    assert_eq!(judge(&another, None, false).1.len(), 1);
}
