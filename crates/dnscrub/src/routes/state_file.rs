//! What there is of routes over a restart: a file in the state folder.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::book;
use crate::state_folder::{StateFile, from_json};

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
struct Content<T> {
    routes: T,
}

/// The file, and what it holds.
#[derive(Debug)]
pub(super) struct RoutesFile {
    file: StateFile,
    saved: Option<Kept>,
    failing: bool,
}

impl RoutesFile {
    /// The file of this folder, with what it holds. One that is damaged is set aside, and nothing is kept.
    pub(super) fn open(folder: &Path) -> (Self, Kept) {
        let file = StateFile::new(folder, NAME);
        let kept = read(&file).unwrap_or_else(|damage| {
            file.set_aside(
                &damage,
                "the file with routes is damaged, and only open incidents ask for theirs",
            );
            Kept::default()
        });
        let file = Self {
            file,
            saved: None,
            failing: false,
        };
        (file, kept)
    }

    /// Writes it unless it is so already. Waits for the disk.
    pub(super) fn save(&mut self, kept: Kept) {
        // where there are no routes there need not be a file, unless one holds what is over by now
        let is_needed =
            self.saved.is_some() || kept != Kept::default() || self.file.path().exists();
        if self.saved.as_ref() == Some(&kept) || !is_needed {
            return;
        }
        let written = self
            .file
            .replace_json(FORMAT, VERSION, &Content { routes: &kept });
        let failing = std::mem::replace(&mut self.failing, written.is_err());
        match written {
            Ok(()) => {
                self.saved = Some(kept);
                if failing {
                    info!("routes are saved again");
                }
            }
            Err(failure) if !failing => error!(
                path = %self.file.path().display(), %failure,
                "routes are not saved: a restart would not know of them; it is tried again each second"
            ),
            Err(_) => {}
        }
    }
}

fn read(file: &StateFile) -> Result<Kept, String> {
    match file.read() {
        Ok(Some(octets)) => {
            from_json::<Content<Kept>>(&octets, FORMAT, VERSION).map(|content| content.routes)
        }
        Ok(None) => Ok(Kept::default()),
        Err(failure) => Err(failure.to_string()),
    }
}
