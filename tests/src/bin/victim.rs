//! A backend that is a process of its own, takes one request and ends as its first
//! argument says. The second says how long the request's body is, the third, if there is
//! one, where it listens. It prints the address where it does, then that of the connection
//! as soon as the request is there.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

/// Bytes that a request's head may have.
const HEAD: usize = 65_536;

fn say(what: impl std::fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{what}")?;
    stdout.flush()
}

/// Length of the request's head, once it and the body have arrived.
fn arrived(stream: &TcpStream, body: usize) -> io::Result<usize> {
    let mut buffer = vec![0; HEAD + body];
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

fn wait() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Threads that have nothing to do with the connection, and live when the process ends.
fn bystanders() {
    for _ in 0..3 {
        thread::spawn(|| wait());
    }
}

/// Takes memory until the kernel has none left for this process.
fn take_all_memory() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(vec![1; 1 << 20]);
        std::hint::black_box(&taken);
    }
}

/// Closes what a forked child has inherited.
fn close_copy(descriptor: RawFd) {
    // SAFETY: the child's own copy, which nothing else of the child uses.
    unsafe { rustix::io::close(descriptor) };
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    if mode == "heir" {
        // Holds the connection as its stdin, and leaves it to the kernel.
        thread::sleep(Duration::from_millis(50));
        std::process::exit(4);
    }
    let body = arguments.next().and_then(|bytes| bytes.parse().ok());
    let body: usize = body.ok_or_else(|| io::Error::other("no length of the body"))?;
    let address = arguments.next();
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    // All of it is to lie unread; accepted sockets inherit this. The kernel takes half of
    // it for itself.
    sockopt::set_socket_recv_buffer_size_force(&listener, 4 * (HEAD + body))?;
    say(listener.local_addr()?)?;
    let (mut stream, peer) = listener.accept()?;
    let head = arrived(&stream, body)?;
    let read = if mode == "unread" { head } else { head + body };
    stream.read_exact(&mut vec![0; read])?;
    say(peer)?;
    match mode.as_str() {
        // For whoever kills it.
        "wait" => {}
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        // By a call, with the request's body unread.
        "unread" => drop(stream),
        // By a call, with an RST that nothing asked for.
        "reset" => {
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            drop(stream);
        }
        // By a call, and then by itself: from a thread beside others.
        "close-then-exit" => {
            bystanders();
            thread::spawn(|| {
                drop(stream);
                std::process::exit(5)
            });
        }
        // A thread beside others brings the process down.
        "thread-aborts" => {
            bystanders();
            thread::spawn(|| std::process::abort());
        }
        // By a call, while a child that is to run another program has a copy still.
        "close-beside-a-start" => {
            let (mut here, mut there) = UnixStream::pair()?;
            let mut command = Command::new("/bin/true");
            // SAFETY: read(2) and write(2) only, which a forked child may call.
            unsafe {
                command.pre_exec(move || {
                    there.write_all(b"r")?;
                    there.read_exact(&mut [0])
                });
            }
            let starter = thread::spawn(move || command.spawn()?.wait());
            here.read_exact(&mut [0])?;
            drop(stream);
            here.write_all(b"g")?;
            let _status = starter.join();
        }
        // By a child that is to run another program and closes its copy itself, the last.
        "close-in-a-start" => {
            let copy = stream.as_raw_fd();
            let (mut here, mut there) = UnixStream::pair()?;
            let mut command = Command::new("/bin/true");
            // SAFETY: read(2), write(2) and close(2) only, which a forked child may call.
            unsafe {
                command.pre_exec(move || {
                    there.write_all(b"r")?;
                    there.read_exact(&mut [0])?;
                    close_copy(copy);
                    Ok(())
                });
            }
            let starter = thread::spawn(move || command.spawn()?.wait());
            here.read_exact(&mut [0])?;
            drop(stream);
            here.write_all(b"g")?;
            let _status = starter.join();
        }
        // Another process inherits the connection and ends; this one has closed before.
        "inherit" => {
            let mut heir = Command::new(std::env::current_exe()?)
                .arg("heir")
                .stdin(Stdio::from(OwnedFd::from(stream)))
                .spawn()?;
            say(heir.id())?;
            heir.wait()?;
        }
        "out-of-memory" => take_all_memory(),
        _ => return Err(io::Error::other(format!("no such mode: {mode}"))),
    }
    wait()
}
