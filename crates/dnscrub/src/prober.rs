//! Active health checks: sends the probes that [`Checker`] asks for and tells it what came back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnscrub_forwarding::{Checker, Policy, Probe, ProbeResult, State, Transition};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tracing::{info, warn};

/// Longest the prober waits when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// The program's one prober.
pub struct Prober {
    checker: Mutex<Checker>,
    adopted: Notify,
}

impl Prober {
    /// A prober of the policy's upstreams.
    #[must_use]
    pub fn new(policy: &Policy) -> Arc<Self> {
        Arc::new(Self {
            checker: Mutex::new(Checker::new(policy, Instant::now())),
            adopted: Notify::new(),
        })
    }

    /// Goes over to another policy.
    pub fn adopt(&self, policy: &Policy) {
        self.with(|checker| checker.adopt(policy, Instant::now()));
        self.adopted.notify_one();
    }

    /// Probes until dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            while let Some(probe) = self.with(|checker| checker.next_probe(Instant::now())) {
                tokio::spawn(Arc::clone(&self).check(probe));
            }
            let due = self.with(|checker| checker.next_due());
            let wait = due.map_or(IDLE, |due| {
                due.saturating_duration_since(Instant::now()).min(IDLE)
            });
            // a result can make the next probe due, so look again soon
            let _ =
                tokio::time::timeout(wait.max(Duration::from_millis(1)), self.adopted.notified())
                    .await;
        }
    }

    async fn check(self: Arc<Self>, probe: Probe) {
        let id = rand::random();
        let result = match tokio::time::timeout(probe.timeout, ask(&probe, id)).await {
            Ok(Ok(result)) => result,
            Ok(Err(failure)) if failure.kind() == io::ErrorKind::ConnectionRefused => {
                ProbeResult::Refused
            }
            Ok(Err(_)) => ProbeResult::Unsent,
            Err(_) => ProbeResult::Timeout,
        };
        if let Some(transition) =
            self.with(|checker| checker.on_result(&probe, result, Instant::now()))
        {
            report(&transition);
        }
        self.adopted.notify_one();
    }

    fn with<T>(&self, f: impl FnOnce(&mut Checker) -> T) -> T {
        f(&mut self.checker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn ask(probe: &Probe, id: u16) -> io::Result<ProbeResult> {
    let address = probe.upstream.address();
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(address).await?;
    let sent = Instant::now();
    socket.send(&probe.packet(id)).await?;
    let mut buffer = [0; dnscrub_net::BUFFER];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let response = buffer.get(..len).unwrap_or_default();
        if let Some(result) = probe.judge(id, response, sent.elapsed()) {
            return Ok(result);
        }
    }
}

fn report(transition: &Transition) {
    let (upstream, address) = (&transition.label, transition.upstream.address());
    let result = transition.result.describe();
    match transition.to {
        State::Down => warn!(%upstream, %address, result, "upstream is down"),
        State::Up | State::Untested => info!(%upstream, %address, result, "upstream is up"),
    }
}
