//! The command, run at this terminal: its output is seen as it comes, and the moment
//! from which it captures is not missed.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::clock::PATIENCE;
use lab::{processes, tool};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

/// Longest run of the command: its duration, its attaching and its draining.
const LONGEST: Duration = Duration::from_secs(60);
/// How long an interrupted command may take to print its report.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Whether Ctrl-C or a termination came; from [`Interrupted::watch`] on neither ends
/// this process, so that it can end the others.
pub(crate) struct Interrupted {
    /// SIGINT: at a terminal the command has received it too.
    int: Arc<AtomicBool>,
    term: Arc<AtomicBool>,
}

impl Interrupted {
    pub(crate) fn watch() -> Result<Self> {
        let watch = |signals: &[i32]| {
            let flag = Arc::new(AtomicBool::new(false));
            for &signal in signals {
                signal_hook::flag::register(signal, Arc::clone(&flag)).context("sigaction()")?;
            }
            anyhow::Ok(flag)
        };
        let int = watch(&[signal_hook::consts::SIGINT])?;
        let term = watch(&[signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP])?;
        Ok(Self { int, term })
    }

    fn came(&self) -> bool {
        self.int.load(Ordering::Relaxed) || self.term.load(Ordering::Relaxed)
    }

    fn reached_the_command(&self) -> bool {
        self.int.load(Ordering::Relaxed) && std::io::stdin().is_terminal()
    }
}

/// What the command left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Its stdout, if that was not for the terminal.
    pub(crate) stdout: Vec<u8>,
    /// The user ended it early.
    pub(crate) interrupted: bool,
}

/// Runs the command; calls `capturing` once it says that it captures.
pub(crate) fn run(
    command: &mut Command,
    keep_stdout: bool,
    interrupted: &Interrupted,
    capturing: impl FnOnce(),
) -> Result<Ended> {
    let (theirs, ours) = stderr()?;
    command.stdin(Stdio::inherit()).stderr(theirs);
    command.stdout(if keep_stdout {
        Stdio::piped()
    } else {
        Stdio::inherit()
    });
    let spawned = command.spawn().context("cannot run the command")?;
    // The command holds the other end of its stderr; it ends when no one else does.
    command.stderr(Stdio::null());
    let mut child = Guard(spawned);
    let (sender, said) = channel();
    let forwarding = thread::spawn(move || forward(ours, &mut std::io::stderr(), &sender));
    let stdout = child.0.stdout.take().map(|mut stdout| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before an error is parsed, and found to be cut.
            let _ = stdout.read_to_end(&mut bytes);
            bytes
        })
    });

    let mut capturing = Some(capturing);
    let mut deadline = Instant::now() + LONGEST;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            bail!("the command has not ended; killed it");
        }
        if interrupted.came() && !told {
            told = true;
            deadline = Instant::now() + LAST_WORDS;
            if !interrupted.reached_the_command() {
                processes::signal(child.0.id(), Signal::INT)?;
            }
        }
        if wait(&said)
            && let Some(capturing) = capturing.take()
        {
            capturing();
        }
    };
    let stdout = stdout.map(thread::JoinHandle::join).transpose();
    let Ok(stdout) = stdout else {
        bail!("the command's stdout could not be read")
    };
    // Ends with the command; a panic there has printed itself.
    let _ = forwarding.join();
    Ok(Ended {
        status,
        stdout: stdout.unwrap_or_default(),
        interrupted: interrupted.came(),
    })
}

/// True if the command said now that it captures.
fn wait(said: &Receiver<()>) -> bool {
    match said.recv_timeout(Duration::from_millis(20)) {
        Ok(()) => true,
        Err(RecvTimeoutError::Timeout) => false,
        Err(RecvTimeoutError::Disconnected) => {
            // Its stderr is closed: all that is left is to wait for its end.
            thread::sleep(Duration::from_millis(20));
            false
        }
    }
}

/// Ends the command however this process leaves.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        processes::end(&mut self.0, Signal::TERM, PATIENCE);
    }
}

/// Both ends of the command's stderr: a terminal of its own if ours is one, so that
/// it shows what it shows at a terminal, else a pipe.
fn stderr() -> Result<(Stdio, File)> {
    if !std::io::stderr().is_terminal() {
        let (reader, writer) = std::io::pipe().context("pipe()")?;
        return Ok((Stdio::from(writer), File::from(OwnedFd::from(reader))));
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).context("cannot open a terminal for the command")?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags).context("cannot open the terminal's other end")?;
    if let Ok(size) = tcgetwinsize(std::io::stderr()) {
        tcsetwinsize(&theirs, size)?;
    }
    Ok((Stdio::from(theirs), File::from(ours)))
}

/// Copies what the command says, and tells when a line of it begins with the word.
fn forward(mut from: impl Read, to: &mut impl Write, said: &Sender<()>) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    // A terminal whose other end is closed reads as an error (EIO), a pipe as 0.
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        // If our own stderr is gone the demo goes on without it.
        let _ = to.write_all(&buffer[..read]).and_then(|()| to.flush());
        for &byte in &buffer[..read] {
            line.push(byte);
            if matches!(byte, b'\n' | b'\r') {
                if plain(&line).starts_with(tool::CAPTURING) {
                    // Nobody waits for a second one.
                    let _ = said.send(());
                }
                line.clear();
            }
        }
    }
}

/// The line without control sequences (ECMA-48: ESC `[`, parameters, one letter).
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
        } else if characters.next() == Some('[') {
            // Consumes up to and including the sequence's final letter.
            let _ = characters
                .by_ref()
                .find(|character| ('@'..='~').contains(character));
        }
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_heard_among_colours_and_redrawn_lines_and_all_is_passed_on() {
        let said = b"whoclosed: loading\r\n\x1b[2K\r\x1b[32mcapturing\x1b[0m nginx 1\r\nmore";
        let (sender, heard) = channel();
        let mut seen = Vec::new();
        forward(&said[..], &mut seen, &sender);
        assert_eq!(seen, said);
        assert!(heard.try_recv().is_ok());
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn the_word_inside_a_line_is_not_heard() {
        let (sender, heard) = channel();
        forward(&b"not capturing\n"[..], &mut Vec::new(), &sender);
        assert!(heard.try_recv().is_err());
    }
}
