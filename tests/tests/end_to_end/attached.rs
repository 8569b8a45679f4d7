//! What a capture attaches and holds, by the kernel's own account: that, nothing else,
//! and nothing afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::attached::{Hook, PROGRAMS, held_by, listed};
use lab::backend::{Backend, Habits, IPV4};
use lab::clock::{PATIENCE, wait_for};
use lab::nginx::{Configuration, Upstream};

use crate::bench::{Bench, alone};

#[test]
fn a_capture_attaches_what_it_says_pins_nothing_and_leaves_nothing() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let pid = bench.capture().pid();
    let held = held_by(pid).unwrap();
    let programs = listed("prog").unwrap();

    // Its programs, by name.
    let names: BTreeMap<&str, u64> = held
        .programs
        .iter()
        .map(|id| (programs[id]["name"].as_str().unwrap(), *id))
        .collect();
    assert_eq!(names.len(), held.programs.len());
    assert_eq!(names.len(), PROGRAMS.len(), "{names:?}");
    let mut attached = 0;
    for program in PROGRAMS {
        let id = program.names.iter().find_map(|name| names.get(name));
        let id = *id.unwrap_or_else(|| panic!("none of {:?} in {names:?}", program.names));
        let links: Vec<_> = held
            .links
            .values()
            .filter(|link| link.program == id)
            .collect();
        let tracepoints: Vec<_> = links
            .iter()
            .filter_map(|link| link.tracepoint.as_deref())
            .collect();
        let wanted: Vec<_> = program
            .hooks
            .iter()
            .filter(|hook| matches!(hook, Hook::Tracepoint(_)))
            .map(Hook::name)
            .collect();
        assert_eq!(tracepoints, wanted, "{program:?}: {links:?}");
        let uprobes = links.iter().filter(|link| link.is_uprobe()).count();
        let wanted = program.hooks.iter();
        let wanted = wanted.filter(|hook| matches!(hook, Hook::Uprobe(_)));
        assert_eq!(uprobes, wanted.count(), "{program:?}: {links:?}");
        assert_eq!(links.len(), tracepoints.len() + uprobes);
        attached += links.len();
    }
    assert_eq!(held.links.len(), attached);

    // Its maps are its programs', its links are listed, and no name in a file system
    // would keep any of them.
    let used: BTreeSet<u64> = held
        .programs
        .iter()
        .filter_map(|id| programs[id]["map_ids"].as_array())
        .flatten()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    assert!(!held.maps.is_empty());
    assert!(used.is_superset(&held.maps), "{:?} of {used:?}", held.maps);
    let (maps, links) = (listed("map").unwrap(), listed("link").unwrap());
    for (kind, ids, objects) in [
        ("prog", &held.programs, &programs),
        ("map", &used, &maps),
        ("link", &held.links.keys().copied().collect(), &links),
    ] {
        for id in ids {
            let object = &objects[id];
            let pinned = object["pinned"].as_array();
            assert!(pinned.is_none_or(Vec::is_empty), "{kind}: {object}");
        }
    }
    let mode = fs::metadata(bench.trace()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    bench.finish();
    wait_for("the kernel to be as before", PATIENCE, || {
        let left = listed("prog")?.keys().any(|id| held.programs.contains(id))
            || listed("map")?.keys().any(|id| used.contains(id))
            || listed("link")?.keys().any(|id| held.links.contains_key(id));
        Ok((!left).then_some(()))
    })
    .unwrap();
}
