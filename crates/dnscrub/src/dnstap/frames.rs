//! Frame Streams: frames behind their length in four octets; a length of 0 announces a control frame.
//! To a file it is START, the frames, STOP. To a collector READY and its ACCEPT come before, its FINISH
//! after.

use std::io::{self, Read, Write};

/// What the frames hold.
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// Largest control frame that there is.
const MAX_CONTROL: u32 = 512;
/// Control field with a content type.
const FIELD_CONTENT_TYPE: u32 = 1;

/// Control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// Adds a data frame.
pub(super) fn put(buffer: &mut Vec<u8>, frame: &[u8]) {
    let Ok(len) = u32::try_from(frame.len()) else {
        return;
    };
    buffer.extend(len.to_be_bytes());
    buffer.extend_from_slice(frame);
}

/// Begins a stream that nobody answers.
pub(super) fn start(stream: &mut (impl Write + ?Sized)) -> io::Result<()> {
    control(stream, Control::Start)
}

/// Ends a stream.
pub(super) fn stop(stream: &mut (impl Write + ?Sized)) -> io::Result<()> {
    control(stream, Control::Stop)
}

/// Begins a stream with a collector, which must want dnstap.
pub(super) fn greet(stream: &mut (impl Read + Write + ?Sized)) -> io::Result<()> {
    control(stream, Control::Ready)?;
    let accepted = expect(stream, Control::Accept)?;
    if !names_content_type(&accepted) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the collector does not take dnstap",
        ));
    }
    start(stream)
}

/// Ends a stream with a collector, which says that it has read everything.
pub(super) fn part(stream: &mut (impl Read + Write + ?Sized)) -> io::Result<()> {
    stop(stream)?;
    expect(stream, Control::Finish).map(drop)
}

fn control(stream: &mut (impl Write + ?Sized), kind: Control) -> io::Result<()> {
    let mut body = (kind as u32).to_be_bytes().to_vec();
    if matches!(kind, Control::Ready | Control::Start) {
        body.extend(FIELD_CONTENT_TYPE.to_be_bytes());
        body.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
        body.extend(CONTENT_TYPE);
    }
    let mut frame = [0; 4].to_vec();
    put(&mut frame, &body);
    stream.write_all(&frame)?;
    stream.flush()
}

/// Reads a control frame of this kind; what stands behind its kind.
fn expect(stream: &mut (impl Read + ?Sized), kind: Control) -> io::Result<Vec<u8>> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if number(stream)? != 0 {
        return Err(wrong("the collector sent data"));
    }
    let len = number(stream)?;
    if !(4..=MAX_CONTROL).contains(&len) {
        return Err(wrong("the collector sent a control frame of no known size"));
    }
    if number(stream)? != kind as u32 {
        return Err(wrong(
            "the collector sent another control frame than expected",
        ));
    }
    let mut rest = vec![0; len as usize - 4];
    stream.read_exact(&mut rest)?;
    Ok(rest)
}

fn number(stream: &mut (impl Read + ?Sized)) -> io::Result<u32> {
    let mut octets = [0; 4];
    stream.read_exact(&mut octets)?;
    Ok(u32::from_be_bytes(octets))
}

/// Whether ours is among the content types of an ACCEPT frame. One that names none takes any.
fn names_content_type(mut fields: &[u8]) -> bool {
    let mut any = true;
    while let Some((head, rest)) = fields.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *head;
        let kind = u32::from_be_bytes([a, b, c, d]);
        let len = u32::from_be_bytes([e, f, g, h]) as usize;
        let Some((value, rest)) = rest.split_at_checked(len) else {
            return false;
        };
        if kind == FIELD_CONTENT_TYPE {
            any = false;
            if value == CONTENT_TYPE {
                return true;
            }
        }
        fields = rest;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A collector that says what it was told to say.
    struct Collector {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Collector {
        fn new(frames: &[(Control, &[u8])]) -> Self {
            let mut says = Vec::new();
            for (kind, content_type) in frames {
                let mut body = (*kind as u32).to_be_bytes().to_vec();
                if !content_type.is_empty() {
                    body.extend(1_u32.to_be_bytes());
                    body.extend((content_type.len() as u32).to_be_bytes());
                    body.extend(*content_type);
                }
                says.extend([0; 4]);
                put(&mut says, &body);
            }
            Self {
                says: io::Cursor::new(says),
                heard: Vec::new(),
            }
        }
    }

    impl Read for Collector {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Collector {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.heard.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_begins_when_the_collector_accepts() {
        let mut collector =
            Collector::new(&[(Control::Accept, CONTENT_TYPE), (Control::Finish, b"")]);
        greet(&mut collector).unwrap();
        part(&mut collector).unwrap();
        // READY, START and STOP
        let kinds: Vec<u8> = collector
            .heard
            .windows(8)
            .filter(|it| it.starts_with(&[0; 4]) && it[4..7] == [0; 3])
            .map(|it| it[7])
            .collect();
        assert_eq!(kinds, [34, 34, 4]);
    }

    #[test]
    fn a_collector_of_something_else_gets_nothing() {
        for says in [
            vec![(Control::Accept, &b"protobuf:other"[..])],
            vec![(Control::Finish, &b""[..])],
            vec![],
        ] {
            let mut collector = Collector::new(&says);
            assert!(greet(&mut collector).is_err(), "{says:?}");
        }
    }
}
