//! Serves one zone until it is interrupted:
//! `cargo run --release -p dnscrub-embedded-authority --example serve -- example.com zone.db 127.0.0.1:5300 1`
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;

use dnscrub_embedded_authority::{Authority, Server, Settings, Zone};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [origin, file, address, threads] = arguments.as_slice() else {
        return Err("usage: serve ORIGIN ZONE-FILE ADDRESS:PORT THREADS".into());
    };
    let zone = Zone::parse(origin, &std::fs::read_to_string(file)?)?;
    println!(
        "{}: serial {}, {} records",
        zone.origin(),
        zone.serial(),
        zone.record_count()
    );
    let settings = Settings {
        listen: vec![address.parse()?],
        threads: threads.parse()?,
        ..Settings::default()
    };
    let server = Server::start(Authority::new([zone]), &settings)?;
    println!("serving on {}", server.address());
    loop {
        std::thread::park();
    }
}
