//! try
use lab::backend::*; use lab::behaviour::*; use lab::load::*; use lab::nginx::*; use lab::stale::*;
use std::time::Duration;
fn main() -> anyhow::Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(5, |t| t.parse().unwrap());
    for (address, means, method) in [(IPV4, Means::Fin, Method::Get),(IPV6, Means::Fin, Method::Get),(IPV4, Means::Fin, Method::Post),(IPV4, Means::Rst, Method::Get),(IPV6, Means::Rst, Method::Post)] {
        let backend = Backend::start(address, Habits{ idle: Some(Idle{after: Duration::from_millis(700), means}), ..Habits::default()})?;
        let nginx = Nginx::start(&Configuration::new(vec![Upstream::new("stale", backend.address()).keepalive(16)]))?;
        let mut made=0; let mut worst=Duration::ZERO; let mut stop=Duration::ZERO; let mut late=Duration::ZERO;
        let mut codes=std::collections::BTreeMap::new();
        let mut errors=0;
        for _ in 0..rounds {
            match race(&nginx,&backend,&Race{location:"/stale/".into(),requests:4,method,served_before:3}) {
              Ok(raced)=>{ made+=raced.stale.len(); stop=stop.max(raced.stopped);
                for s in &raced.stale { worst=worst.max(s.idle); late=late.max(s.idle_before_request); }
                for (_,r) in &raced.responses { *codes.entry(r.status).or_insert(0)+=1; } }
              Err(e)=>{errors+=1; println!("{e:#}");}
            }
        }
        let lines=nginx.upstream_lines()?;
        println!("{address} {means:?} {method}: made {made} lines {} errors {errors} worst idle {worst:?} latest send {late:?} max stop {stop:?} {codes:?}", lines.len());
        println!("  {}", lines.last().cloned().unwrap_or_default());
    }
    Ok(())
}
