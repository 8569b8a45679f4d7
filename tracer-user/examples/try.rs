use tracer_user::capture::programs::*;
fn main() -> anyhow::Result<()> {
    let t = std::time::Instant::now();
    let mut p = Programs::load(&Options {
        names: vec!["nginx".into(), "curl".into()],
        master: None,
        log_has_file_name: false,
        diagnostics: false,
    })?;
    println!("{:#?} {:?}", p.hooks, t.elapsed());
    if let Some(b) = std::env::args().nth(1) {
        println!("{:?}", p.attach_log_call(std::path::Path::new(&b)));
    }
    let mut ring = p.take_records()?;
    std::process::Command::new("curl")
        .args(["-s", "http://127.0.0.1:1/"])
        .status()?;
    let mut sv = std::process::Command::new("python3")
        .args(["-m", "http.server", "18181", "--bind", "127.0.0.1"])
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(800));
    std::process::Command::new("curl")
        .args(["-s", "-o", "/dev/null", "http://127.0.0.1:18181/"])
        .status()?;
    let mut c = std::process::Command::new("curl")
        .args(["-s", "-o", "/dev/null", "telnet://127.0.0.1:18181/"])
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    println!("OPEN {:#?}", p.open_connections());
    c.kill()?;
    c.wait()?;
    sv.kill()?;
    sv.wait()?;
    while let Some(r) = ring.next() {
        println!(
            "{:?}",
            tracer_ebpf::connection::Connection::decode(&r)
                .map(|c| tracer_user::capture::convert::connection(&c, 0))
        );
    }
    println!(
        "{:?}",
        p.upstreams()?
            .iter()
            .map(|(k, c)| (k.port, c.connects, c.exchanges, c.connect_failures))
            .collect::<Vec<_>>()
    );
    println!("{:?}", p.new_losses()?);
    Ok(())
}
