//! A backend that is a process of its own, takes one request and ends as its argument
//! says: `wait` (for whoever kills it), `abort`, `exit` (with status 3), or `unread`
//! (closes with the request's body unread, then waits). It prints the address where it
//! listens, IPv4 loopback unless a second argument names one, then that of the connection
//! as soon as the request is there.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Bytes of the body that `unread` leaves.
const BODY: usize = 1024;

fn say(what: impl std::fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{what}")?;
    stdout.flush()
}

/// Length of the request's head, once it and `body` bytes have arrived.
fn arrived(stream: &TcpStream, body: usize) -> io::Result<usize> {
    let mut buffer = [0; 65_536];
    loop {
        let length = stream.peek(&mut buffer)?;
        let head = buffer[..length]
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n");
        if let Some(head) = head
            && length >= head + 4 + body
        {
            return Ok(head + 4);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn main() -> io::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let address = std::env::args().nth(2);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    say(listener.local_addr()?)?;
    let (mut stream, peer) = listener.accept()?;
    let body = if mode == "unread" { BODY } else { 0 };
    let head = arrived(&stream, body)?;
    stream.read_exact(&mut vec![0; head])?;
    say(peer)?;
    match mode.as_str() {
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "unread" => drop(stream),
        _ => {}
    }
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}
