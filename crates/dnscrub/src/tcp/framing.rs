//! Messages in a stream: each stands behind its length in two octets (RFC 1035 section 4.2.2).

use dnscrub_wire::edit::set_id;

/// Longest message, in octets.
pub(super) const MAX_MESSAGE: usize = u16::MAX as usize;

/// The first message and the octets behind it; nothing while it is not whole.
pub(super) fn split(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Octets that came and wait: a message that is not whole, or messages there was no room for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    held: Vec<u8>,
}

/// Memory that an empty inbox keeps, in octets.
const INBOX_KEEPS: usize = 512;

impl Inbox {
    /// An empty one.
    pub(super) const fn new() -> Self {
        Self { held: Vec::new() }
    }

    /// Octets that wait.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Hands all octets there are to `take`, which says how many it has used up; the rest is held.
    /// Nothing is copied while messages come whole.
    pub(super) fn feed(&mut self, fresh: &[u8], take: impl FnOnce(&[u8]) -> usize) {
        if self.held.is_empty() {
            let used = take(fresh);
            self.held
                .extend_from_slice(fresh.get(used..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(fresh);
            let used = take(&self.held).min(self.held.len());
            self.held.drain(..used);
        }
        if self.held.is_empty() {
            self.held.shrink_to(INBOX_KEEPS);
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.held = Vec::new();
    }
}

/// Framed messages on their way out.
#[derive(Debug)]
pub(super) struct Outbox {
    octets: Vec<u8>,
    /// How many of the octets the socket has taken.
    start: usize,
    /// Octets ever put in, and ever taken by the socket.
    put_in: u64,
    taken: u64,
    keeps: usize,
}

impl Outbox {
    /// An outbox that keeps memory for so many octets when it is empty.
    pub(super) const fn new(keeps: usize) -> Self {
        Self {
            octets: Vec::new(),
            start: 0,
            put_in: 0,
            taken: 0,
            keeps,
        }
    }

    /// Octets that wait for the socket.
    pub(super) const fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    /// Whether the socket has taken everything.
    pub(super) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets ever put in.
    pub(super) const fn put_in(&self) -> u64 {
        self.put_in
    }

    /// Octets ever taken by the socket.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Adds a message.
    pub(super) fn push(&mut self, message: &[u8]) {
        let Ok(len) = u16::try_from(message.len()) else {
            return;
        };
        self.octets.extend_from_slice(&len.to_be_bytes());
        self.octets.extend_from_slice(message);
        self.put_in += u64::from(len) + 2;
    }

    /// Adds a message with another id.
    pub(super) fn push_with_id(&mut self, message: &[u8], id: u16) {
        self.push(message);
        let at = self.octets.len() - message.len();
        set_id(self.octets.get_mut(at..).unwrap_or_default(), id);
    }

    /// Adds what `make` turns the message into. `make` gets the message with `room` octets behind it
    /// and returns the length of what it made; with nothing, nothing is added.
    pub(super) fn push_made(
        &mut self,
        message: &[u8],
        room: usize,
        make: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let start = self.octets.len();
        let room = room.min(MAX_MESSAGE.saturating_sub(message.len()));
        self.octets.extend_from_slice(&[0, 0]);
        self.octets.extend_from_slice(message);
        self.octets.resize(self.octets.len() + room, 0);
        let (frame, body) = self
            .octets
            .get_mut(start..)
            .unwrap_or_default()
            .split_at_mut(2);
        let made = make(body).and_then(|len| u16::try_from(len).ok());
        let Some(len) = made else {
            self.octets.truncate(start);
            return;
        };
        frame.copy_from_slice(&len.to_be_bytes());
        self.octets.truncate(start + 2 + usize::from(len));
        self.put_in += u64::from(len) + 2;
    }

    /// What waits for the socket.
    pub(super) fn waiting(&self) -> &[u8] {
        self.octets.get(self.start..).unwrap_or_default()
    }

    /// The socket has taken so many octets.
    pub(super) fn take(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.octets.len());
        self.taken += octets as u64;
        if self.start == self.octets.len() {
            self.octets.clear();
            self.octets.shrink_to(self.keeps);
            self.start = 0;
        } else if self.start > self.octets.len() / 2 {
            self.octets.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut outbox = Outbox::new(0);
        for message in messages {
            outbox.push(message);
        }
        outbox.waiting().to_vec()
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"first", b"", b"a third message", &[7; 300]];
        let stream = framed(&messages);
        for size in 1..stream.len() {
            let mut inbox = Inbox::new();
            let mut out = Vec::new();
            for piece in stream.chunks(size) {
                inbox.feed(piece, |octets| {
                    let mut rest = octets;
                    while let Some((message, after)) = split(rest) {
                        out.push(message.to_vec());
                        rest = after;
                    }
                    octets.len() - rest.len()
                });
            }
            assert_eq!(out, messages, "in pieces of {size}");
            assert!(inbox.held().is_empty());
        }
    }

    #[test]
    fn what_there_was_no_room_for_is_held() {
        let stream = framed(&[b"one", b"two", b"three"]);
        let mut inbox = Inbox::new();
        inbox.feed(&stream, |octets| {
            octets.len() - split(octets).unwrap().1.len()
        });
        assert_eq!(split(inbox.held()).unwrap().0, b"two");
        inbox.feed(&[], |octets| octets.len() - split(octets).unwrap().1.len());
        assert_eq!(
            split(inbox.held()).unwrap(),
            (b"three".as_slice(), [].as_slice())
        );
        inbox.clear();
        assert!(inbox.held().is_empty());
    }

    #[test]
    fn an_outbox_gives_what_it_got_whatever_the_socket_takes() {
        let messages: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; usize::from(n) * 3]).collect();
        let borrowed: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let expected = framed(&borrowed);
        for step in [1, 2, 7, 100, 10_000] {
            let mut outbox = Outbox::new(16);
            let mut got = Vec::new();
            for message in &messages {
                outbox.push(message);
                let n = outbox.len().min(step);
                got.extend_from_slice(&outbox.waiting()[..n]);
                outbox.take(n);
            }
            got.extend_from_slice(outbox.waiting());
            outbox.take(outbox.len());
            assert_eq!(got, expected);
            assert!(outbox.is_empty());
            assert_eq!(
                (outbox.put_in(), outbox.taken()),
                (expected.len() as u64, expected.len() as u64)
            );
        }
    }

    #[test]
    fn messages_are_changed_on_their_way() {
        let mut outbox = Outbox::new(0);
        outbox.push_with_id(b"\x00\x01rest", 0x6162);
        assert_eq!(outbox.waiting(), b"\x00\x06abrest");
        outbox.push_made(b"shout", 1, |room| {
            room.make_ascii_uppercase();
            room[5] = b'!';
            Some(6)
        });
        outbox.push_made(b"unanswered", 100, |_| None);
        assert_eq!(outbox.waiting(), b"\x00\x06abrest\x00\x06SHOUT!");
        assert_eq!(outbox.put_in(), 16);
    }
}
