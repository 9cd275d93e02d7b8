//! List files: one prefix a line.
//!
//! ```text
//! # a comment, as is a line that starts with ;
//! 192.0.2.0/24
//! 198.51.100.7    open resolver, see ticket 4711
//! 2001:db8::/32 ; SBL123456
//! ```
//!
//! What follows the prefix, after white space, `#` or `;`, is the entry's reason. Without such
//! a mark in front, it ends where one follows white space. Lines end in LF or CR LF.

use std::borrow::Cow;
use std::fmt;

use ahash::RandomState;
use ipnet::IpNet;

use crate::prefix::{Prefix, PrefixError};
use crate::prefix_table::{Key, V6};

/// One prefix of a list file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListLine<'a> {
    /// Number of the line, from 1.
    pub line: usize,
    /// The prefix.
    pub prefix: IpNet,
    /// Why, or nothing; at most 255 octets, without control characters.
    pub reason: Cow<'a, str>,
}

impl ListLine<'_> {
    /// The line, unless its prefix is shorter than files may block; `shortest` lengths of IPv4 and IPv6.
    ///
    /// # Errors
    /// [`ListError::Line`].
    pub fn not_too_wide(self, shortest: (u8, u8)) -> Result<Self, ListError> {
        let shortest = if self.prefix.addr().is_ipv4() {
            shortest.0
        } else {
            shortest.1
        };
        if self.prefix.prefix_len() >= shortest {
            return Ok(self);
        }
        Err(ListError::Line {
            line: self.line,
            found: self.prefix.to_string(),
            expected: format!(
                "a prefix of at least {shortest} bits, since a shorter one blocks too much"
            )
            .into(),
        })
    }
}

/// Why a list was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListError {
    /// A line is not understood.
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What stands there, made printable and shortened.
        found: String,
        /// What should stand there.
        expected: Cow<'static, str>,
    },
    /// There would be more static entries than [`Limits`](crate::Limits) allows.
    Full {
        /// Entries of all lists together, with this one.
        entries: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line {
                line,
                found,
                expected,
            } => {
                write!(
                    formatter,
                    "line {line}: found \"{found}\", expected {expected}"
                )
            }
            Self::Full { entries, limit } => {
                write!(
                    formatter,
                    "the lists together would have {entries} entries, the limit is {limit}"
                )
            }
        }
    }
}

impl std::error::Error for ListError {}

/// Reads a list file; lines without a prefix are passed over.
///
/// # Errors
/// [`ListError::Line`] for each line that is not understood.
pub fn list_lines(text: &[u8]) -> impl Iterator<Item = Result<ListLine<'_>, ListError>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    (1_usize..)
        .zip(text.split(|octet| *octet == b'\n'))
        .filter_map(|(line, content)| {
            let content = content.trim_ascii();
            if matches!(content.first(), None | Some(b'#' | b';')) {
                return None;
            }
            let end = content
                .iter()
                .position(|octet| matches!(octet, b' ' | b'\t' | b'#' | b';'))
                .unwrap_or(content.len());
            let (prefix, rest) = content.split_at_checked(end)?;
            Some(match Prefix::parse(prefix) {
                Ok(prefix) => Ok(ListLine {
                    line,
                    prefix: prefix.net(),
                    reason: reason(rest),
                }),
                Err(PrefixError { found, expected }) => Err(ListError::Line {
                    line,
                    found,
                    expected,
                }),
            })
        })
}

fn reason(rest: &[u8]) -> Cow<'_, str> {
    let rest = rest.trim_ascii();
    if rest.is_empty() {
        return Cow::Borrowed("");
    }
    let reason = if let [b'#' | b';', ..] = rest {
        let marks = rest
            .iter()
            .take_while(|octet| matches!(octet, b'#' | b';'))
            .count();
        rest.get(marks..).unwrap_or_default()
    } else {
        let end = rest
            .windows(2)
            .position(|pair| matches!(pair, [b' ' | b'\t', b'#' | b';']));
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    };
    match String::from_utf8_lossy(reason.trim_ascii()) {
        Cow::Borrowed(reason) => clean_reason(reason),
        Cow::Owned(reason) => Cow::Owned(clean_reason(&reason).into_owned()),
    }
}

/// Without control characters, which could break a line of output or of a list file, and at most
/// 255 octets long.
pub(super) fn clean_reason(reason: &str) -> Cow<'_, str> {
    let reason = reason.trim();
    let reason = reason
        .get(..reason.floor_char_boundary(255))
        .unwrap_or_default();
    if reason.chars().any(char::is_control) {
        // A space for each, so that it does not get longer.
        Cow::Owned(reason.replace(char::is_control, " ").trim().to_owned())
    } else {
        Cow::Borrowed(reason)
    }
}

/// A prefix of a list, with where its reason stands in [`Reasons`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<K> {
    pub(super) start: K,
    pub(super) len: u8,
    pub(super) reason: u32,
}

/// A list file, read, sorted, without duplicates.
#[derive(Debug, Default)]
pub(super) struct ParsedList {
    pub(super) v4: Vec<Listed<u32>>,
    pub(super) v6: Vec<Listed<V6>>,
    pub(super) reasons: Reasons,
    /// Lines that repeat an earlier line's prefix; the first one counts.
    pub(super) duplicates: usize,
}

impl ParsedList {
    /// `shortest` prefix lengths allowed, of IPv4 and IPv6.
    pub(super) fn read(text: &[u8], shortest: (u8, u8)) -> Result<Self, ListError> {
        let mut list = Self::default();
        let mut intern = Interner::default();
        // Most lines are an IPv4 address and perhaps a short reason.
        list.v4
            .reserve(text.len().checked_div(24).unwrap_or_default());
        for line in list_lines(text) {
            let ListLine { prefix, reason, .. } = line?.not_too_wide(shortest)?;
            let reason = intern.add(&mut list.reasons, &reason);
            match prefix {
                IpNet::V4(net) => {
                    list.v4.push(Listed {
                        start: u32::from(net.addr()),
                        len: net.prefix_len(),
                        reason,
                    });
                }
                IpNet::V6(net) => {
                    list.v6.push(Listed {
                        start: V6::from(u128::from(net.addr())),
                        len: net.prefix_len(),
                        reason,
                    });
                }
            }
        }
        let read = list.len();
        sort(&mut list.v4);
        sort(&mut list.v6);
        list.duplicates = read.saturating_sub(list.len());
        list.reasons.0.shrink_to_fit();
        Ok(list)
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len().saturating_add(self.v6.len())
    }
}

/// Sorts by address, then length, and keeps the first of equal ones.
fn sort<K: Key>(prefixes: &mut Vec<Listed<K>>) {
    // Stable, and the lists that are sorted already cost one pass.
    prefixes.sort_by_key(|listed| (listed.start, listed.len));
    prefixes.dedup_by_key(|listed| (listed.start, listed.len));
}

/// The reasons of one list, each a length octet and its text, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Reasons(Vec<u8>);

/// Where an empty reason stands: nowhere.
const NO_REASON: u32 = u32::MAX;

impl Reasons {
    pub(super) fn get(&self, at: u32) -> &str {
        self.0
            .get(at as usize..)
            .and_then(<[u8]>::split_first)
            .and_then(|(len, text)| std::str::from_utf8(text.get(..usize::from(*len))?).ok())
            .unwrap_or_default()
    }

    /// Past 4 GiB, entries get no reason.
    fn push(&mut self, reason: &str) -> u32 {
        let at = u32::try_from(self.0.len()).unwrap_or(NO_REASON);
        let Ok(len) = u8::try_from(reason.len()) else {
            return NO_REASON;
        };
        if at != NO_REASON {
            self.0.push(len);
            self.0.extend_from_slice(reason.as_bytes());
        }
        at
    }
}

/// Finds a reason again that was written lately. Fixed in size: a list with a reason of its own on
/// each line must not cost a hash table.
struct Interner {
    seen: Box<[u32]>,
    hash: RandomState,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            seen: vec![NO_REASON; 4096].into_boxed_slice(),
            hash: RandomState::new(),
        }
    }
}

impl Interner {
    fn add(&mut self, reasons: &mut Reasons, reason: &str) -> u32 {
        if reason.is_empty() {
            return NO_REASON;
        }
        let slot = self.hash.hash_one(reason) as usize & 4095;
        let Some(seen) = self.seen.get_mut(slot) else {
            return reasons.push(reason);
        };
        if reasons.get(*seen) != reason {
            *seen = reasons.push(reason);
        }
        *seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String, String)> {
        list_lines(text.as_bytes())
            .map(|line| line.unwrap())
            .map(|line| (line.line, line.prefix.to_string(), line.reason.into_owned()))
            .collect()
    }

    #[test]
    fn reads_prefixes_reasons_and_comments() {
        let text = "\u{feff}# comment\r\n; comment\r\n\r\n192.0.2.0/24\r\n198.51.100.7\topen resolver, ticket #4711\r\n\
                    2001:db8::/32 ; SBL1\n  203.0.113.1#botnet # twice  \n203.0.113.2 why # not this\n203.0.113.3 ;;\n";
        let expected = [
            (4, "192.0.2.0/24", ""),
            (5, "198.51.100.7/32", "open resolver, ticket"),
            (6, "2001:db8::/32", "SBL1"),
            (7, "203.0.113.1/32", "botnet # twice"),
            (8, "203.0.113.2/32", "why"),
            (9, "203.0.113.3/32", ""),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(line, prefix, reason)| (line, prefix.to_owned(), reason.to_owned()))
            .collect();
        assert_eq!(lines(text), expected);
    }

    #[test]
    fn a_bad_line_says_where_and_what() {
        let error = ParsedList::read(b"192.0.2.1\n\nexample.com bad\n", (8, 16)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 3: found \"example.com\", expected a prefix such as 192.0.2.0/24 or 2001:db8::/32, or an address"
        );
        let error = ParsedList::read(b"0.0.0.0/0\n", (8, 16)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("line 1: found \"0.0.0.0/0\", expected a prefix of at least 8 bits")
        );
    }

    #[test]
    fn the_first_of_two_equal_lines_counts() {
        let list = ParsedList::read(
            b"192.0.2.1 one\n192.0.2.0/24\n192.0.2.1 two\n::1 x\n::1 x\n",
            (8, 16),
        )
        .unwrap();
        assert_eq!((list.v4.len(), list.v6.len(), list.duplicates), (2, 1, 2));
        assert_eq!(list.reasons.get(list.v4[1].reason), "one");
    }

    #[test]
    fn equal_reasons_are_kept_once() {
        let mut text = String::new();
        for host in 0..200 {
            text.push_str(&format!(
                "192.0.2.{host} botnet\n198.51.100.{host} ; scanner\n"
            ));
        }
        let list = ParsedList::read(text.as_bytes(), (8, 16)).unwrap();
        assert_eq!(list.reasons.0.len(), 7 + 8);
        assert_eq!(list.reasons.get(list.v4[0].reason), "botnet");
        assert_eq!(list.reasons.get(list.v4[399].reason), "scanner");
    }

    #[test]
    fn reasons_are_cleaned_and_cut() {
        assert_eq!(clean_reason(" a\nb\u{7f}c\u{9b} "), "a b c");
        let long = "ä".repeat(200);
        assert_eq!(clean_reason(&long).len(), 254);
        let line = format!("192.0.2.1 {long}\n192.0.2.2 \u{1b}[31m\n");
        let list = ParsedList::read(line.as_bytes(), (8, 16)).unwrap();
        assert_eq!(list.reasons.get(list.v4[0].reason).len(), 254);
        assert_eq!(list.reasons.get(list.v4[1].reason), "[31m");
        assert!(ParsedList::read(b"192.0.2.1 \xff\xfe\n", (8, 16)).is_ok());
    }
}
