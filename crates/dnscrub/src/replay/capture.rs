//! Captures: pcap and pcapng, as tcpdump and its like write them.
//!
//! Read are UDP datagrams and those TCP segments that hold whole messages. Streams are not put
//! together and fragments are not either: what is left out is counted, with the reason.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use dnscrub_scoring::Transport;
use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::ReplayError;

/// The reader's buffer; no packet may be larger.
const BUFFER: usize = 1 << 20;

/// Why a packet of a capture was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Skipped {
    /// Neither IPv4 nor IPv6, or a link type that is not known.
    NotIp,
    /// A fragment.
    Fragment,
    /// Neither UDP nor TCP.
    OtherProtocol,
    /// To and from other ports.
    OtherPort,
    /// The capture holds only a part of it.
    CutShort,
    /// A TCP segment without data: SYN, ACK, FIN.
    NoData,
    /// A TCP segment that does not hold a whole message.
    PartOfStream,
    /// Headers that contradict themselves.
    Damaged,
}

impl Skipped {
    pub(super) const ALL: [Self; 8] = [
        Self::NotIp,
        Self::Fragment,
        Self::OtherProtocol,
        Self::OtherPort,
        Self::CutShort,
        Self::NoData,
        Self::PartOfStream,
        Self::Damaged,
    ];

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::NotIp => "neither IPv4 nor IPv6, or a link type that is not known",
            Self::Fragment => "IP fragments",
            Self::OtherProtocol => "neither UDP nor TCP",
            Self::OtherPort => "to and from other ports",
            Self::CutShort => "captured only in part; capture with a larger snapshot length",
            Self::NoData => "TCP segments without data",
            Self::PartOfStream => "TCP segments that do not hold whole messages",
            Self::Damaged => "headers that are not understood",
        }
    }
}

/// A message in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Since 1970.
    pub(super) at: Duration,
    /// To the server, or from it.
    pub(super) to_server: bool,
    /// The other end.
    pub(super) client: SocketAddr,
    pub(super) hop_ttl: u8,
    pub(super) transport: Transport,
    pub(super) octets: &'a [u8],
}

/// What comes out of a capture, in its order.
pub(super) enum Item<'a> {
    Message(Message<'a>),
    Skipped(Skipped),
}

/// Goes through a capture's packets to and from `port`.
pub(super) fn read(
    path: &Path,
    port: u16,
    each: &mut dyn FnMut(Item<'_>),
) -> Result<(), ReplayError> {
    let failed = |problem: &str| ReplayError::Capture(path.to_owned(), problem.to_owned());
    let file = File::open(path).map_err(|failure| ReplayError::Read(path.to_owned(), failure))?;
    let mut reader = create_reader(BUFFER, file).map_err(|failure| {
        failed(match failure {
            PcapError::Eof | PcapError::Incomplete(_) | PcapError::UnexpectedEof => {
                "it ends before its header does"
            }
            _ => "it is neither pcap nor pcapng nor a trace of the quality suite",
        })
    })?;
    let mut links = Links::default();
    loop {
        match reader.next() {
            Ok((used, block)) => {
                if let Some(captured) = links.packet(&block) {
                    dissect(&captured, port, each);
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|_| failed("reading it failed"))?
            }
            // tcpdump was ended while it wrote: everything up to there counts
            Err(PcapError::UnexpectedEof) => {
                each(Item::Skipped(Skipped::CutShort));
                return Ok(());
            }
            Err(PcapError::BufferTooSmall) => {
                return Err(failed("a packet claims to be larger than 1 MiB"));
            }
            Err(_) => return Err(failed("it is damaged")),
        }
    }
}

/// A packet as it was captured.
struct Captured<'a> {
    at: Duration,
    link: Linktype,
    octets: &'a [u8],
}

/// What the headers of a capture say about the packets behind them.
#[derive(Default)]
struct Links {
    legacy: Option<(Linktype, bool)>,
    interfaces: Vec<Interface>,
    last: Duration,
}

struct Interface {
    link: Linktype,
    /// Ticks in a second.
    resolution: u64,
    /// In seconds.
    offset: i64,
    snapshot: u32,
}

impl Links {
    fn packet<'a>(&mut self, block: &'a PcapBlockOwned<'_>) -> Option<Captured<'a>> {
        let (link, at, octets) = match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.legacy = Some((header.network, header.is_nanosecond_precision()));
                return None;
            }
            PcapBlockOwned::Legacy(packet) => {
                let (link, nanoseconds) = self.legacy?;
                let fraction = u64::from(packet.ts_usec);
                let fraction = if nanoseconds {
                    fraction
                } else {
                    fraction * 1000
                };
                let at = Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(fraction);
                (link, at, packet.data)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                return None;
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.interfaces.push(Interface {
                    link: interface.linktype,
                    resolution: interface.ts_resolution().unwrap_or(1_000_000),
                    offset: interface.ts_offset(),
                    snapshot: interface.snaplen,
                });
                return None;
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = self.interfaces.get(usize::try_from(packet.if_id).ok()?)?;
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let octets = packet.data.get(..usize::try_from(packet.caplen).ok()?)?;
                (interface.link, interface.time(ticks), octets)
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                // it has no time of its own, and belongs to the first interface
                let interface = self.interfaces.first()?;
                let whole = match interface.snapshot {
                    0 => packet.origlen,
                    most => packet.origlen.min(most),
                };
                let octets = packet.data.get(..usize::try_from(whole).ok()?)?;
                (interface.link, self.last, octets)
            }
            PcapBlockOwned::NG(_) => return None,
        };
        self.last = at;
        Some(Captured { at, link, octets })
    }
}

impl Interface {
    fn time(&self, ticks: u64) -> Duration {
        let resolution = self.resolution.max(1);
        let seconds = (ticks / resolution).saturating_add_signed(self.offset);
        let rest = u128::from(ticks % resolution) * 1_000_000_000 / u128::from(resolution);
        // less than a second, for it is a remainder
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(rest).unwrap_or(0))
    }
}

fn dissect(captured: &Captured<'_>, port: u16, each: &mut dyn FnMut(Item<'_>)) {
    let packet = match slice(captured) {
        Ok(packet) => packet,
        Err(reason) => return each(Item::Skipped(reason)),
    };
    let (source, destination, hop_ttl, payload) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let from = IpAddr::V4(header.source_addr());
            let to = IpAddr::V4(header.destination_addr());
            (from, to, header.ttl(), ip.payload())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let from = IpAddr::V6(header.source_addr());
            let to = IpAddr::V6(header.destination_addr());
            (from, to, header.hop_limit(), ip.payload())
        }
        Some(LaxNetSlice::Arp(_)) | None => return each(Item::Skipped(Skipped::NotIp)),
    };
    if payload.fragmented {
        return each(Item::Skipped(Skipped::Fragment));
    }
    let (from, to, transport, data) = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => (
            udp.source_port(),
            udp.destination_port(),
            Transport::Udp,
            udp.payload(),
        ),
        Some(TransportSlice::Tcp(tcp)) => (
            tcp.source_port(),
            tcp.destination_port(),
            Transport::Tcp,
            tcp.payload(),
        ),
        Some(_) => return each(Item::Skipped(Skipped::OtherProtocol)),
        None => {
            return each(Item::Skipped(if payload.incomplete {
                Skipped::CutShort
            } else if packet.stop_err.is_some() {
                Skipped::Damaged
            } else {
                Skipped::OtherProtocol
            }));
        }
    };
    // between servers both ports may be the same: then the flag QR tells
    let header = match transport {
        Transport::Udp => data,
        Transport::Tcp => data.get(2..).unwrap_or_default(),
    };
    let is_response = header.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let to_server = to == port && !(from == port && is_response);
    if to != port && from != port {
        return each(Item::Skipped(Skipped::OtherPort));
    }
    if payload.incomplete {
        return each(Item::Skipped(Skipped::CutShort));
    }
    let client = if to_server {
        SocketAddr::new(source, from)
    } else {
        SocketAddr::new(destination, to)
    };
    let mut message = |octets: &[u8]| {
        each(Item::Message(Message {
            at: captured.at,
            to_server,
            client,
            hop_ttl,
            transport,
            octets,
        }));
    };
    if transport == Transport::Udp {
        return message(data);
    }
    if data.is_empty() {
        return each(Item::Skipped(Skipped::NoData));
    }
    let mut rest = data;
    while let Some((&length, behind)) = rest.split_first_chunk::<2>() {
        let Some((octets, behind)) =
            behind.split_at_checked(usize::from(u16::from_be_bytes(length)))
        else {
            break;
        };
        message(octets);
        rest = behind;
    }
    if !rest.is_empty() {
        each(Item::Skipped(Skipped::PartOfStream));
    }
}

/// Finds the IP packet behind the link's header.
fn slice<'a>(captured: &Captured<'a>) -> Result<LaxSlicedPacket<'a>, Skipped> {
    let octets = captured.octets;
    let behind = |length: usize| octets.get(length..).ok_or(Skipped::CutShort);
    let ether_type = |at: usize| match octets.get(at..) {
        Some(&[high, low, ..]) => Ok(EtherType(u16::from_be_bytes([high, low]))),
        _ => Err(Skipped::CutShort),
    };
    let ip = |octets: &'a [u8]| LaxSlicedPacket::from_ip(octets).map_err(|_| Skipped::Damaged);
    match captured.link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(octets).map_err(|_| Skipped::CutShort),
        // the second is what some systems write for raw IP
        Linktype::RAW | Linktype(12) | Linktype::IPV4 | Linktype::IPV6 => ip(octets),
        Linktype::NULL | Linktype::LOOP => ip(behind(4)?),
        // the protocol is in the last two of 16 octets
        Linktype::LINUX_SLL => Ok(LaxSlicedPacket::from_ether_type(
            ether_type(14)?,
            behind(16)?,
        )),
        // the protocol is in the first two of 20 octets
        Linktype::LINUX_SLL2 => Ok(LaxSlicedPacket::from_ether_type(
            ether_type(0)?,
            behind(20)?,
        )),
        _ => Err(Skipped::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder};

    use super::*;

    const CLIENT: [u8; 4] = [198, 51, 100, 7];
    const SERVER: [u8; 4] = [192, 0, 2, 53];
    const QUERY: &[u8] = b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00";

    /// What is read of one packet with this link type, in short.
    fn read_one(link: u16, octets: &[u8]) -> Vec<String> {
        let mut items = Vec::new();
        let captured = Captured {
            at: Duration::from_secs(1),
            link: Linktype(i32::from(link)),
            octets,
        };
        dissect(&captured, 53, &mut |item| items.push(short(&item)));
        items
    }

    fn short(item: &Item<'_>) -> String {
        match item {
            Item::Skipped(reason) => format!("{reason:?}"),
            Item::Message(message) => {
                let way = if message.to_server { "from" } else { "to" };
                let Message {
                    client,
                    hop_ttl,
                    transport,
                    octets,
                    ..
                } = message;
                format!("{way} {client} {hop_ttl} {transport:?} {}", octets.len())
            }
        }
    }

    fn udp4(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(CLIENT, SERVER, 57)
            .udp(ports.0, ports.1)
            .write(&mut packet, data)
            .unwrap();
        packet
    }

    fn tcp4(data: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(CLIENT, SERVER, 57)
            .tcp(4711, 53, 1, 1024)
            .write(&mut packet, data)
            .unwrap();
        packet
    }

    const FROM_CLIENT: &str = "from 198.51.100.7:4711 57 Udp 12";

    #[test]
    fn every_link_type_leads_to_the_same_datagram() {
        let raw = udp4((4711, 53), QUERY);
        assert_eq!(read_one(101, &raw), [FROM_CLIENT]);
        assert_eq!(read_one(228, &raw), [FROM_CLIENT]);
        let behind = |head: &[u8]| [head, &raw].concat();
        assert_eq!(read_one(0, &behind(&[2, 0, 0, 0])), [FROM_CLIENT]);
        let mut sll = [0; 16];
        sll[14] = 8;
        assert_eq!(read_one(113, &behind(&sll)), [FROM_CLIENT]);
        let mut sll2 = [0; 20];
        sll2[0] = 8;
        assert_eq!(read_one(276, &behind(&sll2)), [FROM_CLIENT]);
        let mut ethernet = [0; 14];
        ethernet[12] = 8;
        // padded to Ethernet's least length
        let padded = [&behind(&ethernet)[..], &[0; 6]].concat();
        assert_eq!(read_one(1, &padded), [FROM_CLIENT]);
        let mut tagged = [0; 18];
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        tagged[16] = 8;
        assert_eq!(read_one(1, &behind(&tagged)), [FROM_CLIENT]);
        assert_eq!(read_one(147, &raw), ["NotIp"]);
        assert_eq!(read_one(113, &sll[..5]), ["CutShort"]);
    }

    #[test]
    fn ipv6_and_answers_are_told_from_queries() {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0x20; 16], [0x30; 16], 250)
            .udp(53, 4711)
            .write(&mut packet, QUERY)
            .unwrap();
        let client = "[3030:3030:3030:3030:3030:3030:3030:3030]:4711";
        assert_eq!(read_one(101, &packet), [format!("to {client} 250 Udp 12")]);
        let between = udp4((53, 53), QUERY);
        assert_eq!(read_one(101, &between), ["from 198.51.100.7:53 57 Udp 12"]);
        let mut response = QUERY.to_vec();
        response[2] = 0x80;
        let between = udp4((53, 53), &response);
        assert_eq!(read_one(101, &between), ["to 192.0.2.53:53 57 Udp 12"]);
        assert_eq!(read_one(101, &udp4((4711, 5353), QUERY)), ["OtherPort"]);
    }

    #[test]
    fn segments_hold_whole_messages_or_are_left_out() {
        let message = [&[0, 12], QUERY].concat();
        let tcp = "from 198.51.100.7:4711 57 Tcp 12";
        assert_eq!(read_one(101, &tcp4(&message)), [tcp]);
        assert_eq!(read_one(101, &tcp4(&message.repeat(2))), [tcp, tcp]);
        let more = [&message[..], &message[..5]].concat();
        assert_eq!(read_one(101, &tcp4(&more)), [tcp, "PartOfStream"]);
        assert_eq!(read_one(101, &tcp4(&message[..1])), ["PartOfStream"]);
        assert_eq!(read_one(101, &tcp4(b"")), ["NoData"]);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_with_its_reason() {
        let whole = udp4((4711, 53), QUERY);
        assert_eq!(read_one(101, &whole[..30]), ["CutShort"]);
        assert_eq!(read_one(101, &whole[..22]), ["CutShort"]);
        assert_eq!(read_one(101, &[]), ["Damaged"]);
        let mut header = Ipv4Header::new(20, 57, IpNumber::UDP, CLIENT, SERVER).unwrap();
        header.more_fragments = true;
        header.fragment_offset = IpFragOffset::ZERO;
        let mut first = Vec::new();
        PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
            .udp(4711, 53)
            .write(&mut first, QUERY)
            .unwrap();
        assert_eq!(read_one(101, &first), ["Fragment"]);
        let mut echo = Vec::new();
        PacketBuilder::ipv4(CLIENT, SERVER, 57)
            .icmpv4_echo_request(1, 1)
            .write(&mut echo, b"")
            .unwrap();
        assert_eq!(read_one(101, &echo), ["OtherProtocol"]);
        let mut arp = [0; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(read_one(1, &arp), ["NotIp"]);
    }

    #[test]
    fn no_octets_make_it_panic() {
        let whole = udp4((4711, 53), QUERY);
        for link in [0, 1, 12, 101, 108, 113, 228, 229, 276] {
            for length in 0..whole.len() {
                for flip in 0..whole.len() {
                    let mut octets = whole[..length].to_vec();
                    if let Some(octet) = octets.get_mut(flip) {
                        *octet ^= 0xff;
                    }
                    assert!(!read_one(link, &octets).is_empty());
                }
            }
        }
    }

    /// A block of pcapng.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = u32::try_from(padded + 12).unwrap().to_le_bytes();
        let mut octets = [&kind.to_le_bytes()[..], &length, body].concat();
        octets.resize(padded + 8, 0);
        octets.extend(length);
        octets
    }

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
    }

    #[test]
    fn pcapng_and_nanoseconds_keep_their_time() {
        let packet = udp4((4711, 53), QUERY);
        let length = u32::try_from(packet.len()).unwrap();
        let section = block(0x0a0d_0d0a, &numbers(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
        // two interfaces: raw IP in microseconds, and in nanoseconds (option 9 is if_tsresol)
        let micro = block(1, &numbers(&[101, 65_535]));
        let nano = block(1, &numbers(&[101, 65_535, 0x0001_0009, 9, 0]));
        let enhanced = |interface: u32, ticks: u64| {
            let (high, low) = ((ticks >> 32) as u32, ticks as u32);
            let head = numbers(&[interface, high, low, length, length]);
            block(6, &[head, packet.clone()].concat())
        };
        let simple = block(3, &[numbers(&[length]), packet.clone()].concat());
        let file = [
            section,
            micro,
            nano,
            enhanced(0, 1_700_000_000_000_001),
            enhanced(1, 1_700_000_000_000_002_003),
            simple,
        ]
        .concat();
        let mut legacy = numbers(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 65_535, 101]);
        legacy.extend(numbers(&[1_700_000_000, 5, length, length]));
        legacy.extend(&packet);
        let times = |octets: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("trace");
            std::fs::write(&path, octets).unwrap();
            let mut times = Vec::new();
            read(&path, 53, &mut |item| match item {
                Item::Message(message) => {
                    assert_eq!(message.octets, QUERY);
                    times.push(message.at.as_nanos() - 1_700_000_000_000_000_000);
                }
                Item::Skipped(reason) => panic!("{reason:?}"),
            })
            .unwrap();
            times
        };
        assert_eq!(times(&file), [1_000, 2_003, 2_003]);
        assert_eq!(times(&legacy), [5]);
    }
}
