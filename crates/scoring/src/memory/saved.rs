//! What a worker knows, as octets for a file.
//!
//! A worker's part is a row of sections: a kind, a length, the content. All numbers are in the order
//! of little-endian machines. What a part does not hold, or what does not fit the settings, begins
//! afresh. The file around it has the checksums; here nothing can fail but by being left out.

use dnscrub_wire::Name;

use super::surge::Surge;

/// Kinds of sections.
pub(crate) const SOURCES: u8 = 1;
pub(crate) const LEXICON: u8 = 2;
pub(crate) const SUFFIXES: u8 = 3;
pub(crate) const SURGES: u8 = 4;

/// Appends a section.
pub(crate) fn put_section(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let Ok(len) = u32::try_from(content.len()) else {
        return;
    };
    out.push(kind);
    out.extend(len.to_le_bytes());
    out.extend(content);
}

/// Reads octets from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A rate, time or part; nothing where it is none.
    pub(crate) fn number(&mut self) -> Option<f32> {
        let number = f32::from_le_bytes(self.array()?);
        (number.is_finite() && number >= 0.0).then_some(number)
    }

    /// A length in eight octets, and so many octets.
    pub(crate) fn long(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u64()?).ok()?;
        self.take(len)
    }

    /// The next section. What is no whole one stays.
    pub(crate) fn section(&mut self) -> Option<(u8, &'a [u8])> {
        let mut ahead = Self(self.0);
        let kind = ahead.u8()?;
        let len = u32::from_le_bytes(ahead.array()?) as usize;
        let content = ahead.take(len)?;
        *self = ahead;
        Some((kind, content))
    }
}

/// A usual rate, and for how many seconds it was learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usual {
    pub(crate) rate: f32,
    pub(crate) learned: f32,
}

impl Usual {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.extend(self.rate.to_le_bytes());
        out.extend(self.learned.to_le_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (rate, learned) = (reader.number()?, reader.number()?);
        Some(Self { rate, learned })
    }

    /// One worker's share of what one of them saw: addresses come to other workers after a restart.
    pub(crate) fn shared(self, workers: f32) -> Self {
        Self {
            rate: self.rate / workers.max(1.0),
            ..self
        }
    }
}

/// Appends the usual rate of the surge number `index` of a signal.
pub(crate) fn put_surge(out: &mut Vec<u8>, label: &str, index: u8, surge: &Surge) {
    let Ok(len) = u8::try_from(label.len()) else {
        return;
    };
    out.push(len);
    out.extend(label.as_bytes());
    out.push(index);
    surge.usual().put(out);
}

/// The usual rates of a section of the kind [`SURGES`].
pub(crate) fn surges(content: &[u8]) -> impl Iterator<Item = (&[u8], u8, Usual)> {
    let mut reader = Reader(content);
    std::iter::from_fn(move || {
        let len = reader.u8()?;
        let label = reader.take(len.into())?;
        Some((label, reader.u8()?, Usual::read(&mut reader)?))
    })
}

/// What is kept of a suffix.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavedSuffix {
    pub(crate) name: Name,
    pub(crate) doubt: Usual,
    pub(crate) all: Usual,
    pub(crate) failing: f32,
    pub(crate) answers: f32,
    pub(crate) usually_loyal: f32,
    pub(crate) usual_part: f32,
}

impl SavedSuffix {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let wire = self.name.as_wire();
        out.push(u8::try_from(wire.len()).unwrap_or(u8::MAX));
        out.extend(wire);
        self.doubt.put(out);
        self.all.put(out);
        for number in [
            self.failing,
            self.answers,
            self.usually_loyal,
            self.usual_part,
        ] {
            out.extend(number.to_le_bytes());
        }
    }

    /// Those of a section of the kind [`SUFFIXES`].
    pub(crate) fn all_of(content: &[u8]) -> impl Iterator<Item = Self> {
        let mut reader = Reader(content);
        std::iter::from_fn(move || {
            let len = reader.u8()?;
            let name = Name::from_wire(reader.take(len.into())?).ok()?;
            Some(Self {
                name,
                doubt: Usual::read(&mut reader)?,
                all: Usual::read(&mut reader)?,
                failing: reader.number()?.min(1.0),
                answers: reader.number()?,
                usually_loyal: reader.number()?.min(1.0),
                usual_part: reader.number()?.min(1.0),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_and_what_is_cut_off_ends_it() {
        let suffix = |name: &str, rate| SavedSuffix {
            name: name.parse().unwrap(),
            doubt: Usual { rate, learned: 9.0 },
            all: Usual {
                rate: 2.0 * rate,
                learned: 30.0,
            },
            failing: 0.25,
            answers: 12.0,
            usually_loyal: 0.9,
            usual_part: 0.5,
        };
        let suffixes = [suffix("example.com", 3.0), suffix("b.example.org", 0.5)];
        let mut content = Vec::new();
        suffixes.iter().for_each(|suffix| suffix.put(&mut content));
        assert_eq!(
            SavedSuffix::all_of(&content).collect::<Vec<_>>(),
            suffixes.as_slice()
        );
        for len in 0..content.len() {
            let read: Vec<_> = SavedSuffix::all_of(&content[..len]).collect();
            assert!(read.len() < 2 && suffixes.starts_with(&read), "{len}");
        }
        let mut part = Vec::new();
        put_section(&mut part, SUFFIXES, &content);
        put_section(&mut part, LEXICON, b"x");
        let mut reader = Reader(&part);
        assert_eq!(reader.section(), Some((SUFFIXES, content.as_slice())));
        assert_eq!(reader.section(), Some((LEXICON, b"x".as_slice())));
        assert_eq!(reader.section(), None);
        assert_eq!(
            Reader(&f32::NAN.to_le_bytes()).number(),
            None,
            "no rate is not a number"
        );
    }
}
