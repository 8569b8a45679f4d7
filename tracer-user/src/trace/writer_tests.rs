//! Tests of the trace writer.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use super::*;
use crate::trace::reader::Trace;
use crate::trace::record::{Anchor, End, EndReason, Loss};

fn anchor(number: u64) -> Record {
    Record::Anchor(Anchor {
        monotonic_ns: number,
        realtime_ns: 7,
    })
}

fn records_of(bytes: &[u8]) -> Vec<Record> {
    let mut trace = Trace::new(bytes, "test").unwrap();
    let records = trace.by_ref().map(Result::unwrap).skip(1).collect();
    assert_eq!(trace.cut_off(), None);
    assert_eq!(trace.undecodable(), 0);
    records
}

/// A disk with room for so many bytes; what does not fit is written in part.
#[derive(Clone)]
struct SmallDisk {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
    can_cut: bool,
}

impl Storage for SmallDisk {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut held = self.bytes.lock().unwrap();
        held.truncate(usize::try_from(offset).unwrap());
        let fits = bytes.len().min(self.room - held.len());
        held.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if !self.can_cut {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.bytes
            .lock()
            .unwrap()
            .truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.trace");
    let mut writer = Writer::create(&path, false).unwrap();
    writer.write(&anchor(1)).unwrap();
    writer.write(&anchor(2)).unwrap();
    writer.flush().unwrap();
    writer.flush().unwrap();
    let end = Record::End(End {
        ns: 9,
        reason: EndReason::Signal,
        records: writer.counts(),
    });
    writer.write(&end).unwrap();
    assert_eq!(
        writer.counts(),
        BTreeMap::from([("anchor".into(), 2), ("end".into(), 1), ("trace".into(), 1)])
    );
    writer.finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(records_of(&bytes), [anchor(1), anchor(2), end]);
    let decoded = zstd::decode_all(&bytes[..]).unwrap();
    assert_eq!(decoded.iter().filter(|&&byte| byte == b'\n').count(), 4);
    assert!(decoded.starts_with(br#"{"kind":"trace","format":"whoclosed.trace","version":1,"#));
}

#[test]
fn the_file_is_its_owners_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.trace");
    Writer::create(&path, false).unwrap().finish().unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn an_existing_file_stays_unless_forced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.trace");
    fs::write(&path, "precious").unwrap();
    let error = Writer::create(&path, false).unwrap_err();
    assert!(matches!(error, WriteError::Exists { .. }));
    assert!(error.to_string().contains("--force"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    Writer::create(&path, true).unwrap().finish().unwrap();
    assert_eq!(records_of(&fs::read(&path).unwrap()), []);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn force_replaces_neither_links_nor_directories() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, "precious").unwrap();
    let link = directory.path().join("link");
    symlink(&target, &link).unwrap();
    for path in [link.as_path(), directory.path()] {
        let error = Writer::create(path, true).unwrap_err();
        assert!(matches!(error, WriteError::NotRegular { .. }), "{error}");
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no/such/a.trace");
    let error = Writer::create(&path, false).unwrap_err();
    assert!(error.to_string().contains("no/such/a.trace"), "{error}");
}

#[test]
fn a_full_frame_is_written_without_a_flush() {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let disk = SmallDisk {
        bytes: Arc::clone(&bytes),
        room: 1 << 30,
        can_cut: true,
    };
    let mut writer = Writer::start(Path::new("disk"), Box::new(disk)).unwrap();
    let header = writer.written();
    for number in 0..40_000 {
        writer.write(&anchor(number)).unwrap();
    }
    assert!(writer.written() > header);
    drop(writer);
    assert!(records_of(&bytes.lock().unwrap()).len() > 20_000);
}

#[test]
fn a_full_disk_spoils_no_earlier_frame() {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let disk = SmallDisk {
        bytes: Arc::clone(&bytes),
        room: 300,
        can_cut: true,
    };
    let mut writer = Writer::start(Path::new("disk"), Box::new(disk)).unwrap();
    writer.write(&anchor(1)).unwrap();
    writer.flush().unwrap();
    let kept_bytes = writer.written();
    for number in 0..1000 {
        writer.write(&anchor(number * 0x9e37_79b9_7f4a)).unwrap();
    }
    let error = writer.flush().unwrap_err();
    assert!(error.to_string().contains("disk") && error.to_string().contains("stay readable"));
    let WriteError::Write { lost, kept, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((lost, kept), (1000, kept_bytes));
    assert_eq!(records_of(&bytes.lock().unwrap()), [anchor(1)]);
    assert_eq!(writer.counts().get("anchor"), Some(&1));

    let last = Record::Loss(Loss {
        ns: 1,
        since_ns: None,
        what: "disk_full".into(),
        count: lost,
    });
    writer.write(&last).unwrap();
    writer.finish().unwrap();
    assert_eq!(records_of(&bytes.lock().unwrap()), [anchor(1), last]);
}

#[test]
fn a_frame_that_cannot_be_cut_off_again_is_reported_by_the_reader() {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let disk = SmallDisk {
        bytes: Arc::clone(&bytes),
        room: 250,
        can_cut: false,
    };
    let mut writer = Writer::start(Path::new("disk"), Box::new(disk)).unwrap();
    writer.write(&anchor(1)).unwrap();
    writer.flush().unwrap();
    for number in 0..1000 {
        writer.write(&anchor(number * 0x9e37_79b9_7f4a)).unwrap();
    }
    writer.flush().unwrap_err();
    drop(writer);
    let bytes = bytes.lock().unwrap();
    let mut trace = Trace::new(&bytes[..], "test").unwrap();
    assert_eq!(trace.by_ref().map(Result::unwrap).nth(1), Some(anchor(1)));
    assert_eq!(trace.by_ref().count(), 0);
    assert!(trace.cut_off().unwrap().contains("cut off"));
}

#[test]
fn kinds_are_the_words_in_the_file() {
    for record in [
        anchor(1),
        Record::Loss(Loss {
            ns: 1,
            since_ns: None,
            what: "x".into(),
            count: 2,
        }),
    ] {
        let value = serde_json::to_value(&record).unwrap();
        assert_eq!(value["kind"], kind(&record));
    }
}

#[test]
fn every_kind_and_every_field_is_documented() {
    let read =
        |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let page = read("../docs/trace-format.md");
    for kind in [
        "trace",
        "capture",
        "anchor",
        "connection",
        "logged",
        "continuation",
        "line",
        "process",
        "instance",
        "peer_close",
        "backend_exit",
        "backend_process",
        "accepted",
        "listener",
        "upstream",
        "loss",
        "end",
    ] {
        assert!(
            page.contains(&format!("### `{kind}`")),
            "docs/trace-format.md lacks {kind}"
        );
    }
    let records = [
        "record",
        "nginx_record",
        "connection_record",
        "backend_record",
    ]
    .map(|file| read(&format!("src/trace/{file}.rs")))
    .concat();
    let fields = records.lines().filter_map(|line| {
        line.strip_prefix("    pub ")?
            .split_once(": ")
            .map(|(name, _)| name)
    });
    for field in fields {
        let named = [format!("`{field}`"), format!("`{field}[]`")];
        assert!(
            named.iter().any(|name| page.contains(name)),
            "docs/trace-format.md lacks {field}"
        );
    }
}
