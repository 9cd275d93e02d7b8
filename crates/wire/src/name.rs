//! Domain names in wire format, folded to lower case (RFC 1035 section 3.1, RFC 4343).

use std::fmt::{self, Write as _};

/// Longest name in wire format, in octets, with the root's zero octet (RFC 1035 section 2.3.4).
pub const MAX_NAME_LEN: usize = 255;
/// Longest label in octets (RFC 1035 section 2.3.4).
pub const MAX_LABEL_LEN: usize = 63;

/// A complete, uncompressed name in wire format, ASCII letters in lower case, stored inline.
#[derive(Clone, Copy)]
pub struct Name {
    octets: [u8; MAX_NAME_LEN],
    len: u8,
    labels: u8,
}

/// Why a text is not a domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was written; the root is written ".".
    Empty,
    /// Two dots with nothing between them, or a leading dot.
    EmptyLabel,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// More than 255 octets in wire format.
    NameTooLong,
    /// A backslash that is not followed by three digits up to 255 or by one character.
    BadEscape,
    /// A wire-format name with a pointer, a reserved label type, or no end.
    BadWire,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a name is needed; the root is written \".\"",
            Self::EmptyLabel => "a label between two dots is empty",
            Self::LabelTooLong => "a label is longer than 63 octets",
            Self::NameTooLong => "the name is longer than 255 octets",
            Self::BadEscape => {
                "a backslash must be followed by one character or by three digits up to 255"
            }
            Self::BadWire => "not an uncompressed wire-format name",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The root.
    pub const ROOT: Self = Self {
        octets: [0; MAX_NAME_LEN],
        len: 1,
        labels: 0,
    };

    /// Parses presentation format ("www.Example.com", with or without the final dot; escapes
    /// `\.` and `\065` as in RFC 1035 section 5.1).
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text == "." {
            return Ok(Self::ROOT);
        }
        let mut builder = Builder::new();
        let mut input = text.bytes();
        while let Some(octet) = input.next() {
            match octet {
                b'.' => builder.end_label()?,
                b'\\' => builder.push(unescape(&mut input).ok_or(NameError::BadEscape)?)?,
                other => builder.push(other)?,
            }
        }
        builder.finish()
    }

    /// Takes a complete uncompressed name from the start of `wire`, folding it to lower case.
    ///
    /// # Errors
    /// [`NameError::BadWire`] or [`NameError::NameTooLong`].
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        Self::scan(wire).map_err(|defect| match defect {
            ScanDefect::TooLong => NameError::NameTooLong,
            ScanDefect::Cut | ScanDefect::LabelType => NameError::BadWire,
        })
    }

    pub(crate) fn scan(wire: &[u8]) -> Result<Self, ScanDefect> {
        let (len, labels) = scan(wire)?;
        let mut name = Self {
            octets: [0; MAX_NAME_LEN],
            len: len as u8,
            labels,
        };
        // Length octets are at most 63, below 'A', so folding the whole run is safe.
        for (to, from) in name
            .octets
            .iter_mut()
            .zip(wire.get(..len).unwrap_or_default())
        {
            *to = from.to_ascii_lowercase();
        }
        Ok(name)
    }

    /// The octets, from the first label's length to the root's zero.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Octets in wire format, 1 (the root) to 255.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "a name always has its root octet"
    )]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Labels without the root: 3 for `www.example.com`, 0 for the root.
    #[must_use]
    pub const fn label_count(&self) -> usize {
        self.labels as usize
    }

    /// The labels from left to right, without the root.
    #[must_use]
    pub fn labels(&self) -> Labels<'_> {
        Labels {
            rest: self.as_wire(),
        }
    }

    /// The first (leftmost) label; empty for the root.
    #[must_use]
    pub fn first_label(&self) -> &[u8] {
        self.labels().next().unwrap_or_default()
    }

    /// The name itself and every ancestor, longest first, the root (`[0]`) last, in wire format.
    #[must_use]
    pub fn suffixes(&self) -> Suffixes<'_> {
        Suffixes {
            rest: Some(self.as_wire()),
        }
    }

    /// The name without its first label; the root's parent is the root.
    #[must_use]
    pub fn parent_wire(&self) -> &[u8] {
        let mut suffixes = self.suffixes();
        let own = suffixes.next().unwrap_or_default();
        suffixes.next().unwrap_or(own)
    }

    /// Whether this name is `ancestor` or stands below it.
    #[must_use]
    pub fn is_under(&self, ancestor: &Self) -> bool {
        self.suffixes().any(|suffix| suffix == ancestor.as_wire())
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::ROOT
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_wire() == other.as_wire()
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_wire().hash(state);
    }
}

/// Presentation format without the final dot ("." for the root). Everything but letters, digits,
/// `-`, `_`, `*` and `/` is escaped, so the text is safe in logs, metrics and JSON.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.labels == 0 {
            return f.write_str(".");
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for &octet in label {
                match octet {
                    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'/' => {
                        f.write_char(char::from(octet))?
                    }
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::from_text(text)
    }
}

/// What a scan of wire octets stumbled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanDefect {
    Cut,
    TooLong,
    LabelType,
}

/// Octets and labels of the uncompressed name at the start of `wire`.
#[inline]
pub(crate) fn scan(wire: &[u8]) -> Result<(usize, u8), ScanDefect> {
    let mut at = 0_usize;
    let mut labels = 0_u8;
    loop {
        let len = *wire.get(at).ok_or(ScanDefect::Cut)?;
        if len == 0 {
            return Ok((at.saturating_add(1), labels));
        }
        if usize::from(len) > MAX_LABEL_LEN {
            return Err(ScanDefect::LabelType);
        }
        at = at.saturating_add(usize::from(len)).saturating_add(1);
        // room for the root must remain
        if at >= MAX_NAME_LEN {
            return Err(if wire.len() < at {
                ScanDefect::Cut
            } else {
                ScanDefect::TooLong
            });
        }
        labels = labels.saturating_add(1);
    }
}

/// Iterator of [`Name::labels`].
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&len, rest) = self.rest.split_first()?;
        if len == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(len))?;
        self.rest = rest;
        Some(label)
    }
}

/// Iterator of [`Name::suffixes`].
#[derive(Clone, Debug)]
pub struct Suffixes<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Suffixes<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let current = self.rest?;
        self.rest = match current.first() {
            None | Some(0) => None,
            Some(&len) => current.get(usize::from(len).saturating_add(1)..),
        };
        Some(current)
    }
}

struct Builder {
    name: Name,
    label_at: usize,
    at: usize,
}

impl Builder {
    const fn new() -> Self {
        Self {
            name: Name::ROOT,
            label_at: 0,
            at: 1,
        }
    }

    fn label_len(&self) -> usize {
        self.at.saturating_sub(self.label_at).saturating_sub(1)
    }

    fn push(&mut self, octet: u8) -> Result<(), NameError> {
        if self.label_len() >= MAX_LABEL_LEN {
            return Err(NameError::LabelTooLong);
        }
        // one octet must remain for the root
        if self.at >= MAX_NAME_LEN.saturating_sub(1) {
            return Err(NameError::NameTooLong);
        }
        *self
            .name
            .octets
            .get_mut(self.at)
            .ok_or(NameError::NameTooLong)? = octet.to_ascii_lowercase();
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    fn end_label(&mut self) -> Result<(), NameError> {
        let len = self.label_len();
        if len == 0 {
            return Err(NameError::EmptyLabel);
        }
        *self
            .name
            .octets
            .get_mut(self.label_at)
            .ok_or(NameError::NameTooLong)? = len as u8;
        self.name.labels = self.name.labels.saturating_add(1);
        self.label_at = self.at;
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    fn finish(mut self) -> Result<Name, NameError> {
        if self.label_len() > 0 {
            self.end_label()?;
        }
        let len = self.label_at.saturating_add(1);
        if len > MAX_NAME_LEN {
            return Err(NameError::NameTooLong);
        }
        self.name.len = len as u8;
        Ok(self.name)
    }
}

fn unescape(input: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = input.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut value = u16::from(first.saturating_sub(b'0'));
    for _ in 0..2 {
        let digit = input.next().filter(u8::is_ascii_digit)?;
        value = value
            .saturating_mul(10)
            .saturating_add(u16::from(digit.saturating_sub(b'0')));
    }
    u8::try_from(value).ok()
}
