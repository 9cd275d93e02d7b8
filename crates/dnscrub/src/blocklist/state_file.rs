//! The file that keeps the blocklist's dynamic entries over a restart.
//!
//! JSON lines: a header with the format's version and the number of entries, then one entry a line.
//! It is replaced as a whole.

use std::io::{self, Write};

use dnscrub_packet_filter::Entry;
use serde::{Deserialize, Serialize};

use crate::state_folder::{Header, StateFile};

/// Name in the state folder.
pub(super) const NAME: &str = "blocklist.json";
/// What the header's `format` says.
const FORMAT: &str = "dnscrub-blocklist";
/// Version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct FirstLine {
    #[serde(flatten)]
    header: Header,
    entries: usize,
}

/// What a state file held.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The entries that could be read.
    pub(super) entries: Vec<Entry>,
    /// What is wrong with the file, if something is.
    pub(super) damage: Option<String>,
}

/// Reads it; a file that does not exist holds nothing. Of a damaged one everything that is legible is
/// returned.
pub(super) fn read(file: &StateFile) -> Read {
    match file.read() {
        Ok(None) => Read::default(),
        Ok(Some(octets)) => parse(&octets),
        Err(failure) => Read {
            damage: Some(format!("it cannot be read: {failure}")),
            ..Read::default()
        },
    }
}

pub(super) fn write(mut out: &mut impl Write, entries: &[Entry]) -> io::Result<()> {
    serde_json::to_writer(
        &mut out,
        &FirstLine {
            header: Header::new(FORMAT, VERSION),
            entries: entries.len(),
        },
    )?;
    for entry in entries {
        out.write_all(b"\n")?;
        serde_json::to_writer(&mut out, entry)?;
    }
    out.write_all(b"\n")
}

fn parse(octets: &[u8]) -> Read {
    let damaged = |damage: String| Read {
        entries: Vec::new(),
        damage: Some(damage),
    };
    let mut lines = (1_usize..)
        .zip(octets.split(|&octet| octet == b'\n'))
        .filter(|(_, line)| !line.is_empty());
    let Some((_, first)) = lines.next() else {
        return damaged("it is empty".to_owned());
    };
    let FirstLine { header, entries } = match serde_json::from_slice(first) {
        Ok(first) => first,
        Err(failure) => return damaged(format!("line 1 is not its header: {failure}")),
    };
    if let Err(damage) = header.check(FORMAT, VERSION) {
        return damaged(damage);
    }
    let mut read = Read::default();
    for (number, line) in lines {
        match serde_json::from_slice(line) {
            Ok(entry) => read.entries.push(entry),
            Err(failure) if read.damage.is_none() => {
                read.damage = Some(format!("line {number} is not an entry: {failure}"));
            }
            Err(_) => {}
        }
    }
    if read.damage.is_none() && read.entries.len() != entries {
        read.damage = Some(format!(
            "it holds {} entries, its header says {entries}",
            read.entries.len()
        ));
    }
    read
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use dnscrub_packet_filter::Origin;

    use super::*;

    fn entry(prefix: &str) -> Entry {
        Entry {
            prefix: prefix.parse().unwrap(),
            reason: "a \"reason\"\nof two lines".to_owned(),
            origin: Origin::Cli,
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            expires: None,
            hits: 3,
        }
    }

    fn written(entries: &[Entry]) -> String {
        let mut octets = Vec::new();
        write(&mut octets, entries).unwrap();
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        for entries in [
            vec![entry("192.0.2.0/24"), entry("2001:db8::/32")],
            Vec::new(),
        ] {
            let read = parse(written(&entries).as_bytes());
            assert_eq!((read.entries, read.damage), (entries, None));
        }
    }

    #[test]
    fn every_damage_is_named_and_the_rest_is_read() {
        let whole = written(&[entry("192.0.2.0/24"), entry("198.51.100.0/24")]);
        let short = whole.lines().take(2).collect::<Vec<_>>().join("\n");
        let cut = &whole[..whole.len() - 20];
        for (text, legible, damage) in [
            ("", 0, "it is empty"),
            ("\0\0\0\0", 0, "line 1 is not its header"),
            (
                "{\"format\":\"other\",\"version\":1,\"entries\":0}",
                0,
                "its format is \"other\"",
            ),
            (
                "{\"format\":\"dnscrub-blocklist\",\"version\":2,\"entries\":0}",
                0,
                "a newer dnscrub wrote it",
            ),
            (&short, 1, "it holds 1 entries, its header says 2"),
            (cut, 1, "line 3 is not an entry"),
        ] {
            let read = parse(text.as_bytes());
            let found = read.damage.unwrap();
            assert!(found.contains(damage), "{text:?}: {found}");
            assert_eq!(read.entries.len(), legible, "{text:?}");
        }
    }
}
