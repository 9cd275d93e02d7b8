//! A program without workers, for tests of what stands around it.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tempfile::TempDir;

use crate::blocklist::BlocklistOwner;
use crate::config::Disk;
use crate::config::runtime::{self, Surroundings};
use crate::data_path::BlockRequest;
use crate::learned::LearnedFile;
use crate::notify::Notifier;
use crate::prober::Prober;
use crate::shared::Shared;
use crate::supervisor::{Owners, Supervisor};
use crate::zone_loader::ZoneLoader;

/// A configuration with one of each.
pub(crate) const PLAIN: &str = r#"
listen: [ { name: main, address: "127.0.0.1:5399" } ]
pools:
  default:
    upstreams: [ { address: "127.0.0.1:5301" } ]
rules:
  - { name: no-any, when: { qtype: ANY }, do: drop }
blocklist: { never-block: [ 203.0.113.0/24 ] }
"#;

/// The program and its folder, which goes with it.
pub(crate) struct Program {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) folder: TempDir,
    _blocks: SyncSender<BlockRequest>,
}

/// A program of two workers' counters that is configured so; state and socket are in its folder.
pub(crate) fn program(yaml: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnscrub.yaml");
    let here = folder.path().display();
    let around = format!(
        "workers: 2\nstate: {{ folder: \"{here}\" }}\ncontrol: {{ socket: \"{here}/control.sock\" }}\n"
    );
    std::fs::write(&path, around + yaml).unwrap();
    let configuration = runtime::load(&path, &Disk, Surroundings::at_start())
        .unwrap_or_else(|problems| panic!("{problems}"));
    let policy = Arc::new(configuration.reloadable);
    let shared = Shared::new(Arc::clone(&policy), configuration.startup.workers);
    let (blocks, requests) = sync_channel(16);
    let blocklist = BlocklistOwner::open(
        &configuration.startup,
        &policy,
        configuration.blocklists,
        Arc::clone(&shared),
        requests,
    )
    .unwrap();
    let prober = Prober::new(&policy.forwarding);
    let folder_of_state = &configuration.startup.state_folder;
    let notifier = Notifier::start(folder_of_state, Arc::clone(&policy.notify), &shared).unwrap();
    let (response, incidents) =
        crate::program::record(&configuration.startup, &shared, &blocklist, &[]).unwrap();
    let (learned, _) = LearnedFile::open(&configuration.startup.state_folder);
    let supervisor = Supervisor::new(
        path,
        configuration.startup,
        shared,
        Owners {
            blocklist,
            prober,
            zones: ZoneLoader::new(),
            learned,
            notifier,
            response,
            incidents,
        },
        Vec::new(),
    );
    Program {
        supervisor,
        folder,
        _blocks: blocks,
    }
}
