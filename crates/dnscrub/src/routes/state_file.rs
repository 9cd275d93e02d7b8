//! What there is of routes over a restart: a file in the state folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::book;
use crate::state_folder::{self, Header};

/// Name in the state folder.
const NAME: &str = "routes.json";
/// What the file's `format` says.
const FORMAT: &str = "dnscrub-routes";
/// Version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// The book.
    pub(super) book: book::Kept,
    /// An operator has withdrawn the node's own route.
    pub(super) anycast_held: bool,
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    #[serde(flatten)]
    header: Header,
    routes: T,
}

/// The file, and what it holds.
#[derive(Debug)]
pub(super) struct StateFile {
    folder: PathBuf,
    saved: Option<Kept>,
    failing: bool,
}

impl StateFile {
    /// The file of this folder, with what it holds. One that is damaged is set aside, and nothing is kept.
    pub(super) fn open(folder: &Path) -> (Self, Kept) {
        let kept = match read(folder) {
            Ok(kept) => kept,
            Err(damage) => {
                let path = folder.join(NAME);
                let path = path.display();
                match state_folder::set_aside(folder, NAME) {
                    Ok(aside) => error!(
                        %path, damage, aside = %aside.display(),
                        "the file with routes is damaged: it was set aside, and only open incidents ask for theirs"
                    ),
                    Err(failure) => error!(
                        %path, damage, %failure,
                        "the file with routes is damaged and cannot be set aside; only open incidents ask for theirs"
                    ),
                }
                Kept::default()
            }
        };
        let file = Self {
            folder: folder.to_owned(),
            saved: None,
            failing: false,
        };
        (file, kept)
    }

    /// Writes it unless it is so already. Waits for the disk.
    pub(super) fn save(&mut self, kept: Kept) {
        // where there are no routes there need not be a file
        if self.saved.as_ref() == Some(&kept) || self.saved.is_none() && kept == Kept::default() {
            return;
        }
        let written = state_folder::replace(&self.folder, NAME, 0o640, |file| {
            let content = File {
                header: Header::new(FORMAT, VERSION),
                routes: &kept,
            };
            serde_json::to_writer(file, &content).map_err(io::Error::from)
        });
        let failing = std::mem::replace(&mut self.failing, written.is_err());
        match written {
            Ok(()) => {
                self.saved = Some(kept);
                if failing {
                    info!("routes are saved again");
                }
            }
            Err(failure) if !failing => error!(
                path = %self.folder.join(NAME).display(), %failure,
                "routes are not saved: a restart would not know of them; it is tried again each second"
            ),
            Err(_) => {}
        }
    }
}

fn read(folder: &Path) -> Result<Kept, String> {
    let octets = match fs::read(folder.join(NAME)) {
        Ok(octets) => octets,
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(failure) => return Err(failure.to_string()),
    };
    let not_routes = |failure| format!("it does not hold routes: {failure}");
    let file: File<serde_json::Value> = serde_json::from_slice(&octets).map_err(not_routes)?;
    file.header.check(FORMAT, VERSION)?;
    serde_json::from_value(file.routes).map_err(not_routes)
}
