//! `whoclosed-crowd NUMBER SECONDS`: so many threads that fill a processor with sends and
//! receives, each on a TCP connection of its own over loopback. Its handle is `lab::crowd`.
//!
//! It ends when its stdin does, so with whoever holds the other end, or when its time is
//! over; then it prints how many sends there were, and as many receives.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::crowd::{MOST_SECONDS, MOST_SENDERS};

/// Sends between two looks at the clock.
const STRETCH: u32 = 64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str, most: u32| {
        let given = arguments.next().and_then(|text| text.parse().ok());
        match given {
            Some(given) if (1..=most).contains(&given) => Ok(given),
            _ => bail!("{name}: a number from 1 to {most}"),
        }
    };
    let senders = number("how many senders", MOST_SENDERS)?;
    let seconds = number("for how many seconds", MOST_SECONDS)?;
    let ends = Instant::now() + Duration::from_secs(seconds.into());
    let stop = Arc::new(AtomicBool::new(false));
    let crowd = (0..senders)
        .map(|_| {
            let (here, there) = pair().context("no connection over loopback")?;
            let stop = Arc::clone(&stop);
            Ok(thread::spawn(move || send(here, there, ends, &stop)))
        })
        .collect::<Result<Vec<_>>>()?;
    // Whoever waits for the crowd knows now that it is there.
    println!("crowded");
    thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            // Nothing comes: it ends, or cannot be read.
            let _ = io::stdin().read(&mut [0]);
            stop.store(true, Ordering::Relaxed);
        }
    });
    let mut sent = 0;
    for sender in crowd {
        match sender.join() {
            Ok(of_it) => sent += of_it.context("a sender failed")?,
            Err(_) => bail!("a sender panicked"),
        }
    }
    println!("{sent}");
    Ok(())
}

/// Both ends of a connection.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    Ok((here, listener.accept()?.0))
}

fn send(
    mut here: TcpStream,
    mut there: TcpStream,
    ends: Instant,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) && Instant::now() < ends {
        for _ in 0..STRETCH {
            here.write_all(b"x")?;
            there.read_exact(&mut [0])?;
        }
        sent += u64::from(STRETCH);
    }
    Ok(sent)
}
