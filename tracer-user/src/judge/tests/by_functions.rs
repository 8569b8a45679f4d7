//! Captures that saw nginx's sends and receives at the ends of functions.

use super::*;
use crate::trace::record::{Clients, Hook, ProxyLocation};

fn hooks(by: Option<&str>) -> Vec<Hook> {
    let hook = |name: &str, by: Option<&str>| Hook {
        name: name.to_owned(),
        attached: true,
        by: by.map(str::to_owned),
        reason: None,
    };
    vec![
        hook("sock_send_length", by),
        hook("sock_recv_length", by),
        hook("tcp_send_reset", Some("tcp_send_reset without the reason")),
    ]
}

/// The note about what such programs do not see.
fn note(by: Option<&str>, change: impl FnOnce(&mut Nginx)) -> Option<String> {
    let mut nginx = nginx();
    nginx.configuration.as_mut().unwrap().clients = Some(Clients::default());
    change(&mut nginx);
    let mut records = beginning_with(nginx);
    let Record::Capture(capture) = &mut records[0] else {
        panic!("no capture");
    };
    capture.hooks = hooks(by);
    let notes = judge(records).finish(Vec::new()).report.notes;
    let mut told = notes
        .into_iter()
        .filter(|note| note.contains("TCP functions"));
    let note = told.next();
    assert_eq!(told.next(), None);
    note
}

const FEXIT: Option<&str> = Some("fexit tcp_sendmsg");

fn clients(nginx: &mut Nginx, clients: Clients) {
    nginx.configuration.as_mut().unwrap().clients = Some(clients);
}

#[test]
fn nothing_is_said_of_them_where_nothing_goes_past_them() {
    assert_eq!(note(FEXIT, |_| ()), None);
    let unix = |nginx: &mut Nginx| {
        let unix = true;
        clients(
            nginx,
            Clients {
                unix,
                ..Clients::default()
            },
        );
    };
    assert_eq!(note(None, unix), None);
}

#[test]
fn what_goes_past_them_is_called_unknown_and_nothing_else() {
    let unix = note(FEXIT, |nginx| {
        let unix = true;
        clients(
            nginx,
            Clients {
                unix,
                ..Clients::default()
            },
        );
    });
    assert_eq!(
        unix.unwrap(),
        "nginx's sends and receives were seen at the ends of the kernel's TCP functions alone \
         (fexit tcp_sendmsg); not known: whether clients on unix sockets were served"
    );
    let encrypted = note(FEXIT, |nginx| {
        let kernel_tls = true;
        clients(
            nginx,
            Clients {
                kernel_tls,
                ..Clients::default()
            },
        );
    });
    let encrypted = encrypted.unwrap();
    let last = "not known: whether clients were served for whom the kernel encrypts (KTLS)";
    assert!(encrypted.ends_with(last), "{encrypted}");
    let to_backend = note(FEXIT, |nginx| {
        let place = ProxyLocation {
            settings: [(
                "proxy_ssl_conf_command".to_owned(),
                "Options KTLS".to_owned(),
            )]
            .into(),
            ..ProxyLocation::default()
        };
        nginx.configuration.as_mut().unwrap().locations.push(place);
    });
    let to_backend = to_backend.unwrap();
    let last = "not known: what was sent to backends for which the kernel encrypts (KTLS)";
    assert!(to_backend.ends_with(last), "{to_backend}");
}

#[test]
fn a_configuration_that_is_not_known_may_have_all_of_it() {
    let unread = note(FEXIT, |nginx| nginx.configuration = None);
    let unread = unread.unwrap();
    assert!(unread.contains("unix sockets") && unread.contains("sent to backends"));
    assert!(unread.ends_with("and that is not known"), "{unread}");
    let changed = note(FEXIT, |nginx| nginx.changed_before_start = true);
    assert_eq!(changed.unwrap(), unread);
    // An older trace does not tell how clients come.
    let old = note(FEXIT, |nginx| {
        nginx.configuration.as_mut().unwrap().clients = None
    });
    let old = old.unwrap();
    assert!(old.contains("unix sockets") && !old.contains("sent to backends"));
}
