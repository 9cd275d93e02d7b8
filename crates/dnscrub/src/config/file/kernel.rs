//! `kernel` and `kernel-limit` as they are written.

use std::collections::BTreeMap;
use std::time::Duration;

use dnscrub_scoring::config::{Rate, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::OneOrMany;

/// The program in the kernel that a level can have limit queries before dnscrub sees them
/// (`response.attack.kernel-limit`). Off without this. It takes Linux 5.12, CAP_BPF, CAP_PERFMON and
/// CAP_NET_ADMIN.
///
/// ```yaml
/// kernel: { interface: eth0 }
/// response:
///   attack:
///     kernel-limit: { v4: { 32: 200/s, 24: 2000/s }, v6: { 64: 200/s, 48: 2000/s } }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// The interface that queries come in on, or a list of them. One that is not there is no error: it is tried again
    /// every ten seconds.
    pub interface: OneOrMany<String>,
    /// Where in the kernel packets are looked at.
    #[serde(default)]
    pub mode: KernelMode,
}

/// Where in the kernel packets are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KernelMode {
    /// In the driver if it can, or else in the kernel's own code. `dnscrub status` says which.
    #[default]
    Auto,
    /// In the driver only.
    Driver,
    /// In the kernel's own code: slower, with every driver.
    Generic,
}

/// Limits of queries over UDP by source, kept in the kernel. Takes `kernel`. The kernel knows no zones: the limits
/// are on while the whole or any zone has the level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct KernelLimit {
    /// Rates by IPv4 prefix length (0 to 32), at most four; a length left out, or `off`, has no limit.
    pub v4: BTreeMap<u8, Rate>,
    /// Rates by IPv6 prefix length (0 to 128), at most four; a length left out, or `off`, has no limit.
    pub v6: BTreeMap<u8, Rate>,
    /// How long a source that was quiet may save up for: what its rate allows in this time may
    /// come at once.
    pub burst: Span,
    /// Times as much as it usually sends that a source or network may send, where that is more than its rate
    /// here; and times the rate here, for a source that proved its address lately.
    #[schemars(range(min = 1.0))]
    pub factor: f32,
}

impl Default for KernelLimit {
    fn default() -> Self {
        Self {
            v4: BTreeMap::new(),
            v6: BTreeMap::new(),
            burst: Span(Duration::from_secs(1)),
            factor: 4.0,
        }
    }
}
