//! The file that keeps over a restart what was learned of sources, names and usual rates.
//!
//! Binary: the letters `DNSCRUBL`, the format's version, the number of sections; then each section
//! with its kind, its length and a checksum in front. One section is what all workers share, with the
//! seed that everything else is keyed with; one is the detector's baselines; the others are the workers'
//! parts. It is replaced as a whole. What it holds can be learned again, so a file that is not whole is ignored and replaced at
//! the next save.
//!
//! Only the user dnscrub runs as may read it: whoever knows the seed can find names and addresses
//! that collide.

use std::io::{self, Write};

use crate::state_folder::StateFile;

/// Name in the state folder.
pub(super) const NAME: &str = "learned.bin";
/// What the file begins with.
const MAGIC: &[u8; 8] = b"DNSCRUBL";
/// Version of the format that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Kinds of sections.
const SHARED: u8 = 1;
const WORKER: u8 = 2;
const DETECTOR: u8 = 3;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// What all workers share.
    pub(super) shared: Vec<u8>,
    /// What the detector of incidents takes for usual.
    pub(super) detector: Vec<u8>,
    /// The workers' parts.
    pub(super) workers: Vec<Vec<u8>>,
}

/// Reads it; nothing where there is no file.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(file: &StateFile) -> Result<Option<Contents>, String> {
    let octets = file.read().map_err(|failure| failure.to_string())?;
    octets.map(|octets| parse(&octets)).transpose()
}

pub(super) fn write(file: &mut impl Write, contents: &Contents) -> io::Result<()> {
    let workers = contents.workers.iter().map(|part| (WORKER, part));
    let sections = [(SHARED, &contents.shared), (DETECTOR, &contents.detector)];
    let count = u32::try_from(contents.workers.len().saturating_add(sections.len()))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    file.write_all(MAGIC)?;
    file.write_all(&VERSION.to_le_bytes())?;
    file.write_all(&count.to_le_bytes())?;
    for (kind, content) in sections.into_iter().chain(workers) {
        file.write_all(&[kind])?;
        file.write_all(&(content.len() as u64).to_le_bytes())?;
        file.write_all(&checksum(content).to_le_bytes())?;
        file.write_all(content)?;
    }
    Ok(())
}

fn parse(octets: &[u8]) -> Result<Contents, String> {
    let mut rest = octets;
    let cut = || "it ends too early".to_owned();
    if take(&mut rest).as_ref() != Some(MAGIC) {
        return Err(format!(
            "it does not begin with {}: it is no file of dnscrub's",
            MAGIC.escape_ascii()
        ));
    }
    let version = take(&mut rest).map(u32::from_le_bytes).ok_or_else(cut)?;
    if version != VERSION {
        return Err(format!(
            "it has version {version} of the format, this program reads {VERSION}: another dnscrub wrote it"
        ));
    }
    let count = take(&mut rest).map(u32::from_le_bytes).ok_or_else(cut)?;
    let mut contents = Contents::default();
    for number in 1..=count {
        let [kind] = take(&mut rest).ok_or_else(cut)?;
        let len = take(&mut rest).map(u64::from_le_bytes).ok_or_else(cut)?;
        let sum = take(&mut rest).map(u64::from_le_bytes).ok_or_else(cut)?;
        let len = usize::try_from(len).map_err(|_| cut())?;
        let (content, behind) = rest.split_at_checked(len).ok_or_else(cut)?;
        rest = behind;
        if checksum(content) != sum {
            return Err(format!(
                "section {number} of {count} is damaged: its checksum is wrong"
            ));
        }
        match kind {
            SHARED => contents.shared = content.to_owned(),
            DETECTOR => contents.detector = content.to_owned(),
            WORKER => contents.workers.push(content.to_owned()),
            _ => {
                return Err(format!(
                    "section {number} of {count} is of an unknown kind, {kind}"
                ));
            }
        }
    }
    if rest.is_empty() {
        Ok(contents)
    } else {
        Err(format!("{} octets stand behind its end", rest.len()))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

/// FNV-1a of 64 bits: against damage, not against malice. A single wrong octet always changes it.
fn checksum(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &octet| {
        (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        Contents {
            shared: (0..=255).collect(),
            detector: b"usual".to_vec(),
            workers: vec![b"one".to_vec(), Vec::new(), vec![7; 1000]],
        }
    }

    fn written(contents: &Contents) -> Vec<u8> {
        let mut octets = Vec::new();
        write(&mut octets, contents).unwrap();
        octets
    }

    #[test]
    fn what_is_written_is_read() {
        for contents in [contents(), Contents::default()] {
            assert_eq!(parse(&written(&contents)), Ok(contents));
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        let whole = written(&contents());
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(parse(&damaged).is_err(), "octet {at}");
            assert!(parse(&whole[..at]).is_err(), "cut at {at}");
        }
        let said = |octets: &[u8], what: &str| {
            let found = parse(octets).unwrap_err();
            assert!(found.contains(what), "{found}");
        };
        said(b"", "no file of dnscrub's");
        said(&whole[..whole.len() - 1], "it ends too early");
        said(
            &[&whole[..], b"x"].concat(),
            "1 octets stand behind its end",
        );
        said(
            &[MAGIC, &[9, 0, 0, 0][..]].concat(),
            "another dnscrub wrote it",
        );
        let mut damaged = whole.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        said(&damaged, "section 5 of 5 is damaged");
    }
}
