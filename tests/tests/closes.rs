//! No close that is on record as an act waits for a child of the lab to exec. In a process
//! of its own: children that others start have copies of its sockets, too.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use lab::clock::{PATIENCE, wait_for};
use lab::processes::{children, closing, spawn};
use lab::sockets::{self, State};

#[test]
fn a_socket_is_closed_at_once_although_a_child_is_being_started() {
    // The child looks in every place before its exec: long enough to be seen.
    let places = "/x:".repeat(40_000) + "/bin:/usr/bin";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut late = 0;
    for _ in 0..5 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, remote) = listener.accept().unwrap();
        let ends = (server.local_addr().unwrap(), remote);
        let known = children(std::process::id()).unwrap();
        let places = places.clone();
        let starting = std::thread::spawn(move || {
            let mut command = Command::new("true");
            spawn(command.env("PATH", places)).unwrap().wait().unwrap();
        });
        wait_for("the child", PATIENCE, || {
            let now = children(std::process::id())?;
            let new = now.iter().any(|pid| !known.contains(pid));
            Ok((new || starting.is_finished()).then_some(()))
        })
        .unwrap();
        let closing = closing();
        drop(server);
        drop(closing);
        // The last close of a socket changes its state before it returns.
        let state = sockets::find(&[ends]).unwrap()[0].map(|socket| socket.state);
        late += usize::from(state == Some(State::ESTABLISHED));
        starting.join().unwrap();
        drop(client);
    }
    assert_eq!(late, 0, "closes that a child delayed");
}
