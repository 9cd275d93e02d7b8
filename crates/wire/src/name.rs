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
        let (len, labels) = scan(wire).map_err(|defect| match defect {
            ScanDefect::TooLong => NameError::NameTooLong,
            ScanDefect::Cut | ScanDefect::LabelType => NameError::BadWire,
        })?;
        Ok(Self::folded(wire, len, labels))
    }

    /// Folds the first `len` octets of `wire`, which [`scan`] found to be a name of that many
    /// labels.
    #[inline]
    pub(crate) fn folded(wire: &[u8], len: usize, labels: u8) -> Self {
        let mut octets = [0; MAX_NAME_LEN];
        // Length octets are at most 63, below 'A', so folding the whole run is safe.
        for (to, from) in octets.iter_mut().zip(wire.get(..len).unwrap_or_default()) {
            *to = from.to_ascii_lowercase();
        }
        Self {
            octets,
            len: len as u8,
            labels,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn text_is_read_with_its_escapes() {
        for (text, wire) in [
            (".", &b"\0"[..]),
            ("com", b"\x03com\0"),
            ("com.", b"\x03com\0"),
            ("WwW.eXample", b"\x03www\x07example\0"),
            ("a\\.b.c", b"\x03a.b\x01c\0"),
            ("\\065\\255\\000", b"\x03a\xff\x00\0"),
            ("a\\\\b", b"\x03a\\b\0"),
            ("*.x_y-z", b"\x01*\x05x_y-z\0"),
        ] {
            assert_eq!(name(text).as_wire(), wire, "{text}");
        }
    }

    #[test]
    fn bad_text_is_refused_with_its_reason() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(128);
        for (text, error) in [
            ("", NameError::Empty),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a..", NameError::EmptyLabel),
            (long_label.as_str(), NameError::LabelTooLong),
            (long_name.as_str(), NameError::NameTooLong),
            ("a\\", NameError::BadEscape),
            ("a\\25", NameError::BadEscape),
            ("a\\2x5", NameError::BadEscape),
            ("a\\256", NameError::BadEscape),
        ] {
            assert_eq!(Name::from_text(text), Err(error), "{text:?}");
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn limits_are_exact() {
        assert_eq!(name(&"a".repeat(63)).len(), 65);
        // 127 labels of one octet
        let longest = name(&"a.".repeat(127));
        assert_eq!((longest.len(), longest.label_count()), (255, 127));
        assert_eq!(Name::from_wire(longest.as_wire()), Ok(longest));
        let of = |last: usize| format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(last));
        assert_eq!(name(&of(61)).len(), 255);
        assert_eq!(Name::from_text(&of(62)), Err(NameError::NameTooLong));
        let mut wire = name(&of(61)).as_wire().to_vec();
        wire[192] = 62;
        wire.push(0);
        assert_eq!(Name::from_wire(&wire), Err(NameError::NameTooLong));
        assert_eq!(Name::from_wire(&wire[..100]), Err(NameError::BadWire));
        assert_eq!(Name::from_wire(&[64]), Err(NameError::BadWire));
        assert_eq!(Name::from_wire(&[]), Err(NameError::BadWire));
    }

    #[test]
    fn what_follows_a_name_is_left() {
        assert_eq!(
            Name::from_wire(b"\x01A\0rest").unwrap().as_wire(),
            b"\x01a\0"
        );
    }

    #[test]
    fn display_escapes_what_could_mislead() {
        assert_eq!(
            name("Ex\\.a\\ m\\\"p.com.").to_string(),
            "ex\\046a\\032m\\034p.com"
        );
        assert_eq!(Name::ROOT.to_string(), ".");
        assert_eq!(format!("{:?}", name("a.b")), "Name(a.b)");
    }

    #[test]
    fn ancestry_follows_labels() {
        let www = name("www.example.com");
        assert!(www.is_under(&name("example.com")));
        assert!(www.is_under(&www));
        assert!(www.is_under(&Name::ROOT));
        assert!(!www.is_under(&name("ample.com")));
        assert!(!name("com").is_under(&www));
        assert_eq!(www.parent_wire(), name("example.com").as_wire());
        assert_eq!(Name::ROOT.parent_wire(), b"\0");
        assert_eq!(
            (www.first_label(), Name::ROOT.first_label()),
            (&b"www"[..], &b""[..])
        );
        let suffixes: Vec<_> = www
            .suffixes()
            .map(|wire| Name::from_wire(wire).unwrap().to_string())
            .collect();
        assert_eq!(suffixes, ["www.example.com", "example.com", "com", "."]);
        assert_eq!(Name::ROOT.suffixes().collect::<Vec<_>>(), [b"\0"]);
        assert_eq!(Name::ROOT.labels().count(), 0);
    }

    proptest! {
        #[test]
        fn wire_to_text_and_back(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..=63), 0..5)) {
            let mut wire: Vec<u8> = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(label);
            }
            wire.push(0);
            match Name::from_wire(&wire) {
                Ok(name) => {
                    prop_assert_eq!(name.as_wire(), wire.to_ascii_lowercase());
                    prop_assert_eq!(name.label_count(), labels.len());
                    prop_assert_eq!(name.suffixes().count(), labels.len() + 1);
                    let text = name.to_string();
                    prop_assert!(text.is_ascii() && !text.contains([' ', '"', '\n']));
                    prop_assert_eq!(Name::from_text(&text), Ok(name));
                }
                Err(error) => {
                    prop_assert_eq!(error, NameError::NameTooLong);
                    prop_assert!(wire.len() > MAX_NAME_LEN);
                }
            }
        }

        #[test]
        fn any_text_and_any_octets_are_read_or_refused(text in ".{0,300}", octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::from_text(&text) {
                prop_assert_eq!(Name::from_wire(name.as_wire()), Ok(name));
            }
            if let Ok(name) = Name::from_wire(&octets) {
                prop_assert!(name.len() <= octets.len());
            }
        }
    }
}
