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
