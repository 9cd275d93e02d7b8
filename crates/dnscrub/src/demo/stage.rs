//! What the demonstration takes place on: two name servers, the proxy in front of them, and a
//! folder with the proxy's configuration, socket and state.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dnscrub_embedded_authority::{Authority, Server, Settings};
use tempfile::TempDir;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, zones};
use crate::config::Disk;
use crate::config::runtime::{self, Surroundings};
use crate::control::server::{self, ControlServer};
use crate::program::{self, Running};

/// The configuration; `LISTEN` and `UPSTREAM-n` stand for addresses, `FOLDER` for the folder it is in.
const TEMPLATE: &str = include_str!("dnscrub.yaml");

/// Servers, proxy and folder. Dropping it without [`Stage::clear`] removes the folder all the same.
pub(super) struct Stage {
    /// Where the proxy listens.
    pub(super) address: SocketAddr,
    /// The proxy's configuration file.
    pub(super) configuration: PathBuf,
    /// Where the commands speak to the proxy.
    pub(super) socket: PathBuf,
    /// The proxy.
    pub(super) running: Running,
    /// Its control side.
    pub(super) control: ControlServer,
    servers: Vec<Server>,
    folder: TempDir,
}

impl Stage {
    /// Starts everything on free loopback ports, in the current runtime. The proxy is started the
    /// way `dnscrub run` starts it.
    pub(super) async fn set() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-")
            .tempdir()
            .map_err(Failure::system("cannot make a temporary folder"))?;
        write_log(folder.path()).map_err(Failure::system("cannot write the log"))?;
        let servers = (0..2)
            .map(|_| {
                let zones = zones::zones().map_err(io::Error::other)?;
                Server::start(Authority::new(zones), &Settings::default())
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(Failure::system("cannot start the embedded name servers"))?;
        let upstreams: Vec<_> = servers.iter().map(Server::address).collect();
        let address = free_address().map_err(Failure::system("no free port on loopback"))?;
        let configuration = write_configuration(folder.path(), address, &upstreams)
            .map_err(Failure::system("cannot write the configuration"))?;

        let loaded = runtime::load(&configuration, &Disk, Surroundings::at_start())
            .map_err(|problems| Failure::Start(problems.into()))?;
        let socket = loaded.startup.control.socket.clone();
        let running = program::start(configuration.clone(), loaded).map_err(Failure::Start)?;
        let control = server::start(&running.supervisor)
            .await
            .map_err(|failure| io::Error::other(failure.to_string()))
            .map_err(Failure::system("cannot start the control side"))?;
        Ok(Self {
            address,
            configuration,
            socket,
            running,
            control,
            servers,
            folder,
        })
    }

    /// Stops everything and removes the folder.
    pub(super) async fn clear(self) -> Result<(), Failure> {
        drop(self.control);
        self.running.stop().await;
        drop(self.servers);
        self.folder
            .close()
            .map_err(Failure::system("cannot remove the temporary folder"))
    }
}

/// Has the proxy's log written into `folder`: standard error belongs to the live view.
fn write_log(folder: &Path) -> io::Result<()> {
    let file = fs::File::create(folder.join("dnscrub.log"))?;
    // a second demonstration in one process, as in tests, keeps the first one's log
    let _ = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .with_target(false)
        .try_init();
    Ok(())
}

/// Writes `dnscrub.yaml` into `folder`, with the addresses and paths in place, and the zone files.
fn write_configuration(
    folder: &Path,
    listen: SocketAddr,
    upstreams: &[SocketAddr],
) -> io::Result<PathBuf> {
    let mut text = TEMPLATE
        .replace("LISTEN", &listen.to_string())
        .replace("FOLDER", &folder.display().to_string());
    for (number, upstream) in (1..).zip(upstreams) {
        text = text.replace(&format!("UPSTREAM-{number}"), &upstream.to_string());
    }
    for (name, zone) in zones::files() {
        fs::write(folder.join(name), zone)?;
    }
    let path = folder.join("dnscrub.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// An address of loopback whose port is free for UDP and TCP.
fn free_address() -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..20 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = udp.local_addr()?;
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::runtime::ZoneSource;

    #[test]
    fn the_configuration_loads() {
        let folder = tempfile::tempdir().unwrap();
        let upstreams = [
            "127.0.0.1:5301".parse().unwrap(),
            "127.0.0.1:5302".parse().unwrap(),
        ];
        let listen = "127.0.0.1:5300".parse().unwrap();
        let path = write_configuration(folder.path(), listen, &upstreams).unwrap();
        let configuration = runtime::load(&path, &Disk, Surroundings::at_start())
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(configuration.startup.listeners[0].addresses, [listen]);
        assert_eq!(
            configuration.startup.control.socket,
            folder.path().join("control.sock")
        );
        let found: Vec<_> = configuration
            .reloadable
            .forwarding
            .snapshot(std::time::Instant::now());
        let found: Vec<_> = found.iter().map(|upstream| upstream.address).collect();
        assert_eq!(found, upstreams);
        let rules: Vec<_> = configuration
            .reloadable
            .scoring
            .rules()
            .map(|rule| rule.name.to_owned())
            .collect();
        assert_eq!(rules, ["any-flood", "any-over-udp", "one-network"]);
        for zone in configuration.reloadable.zone_settings.iter() {
            let ZoneSource::File(path) = &zone.source else {
                panic!("{zone:?}");
            };
            assert!(path.exists(), "{path:?}");
        }
    }

    #[test]
    fn the_zones_parse_and_no_host_is_as_long_as_a_random_one() {
        let zones = zones::zones().unwrap();
        assert_eq!(zones.len(), zones::ORIGINS.len());
        assert!(zones::HOSTS.iter().all(|host| host.len() < 12));
    }
}
