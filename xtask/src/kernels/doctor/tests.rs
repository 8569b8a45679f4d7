//! Answers as the guests give them.

use serde_json::json;

use super::*;

/// Where something sees nginx's calls.
fn judge(said: &str, forbids: Option<&str>) -> (u64, Vec<String>) {
    super::judge(said, forbids, Calls::Seen)
}

const LOCKED: &str = "lockdown=confidentiality";

fn prevents(text: &str) -> Value {
    json!({ "weight": "prevents", "text": text, "do": null })
}

/// An answer about the first nginx of the script's.
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
            "role": "nginx",
            "kernel": {
                "release": "6.1.9", "type_information": has_types, "lockdown": lockdown,
                "clock_source": "tsc"
            },
            "hooks": [{ "name": "one", "attached": is_free }],
            "nginx": has_nginx.then_some(nginx).into_iter().collect::<Vec<Value>>()
        }
    })
}

/// The same about the nginx whose log is a pipe.
fn piped(mut answer: Value) -> Value {
    let nginx = &mut answer["found"]["nginx"][0];
    nginx["master_pid"] = 8.into();
    nginx["configuration_path"] = "/y/nginx.conf".into();
    nginx["error_logs"][0]["path"] = "stderr of nginx 8".into();
    let writes = json!({ "name": "sys_enter for stderr of nginx 8", "attached": true });
    answer["found"]["hooks"]
        .as_array_mut()
        .unwrap()
        .push(writes);
    answer
}

/// The same about the accepting side.
fn backend(mut answer: Value) -> Value {
    answer["found"]["role"] = "backend".into();
    answer["found"]["nginx"] = json!([]);
    answer["found"]["listening"] = "21111 (nginx)".into();
    answer
}

/// What the script writes of these answers.
fn said(lockdown: &str, answers: [&Value; 5]) -> String {
    let mut said = format!(
        "release: 6.1.9\nlockdown: {lockdown}\nclock: tsc\ntells of sends: yes\n\
         port: 21111\nlists sockets: yes\nhands out registers: yes\n"
    );
    for (which, pid, folder) in [("whole", 7, "/x"), ("piped", 8, "/y")] {
        said += &format!("{which} nginx: {pid}\n{which} workers: 2\n{which} folder: {folder}\n");
    }
    let names = [
        "whole",
        "piped",
        "backend",
        "without-nginx",
        "without-types",
    ];
    for (name, answer) in names.iter().zip(answers) {
        let status = u8::from(answer["full"] != true);
        said += &format!("case: {name}\n{answer:#}\nexit: {status}\n");
        let obstacle = answer["statements"].as_array().unwrap().first();
        if let (Some(first), Some(false)) = (obstacle, answer["possible"].as_bool()) {
            let text = first["text"].as_str().unwrap();
            said += &format!("capture: {name}\nwhoclosed: {text}\nexit: 1\n");
        }
    }
    said
}

fn ordinary() -> [Value; 5] {
    let nginx = format!("{NO_NGINX} (looked for processes named x)");
    let types = format!("{NO_TYPES}: this is not BTF");
    [
        answer(None, &[], true, true),
        piped(answer(None, &[], true, true)),
        backend(answer(None, &[], true, true)),
        answer(None, &[&nginx], false, true),
        answer(None, &[&types], true, false),
    ]
}

fn locked() -> [Value; 5] {
    let mode = Some("confidentiality");
    let sentence = format!("this kernel is locked down ({LOCKED}): no program may look into it");
    [
        answer(mode, &[&sentence], true, true),
        piped(answer(mode, &[&sentence], true, true)),
        backend(answer(mode, &[&sentence], true, true)),
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
    assert_eq!(judge(&ordinary, None), (5, Vec::new()));
    assert_eq!(judge(&locked, Some(LOCKED)), (5, Vec::new()));
    assert_eq!(judge(&ordinary, Some(LOCKED)).1.len(), 8);
    assert_eq!(judge(&locked, None).1.len(), 8);
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
        let (count, wrong) = judge(&said(OPEN, answers.each_ref()), None);
        assert!(count == 5 && !wrong.is_empty(), "{field}");
        assert!(wrong.iter().all(|wrong| wrong.starts_with("whole: ")));
    }
    let right = said(OPEN, ordinary().each_ref());
    for (from, to) in [
        ("exit: 0", "exit: 1"),
        ("whole workers: 2", "whole workers: 1"),
    ] {
        assert_ne!(
            judge(&right.replace(from, to), None).1,
            Vec::<String>::new()
        );
    }
}

#[test]
fn in_the_other_cases_too_each_of_their_own_facts_counts() {
    for (at, case, field, value) in [
        (1, "piped", "/found/hooks/1/attached", json!(false)),
        (1, "piped", "/found/hooks/1/name", json!("two")),
        (1, "piped", "/found/nginx/0/master_pid", json!(7)),
        (1, "piped", "/found/nginx/0/error_logs/0/path", json!("x")),
        (2, "backend", "/found/role", json!("nginx")),
        (2, "backend", "/found/listening", json!("2111 (nginx)")),
        (2, "backend", "/found/hooks", json!([])),
        (2, "backend", "/found/hooks/0/attached", json!(false)),
    ] {
        let mut answers = ordinary();
        *answers[at].pointer_mut(field).unwrap() = value;
        let (count, wrong) = judge(&said(OPEN, answers.each_ref()), None);
        assert!(count == 5 && wrong.len() == 1, "{field}: {wrong:?}");
        assert!(wrong[0].starts_with(&format!("{case}: ")), "{wrong:?}");
    }
    // Where no line is written by a call, no such hook has to be.
    let mut answers = ordinary();
    answers[0]["found"]["hooks"] = json!([
        { "name": "sys_enter for stderr of nginx 7", "attached": true }
    ]);
    assert_eq!(judge(&said(OPEN, answers.each_ref()), None).1.len(), 1);
}

#[test]
fn where_the_kernel_cannot_be_asked_for_sockets_a_backends_host_says_so() {
    let limit = |text: &str| json!({ "weight": "limits", "text": text, "do": null });
    let mut answers = ordinary();
    let answer = &mut answers[2];
    answer["full"] = false.into();
    answer["found"]["listening"] = "21111".into();
    answer["statements"] = json!([limit("Cannot look at listening sockets (x)")]);
    let right = said(OPEN, answers.each_ref());
    let none = |said: &str| said.replace("lists sockets: yes", "lists sockets: no");
    assert_eq!(judge(&none(&right), None), (5, Vec::new()));
    assert_ne!(judge(&right, None).1, Vec::<String>::new());
    let statements = answers[2]["statements"].as_array_mut().unwrap();
    statements.push(limit("Nothing listens at port 21111 yet"));
    assert_eq!(
        judge(&none(&said(OPEN, answers.each_ref())), None).1.len(),
        1
    );
    let statements = answers[2]["statements"].as_array_mut().unwrap();
    statements.remove(0);
    assert_eq!(
        judge(&none(&said(OPEN, answers.each_ref())), None).1.len(),
        1
    );
}

#[test]
fn where_no_capture_is_possible_one_that_says_anything_else_is_wrong() {
    let right = said(CLOSED, locked().each_ref());
    let wrong = |said: &str| judge(said, Some(LOCKED)).1;
    assert_eq!(wrong(&right), Vec::<String>::new());
    let other = right.replace(
        &format!("whoclosed: {NO_TYPES}"),
        "whoclosed: this kernel is locked down",
    );
    assert_eq!(wrong(&other).len(), 1);
    assert!(wrong(&other)[0].starts_with("without-types: a capture says "));
    let silent = right.replace("capture: ", "nothing: ");
    assert_eq!(wrong(&silent).len(), 5);
}

/// Where the ends of functions see calls: of the nginx that listens on a unix socket that is
/// a limit.
fn at_ends() -> [Value; 5] {
    let statement = |weight: &str, text: String| json!([{ "weight": weight, "text": text }]);
    let mut answers = ordinary();
    for answer in &mut answers[..2] {
        let hooks = answer["found"]["hooks"].as_array_mut().unwrap();
        let by = |hook| json!({ "name": hook, "attached": true, "by": "fexit tcp_x" });
        hooks.extend(unseen::HOOKS.map(by));
    }
    answers[0]["full"] = false.into();
    answers[0]["statements"] = statement("limits", format!("{PAST}: x"));
    answers[1]["statements"] = statement("note", format!("{NONE_PAST} be seen: x"));
    answers
}

#[test]
fn where_the_ends_of_functions_are_to_see_calls_doctor_has_to_say_so() {
    let right = said(OPEN, at_ends().each_ref());
    let wrong = |said: &str| super::judge(said, None, Calls::AtEnds).1;
    assert_eq!(wrong(&right), Vec::<String>::new());
    let other = right.replace("fexit tcp_x", "kprobe tcp_x");
    assert_eq!(wrong(&other).len(), 2);
    // Neither the limit, nor its status, nor the hooks of the other.
    assert_eq!(wrong(&said(OPEN, ordinary().each_ref())).len(), 3);
}

#[test]
fn what_the_ends_of_functions_do_not_see_is_said_where_there_are_no_tracepoints_only() {
    let without = |answers: [Value; 5]| {
        let said = said(OPEN, answers.each_ref());
        said.replace("tells of sends: yes", "tells of sends: no")
    };
    assert_eq!(judge(&without(at_ends()), None), (5, Vec::new()));
    assert_eq!(judge(&without(ordinary()), None).1.len(), 2);
    // The limit, its status, and the note of the other.
    assert_eq!(judge(&said(OPEN, at_ends().each_ref()), None).1.len(), 3);
}

#[test]
fn a_note_is_right_only_of_the_clock_that_the_guest_has() {
    let mut answers = ordinary();
    let text = "A capture costs more: the kernel takes its time from hpet";
    answers[0]["statements"] = json!([{ "weight": "note", "text": text, "do": null }]);
    assert_eq!(judge(&said(OPEN, answers.each_ref()), None).1.len(), 1);
    for answer in &mut answers {
        answer["found"]["kernel"]["clock_source"] = json!("hpet");
    }
    let said = said(OPEN, answers.each_ref()).replace("clock: tsc", "clock: hpet");
    assert_eq!(judge(&said, None), (5, Vec::new()));
}

#[test]
fn an_answer_that_never_came_is_wrong() {
    let whole = said(OPEN, ordinary().each_ref());
    let (cut, _) = whole.split_once("case: without-types").unwrap();
    let (count, wrong) = judge(cut, None);
    assert_eq!((count, wrong.len()), (4, 1));
    assert!(
        wrong[0].starts_with("without-types: no answer: "),
        "{wrong:?}"
    );
    assert_eq!(judge("", None).0, 0);
}

#[test]
fn where_nothing_sees_sends_and_receives_that_alone_has_to_be_said() {
    let limit = |text: &str| json!({ "weight": "limits", "text": text, "do": null });
    let mut answers = ordinary();
    for answer in &mut answers[..2] {
        answer["full"] = false.into();
        answer["statements"] = json!([limit("Requests cannot be counted, nor")]);
        let hooks = answer["found"]["hooks"].as_array_mut().unwrap();
        hooks.push(json!({ "name": "sock_send_length", "attached": false }));
    }
    let right = said(OPEN, answers.each_ref());
    assert_eq!(super::judge(&right, None, Calls::Unseen), (5, Vec::new()));
    assert_eq!(judge(&right, None).1.len(), 4);
    let silent = said(OPEN, ordinary().each_ref());
    assert_eq!(super::judge(&silent, None, Calls::Unseen).1.len(), 4);
    let other = right.replace("Requests cannot be counted", "Nothing is seen");
    assert_eq!(super::judge(&other, None, Calls::Unseen).1.len(), 2);
    let another = right.replace("sock_send_length", "tcp_receive_reset");
    assert_eq!(super::judge(&another, None, Calls::Unseen).1.len(), 2);
}

#[test]
fn where_no_task_tells_its_registers_that_has_to_be_said_beside_what_else_is_missing() {
    let mut answers = at_ends();
    let limit = json!({ "weight": "limits", "text": format!("{} x", unseen::NO_REGISTERS) });
    for answer in &mut answers[..3] {
        answer["full"] = false.into();
        let statements = answer["statements"].as_array_mut().unwrap();
        statements.push(limit.clone());
        let hooks = answer["found"]["hooks"].as_array_mut().unwrap();
        hooks.push(json!({ "name": unseen::REGISTERS, "attached": false }));
    }
    let said = said(OPEN, answers.each_ref()).replace("tells of sends: yes", "tells of sends: no");
    let old = said.replace("registers: yes", "registers: no");
    assert_eq!(judge(&old, None), (5, Vec::new()));
    // The statement and its status; of the first the status is wrong already.
    assert_eq!(judge(&said, None).1.len(), 5);
    let silent = old.replace(unseen::NO_REGISTERS, "Somewhere");
    assert_eq!(judge(&silent, None).1.len(), 3);
}
