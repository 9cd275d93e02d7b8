//! Zone files (RFC 1035 section 5), read piece by piece.
//!
//! Owners and types of all records are read, data only where it is needed: of SOA, NSEC and RRSIG
//! records. `$INCLUDE` and `$GENERATE` are refused: the names they stand for would be missing.

use std::fmt;

use dnscrub_wire::records::{class_from_text, type_from_text};
use dnscrub_wire::{MAX_NAME_LEN, Name, qclass, qtype};

use crate::contents::{Builder, LoadError};
use crate::record::Record;

/// Longest entry in octets, its parentheses included.
const LONGEST_ENTRY: usize = 1 << 20;

/// Something wrong with a zone file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1, in octets.
    pub column: u64,
    /// What was found, what was expected, and what to do.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for FileError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: u64,
    column: u64,
}

impl Place {
    fn error(self, message: impl Into<String>) -> FileError {
        FileError {
            line: self.line,
            column: self.column,
            message: message.into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Blank,
    Token,
    Quoted,
    Comment,
}

/// Reads a zone file into a [`Builder`].
#[derive(Debug)]
pub struct MasterFile {
    builder: Builder,
    lexer: Lexer,
    entries: Entries,
}

impl MasterFile {
    /// A file of the zone that `builder` builds, whose name is the first origin.
    #[must_use]
    pub fn new(zone: &Name, builder: Builder) -> Self {
        Self {
            builder,
            lexer: Lexer::new(),
            entries: Entries {
                origin: *zone,
                owner: None,
                default_ttl: None,
                last_ttl: 3600,
                data: Vec::new(),
            },
        }
    }

    /// Takes the next octets of the file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), FileError> {
        for &octet in octets {
            if self.lexer.push(octet)? {
                self.entries.take(&self.lexer, &mut self.builder)?;
                self.lexer.clear();
            }
        }
        Ok(())
    }

    /// The file is at its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(mut self) -> Result<Builder, FileError> {
        self.feed(b"\n")?;
        if let Some(open) = self.lexer.open {
            return Err(open.error("this parenthesis is never closed"));
        }
        Ok(self.builder)
    }
}

/// Splits the text into entries, and entries into words.
#[derive(Debug)]
struct Lexer {
    within: Within,
    escaped: bool,
    here: Place,
    /// The first open parenthesis.
    open: Option<Place>,
    depth: u32,
    /// The entry begins with a blank: the owner is that of the one before.
    indented: bool,
    text: Vec<u8>,
    /// Where a word stands in the file, and where it ends in `text`.
    words: Vec<(Place, usize)>,
    begun: Place,
}

impl Lexer {
    const fn new() -> Self {
        let here = Place { line: 1, column: 1 };
        Self {
            within: Within::Blank,
            escaped: false,
            here,
            open: None,
            depth: 0,
            indented: false,
            text: Vec::new(),
            words: Vec::new(),
            begun: here,
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.words.clear();
        self.indented = false;
    }

    /// Takes an octet; true at the end of an entry.
    fn push(&mut self, octet: u8) -> Result<bool, FileError> {
        let here = self.here;
        if octet == b'\n' {
            self.here.line = here.line.saturating_add(1);
            self.here.column = 1;
        } else {
            self.here.column = here.column.saturating_add(1);
        }
        match self.within {
            Within::Comment if octet != b'\n' => return Ok(false),
            Within::Quoted => {
                match octet {
                    b'\n' => return Err(self.begun.error("this quote is not closed in its line")),
                    b'"' if !self.escaped => {
                        self.end_word();
                        return Ok(false);
                    }
                    _ => self.keep(octet)?,
                }
                return Ok(false);
            }
            Within::Token if self.escaped && octet != b'\n' => {
                self.keep(octet)?;
                return Ok(false);
            }
            Within::Token | Within::Blank | Within::Comment => {}
        }
        match octet {
            b' ' | b'\t' | b'\r' => {
                if here.column == 1 && self.depth == 0 {
                    self.indented = true;
                }
                self.end_word();
            }
            b'\n' => {
                self.end_word();
                return Ok(self.depth == 0);
            }
            b';' => {
                self.end_word();
                self.within = Within::Comment;
            }
            b'(' => {
                self.end_word();
                self.depth = self.depth.saturating_add(1);
                self.open.get_or_insert(here);
            }
            b')' => {
                self.end_word();
                self.depth = self
                    .depth
                    .checked_sub(1)
                    .ok_or_else(|| here.error("this parenthesis was never opened"))?;
                if self.depth == 0 {
                    self.open = None;
                }
            }
            b'"' if self.within == Within::Blank => {
                self.within = Within::Quoted;
                self.begun = here;
            }
            _ => {
                if self.within == Within::Blank {
                    self.within = Within::Token;
                    self.begun = here;
                }
                self.keep(octet)?;
            }
        }
        Ok(false)
    }

    fn keep(&mut self, octet: u8) -> Result<(), FileError> {
        if self.text.len() >= LONGEST_ENTRY {
            return Err(self.begun.error(format!(
                "a record may not be longer than {LONGEST_ENTRY} octets: is a parenthesis missing?"
            )));
        }
        self.escaped = octet == b'\\' && !self.escaped;
        self.text.push(octet);
        Ok(())
    }

    fn end_word(&mut self) {
        if matches!(self.within, Within::Token | Within::Quoted) {
            self.words.push((self.begun, self.text.len()));
        }
        self.within = Within::Blank;
        self.escaped = false;
    }

    fn words(&self) -> Words<'_> {
        Words {
            lexer: self,
            next: 0,
            at: 0,
        }
    }
}

/// The words of an entry, in their order.
#[derive(Clone, Copy)]
struct Words<'a> {
    lexer: &'a Lexer,
    next: usize,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<(Place, &'a [u8])> {
        let &(place, end) = self.lexer.words.get(self.next)?;
        let word = self.lexer.text.get(self.at..end)?;
        self.next = self.next.saturating_add(1);
        self.at = end;
        Some((place, word))
    }

    /// The next word, without taking it.
    fn peek(&self) -> Option<(Place, &'a [u8])> {
        let mut ahead = *self;
        ahead.next()
    }

    /// The next word, as what is needed there.
    fn need(&mut self, what: &str) -> Result<(Place, &'a str), FileError> {
        let last = self
            .lexer
            .words
            .last()
            .map_or(self.lexer.begun, |word| word.0);
        let (place, word) = self.next().ok_or_else(|| {
            last.error(format!(
                "{what} is expected behind this, but the record ends"
            ))
        })?;
        let word = std::str::from_utf8(word)
            .map_err(|_| place.error(format!("{what} is expected, not octets that are no text")))?;
        Ok((place, word))
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, FileError> {
        let (place, word) = self.need(what)?;
        word.parse().map_err(|_| {
            place.error(format!(
                "{what} is expected, not \"{}\"",
                word.escape_debug()
            ))
        })
    }

    fn seconds(&mut self, what: &str) -> Result<u32, FileError> {
        let (place, word) = self.need(what)?;
        seconds(word).ok_or_else(|| {
            place.error(format!(
                "{what} in seconds or such as \"1h30m\" is expected, not \"{}\"",
                word.escape_debug()
            ))
        })
    }

    fn record_type(&mut self) -> Result<u16, FileError> {
        let (place, word) = self.need("a record type")?;
        type_from_text(word).ok_or_else(|| {
            place.error(format!(
                "\"{}\" is no record type; a type without a name is written TYPE65280",
                word.escape_debug()
            ))
        })
    }
}

/// Seconds, or such as "1h30m" (BIND's notation).
fn seconds(text: &str) -> Option<u32> {
    if text.bytes().all(|octet| octet.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (mut sum, mut number) = (0_u32, None);
    for octet in text.bytes() {
        let unit = match octet.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                let digit = u32::from(digit.saturating_sub(b'0'));
                number = Some(
                    number
                        .unwrap_or(0_u32)
                        .checked_mul(10)?
                        .checked_add(digit)?,
                );
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    number.is_none().then_some(sum)
}

/// Reads entries: directives and records.
#[derive(Debug)]
struct Entries {
    origin: Name,
    owner: Option<Name>,
    default_ttl: Option<u32>,
    last_ttl: u32,
    data: Vec<u8>,
}

impl Entries {
    fn take(&mut self, lexer: &Lexer, builder: &mut Builder) -> Result<(), FileError> {
        let mut words = lexer.words();
        let Some((first, word)) = words.peek() else {
            return Ok(());
        };
        if !lexer.indented {
            if word.first() == Some(&b'$') {
                return self.directive(words);
            }
            let (place, word) = words.need("an owner name")?;
            self.owner = Some(self.name(place, word)?);
        }
        let owner = self
            .owner
            .ok_or_else(|| first.error("the first record of a file needs an owner name"))?;
        let ttl = self.ttl_and_class(&mut words)?;
        let rtype = words.record_type()?;
        self.data.clear();
        let mut data = std::mem::take(&mut self.data);
        self.read_data(rtype, words, &mut data)?;
        let minimum = data.last_chunk::<4>().copied().map(u32::from_be_bytes);
        let minimum = minimum.filter(|_| rtype == qtype::SOA);
        let ttl = ttl
            .or(self.default_ttl)
            .or(minimum)
            .unwrap_or(self.last_ttl);
        self.last_ttl = ttl;
        let record = Record {
            owner,
            rtype,
            ttl,
            data: &data,
        };
        let result = builder
            .add(&record)
            .map_err(|error: LoadError| first.error(error.to_string()));
        self.data = data;
        result
    }

    /// TTL and class, both optional and in any order.
    fn ttl_and_class(&self, words: &mut Words<'_>) -> Result<Option<u32>, FileError> {
        let mut ttl = None;
        loop {
            let mut ahead = *words;
            let (place, word) = ahead.need("a record type")?;
            if word.starts_with(|first: char| first.is_ascii_digit()) {
                ttl = Some(words.seconds("a TTL")?);
            } else if type_from_text(word).is_some() {
                return Ok(ttl);
            } else if let Some(class) = class_from_text(word) {
                if class != qclass::IN {
                    return Err(place.error(format!(
                        "only zones of class IN can be loaded, not {}",
                        word.escape_debug()
                    )));
                }
            } else {
                // not a class: the caller says that it is no type
                return Ok(ttl);
            }
            *words = ahead;
        }
    }

    fn directive(&mut self, mut words: Words<'_>) -> Result<(), FileError> {
        let (place, word) = words.need("a directive")?;
        match word.to_ascii_uppercase().as_str() {
            "$ORIGIN" => {
                let (place, word) = words.need("a name")?;
                self.origin = self.name(place, word)?;
            }
            "$TTL" => self.default_ttl = Some(words.seconds("a TTL")?),
            "$INCLUDE" | "$GENERATE" => {
                return Err(place.error(format!(
                    "{word} is not supported; let the name server write the zone as one file \
                     (BIND: named-compilezone), or load it with `names: {{ axfr: … }}`"
                )));
            }
            _ => {
                return Err(place.error(format!(
                    "\"{}\" is no directive; $ORIGIN and $TTL are",
                    word.escape_debug()
                )));
            }
        }
        Ok(())
    }

    /// A name, relative to the origin if it does not end with a dot.
    fn name(&self, place: Place, text: &str) -> Result<Name, FileError> {
        if text == "@" {
            return Ok(self.origin);
        }
        let bad = |why: &dyn fmt::Display| {
            place.error(format!("\"{}\" is no name: {why}", text.escape_debug()))
        };
        let name = Name::from_text(text).map_err(|error| bad(&error))?;
        let escapes = text.strip_suffix('.').map(|before| {
            before
                .bytes()
                .rev()
                .take_while(|&octet| octet == b'\\')
                .count()
        });
        if escapes.is_some_and(|count| count % 2 == 0) {
            return Ok(name);
        }
        let own = name.len().saturating_sub(1);
        let mut wire = [0_u8; 2 * MAX_NAME_LEN];
        let octets = name.as_wire().iter().take(own).chain(self.origin.as_wire());
        for (to, from) in wire.iter_mut().zip(octets) {
            *to = *from;
        }
        Name::from_wire(&wire).map_err(|error| bad(&error))
    }

    /// Data in wire format, of the types for which it is needed.
    fn read_data(
        &self,
        rtype: u16,
        mut words: Words<'_>,
        to: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        match rtype {
            qtype::SOA => {
                for what in ["the primary server's name", "the mailbox name"] {
                    let (place, word) = words.need(what)?;
                    to.extend_from_slice(self.name(place, word)?.as_wire());
                }
                let serial: u32 = words.number("the serial")?;
                to.extend_from_slice(&serial.to_be_bytes());
                for what in ["refresh", "retry", "expire", "minimum"] {
                    to.extend_from_slice(&words.seconds(what)?.to_be_bytes());
                }
            }
            qtype::NSEC => {
                let (place, word) = words.need("the next name")?;
                to.extend_from_slice(self.name(place, word)?.as_wire());
                let mut types = Vec::new();
                while words.peek().is_some() {
                    types.push(words.record_type()?);
                }
                write_bitmap(types, to);
            }
            qtype::RRSIG => {
                let covered = words.record_type()?;
                to.extend_from_slice(&covered.to_be_bytes());
                if matches!(covered, qtype::SOA | qtype::NSEC) {
                    self.read_signature(words, to)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An RRSIG record behind the type it covers (RFC 4034 section 3.2).
    fn read_signature(&self, mut words: Words<'_>, to: &mut Vec<u8>) -> Result<(), FileError> {
        to.push(words.number("an algorithm number")?);
        to.push(words.number("a number of labels")?);
        let ttl: u32 = words.number("the original TTL")?;
        to.extend_from_slice(&ttl.to_be_bytes());
        for what in ["the expiration", "the inception"] {
            let (place, word) = words.need(what)?;
            let time = signature_time(word).ok_or_else(|| {
                place.error(format!("{what} is expected, such as 20260131235959"))
            })?;
            to.extend_from_slice(&time.to_be_bytes());
        }
        let tag: u16 = words.number("a key tag")?;
        to.extend_from_slice(&tag.to_be_bytes());
        let (place, word) = words.need("the signer's name")?;
        to.extend_from_slice(self.name(place, word)?.as_wire());
        let (place, first) = words.need("a signature")?;
        let mut text = first.to_owned();
        while words.peek().is_some() {
            text.push_str(words.need("a signature")?.1);
        }
        let signature: Vec<u8> = domain::utils::base64::decode(&text)
            .map_err(|_| place.error("a signature in Base64 is expected"))?;
        to.extend_from_slice(&signature);
        Ok(())
    }
}

/// The type bit maps of an NSEC record (RFC 4034 section 4.1.2).
fn write_bitmap(mut types: Vec<u16>, to: &mut Vec<u8>) {
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut map = [0_u8; 32];
        let (mut number, mut len) = (0, 0_u8);
        for &rtype in window {
            let [high, low] = rtype.to_be_bytes();
            number = high;
            if let Some(octet) = map.get_mut(usize::from(low / 8)) {
                *octet |= 0x80 >> (low % 8);
            }
            len = len.max((low / 8).saturating_add(1));
        }
        to.push(number);
        to.push(len);
        to.extend_from_slice(map.get(..usize::from(len)).unwrap_or_default());
    }
}

/// A time of an RRSIG record: YYYYMMDDHHmmSS, or seconds since 1970, modulo 2^32.
fn signature_time(text: &str) -> Option<u32> {
    if text.len() != 14 {
        return text.parse().ok();
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    // days since 1970 of a year that begins in March, so that the leap day is its last
    let (year, month) = if month > 2 {
        (year, month.checked_sub(3)?)
    } else {
        (year.checked_sub(1)?, month.checked_add(9)?)
    };
    let leap_days = (year / 4)
        .checked_sub(year / 100)?
        .checked_add(year / 400)?;
    let days = [
        year.checked_mul(365)?,
        leap_days,
        (month.checked_mul(153)?.checked_add(2)?) / 5,
        day,
        -719_469,
    ];
    let days = days.into_iter().try_fold(0_i64, i64::checked_add)?;
    let seconds = [(days, 86_400), (hour, 3600), (minute, 60), (second, 1)];
    let sum = seconds.into_iter().try_fold(0_i64, |sum, (count, unit)| {
        sum.checked_add(count.checked_mul(unit)?)
    })?;
    u32::try_from(sum.checked_rem_euclid(1 << 32)?).ok()
}
