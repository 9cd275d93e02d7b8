//! Numbers of the IANA registries and their names.

use std::fmt;

macro_rules! registry {
    ($(#[$attribute:meta])* $module:ident, $from_name:ident, $name_of:ident;
     $($(#[doc = $doc:literal])+ $constant:ident = $value:literal, $name:literal;)+) => {
        $(#[$attribute])*
        pub mod $module {
            $($(#[doc = $doc])+ pub const $constant: u16 = $value;)+
        }

        fn $from_name(text: &str) -> Option<u16> {
            $(if text.eq_ignore_ascii_case($name) {
                return Some($value);
            })+
            None
        }

        const fn $name_of(number: u16) -> Option<&'static str> {
            match number {
                $($value => Some($name),)+
                _ => None,
            }
        }
    };
}

registry! {
    /// Types (IANA "Resource Record (RR) TYPEs").
    qtype, known_type, known_type_name;
    /// IPv4 address.
    A = 1, "A";
    /// Authoritative name server.
    NS = 2, "NS";
    /// Mail destination (obsolete).
    MD = 3, "MD";
    /// Mail forwarder (obsolete).
    MF = 4, "MF";
    /// Canonical name.
    CNAME = 5, "CNAME";
    /// Start of authority.
    SOA = 6, "SOA";
    /// Mailbox.
    MB = 7, "MB";
    /// Mail group member.
    MG = 8, "MG";
    /// Mail rename.
    MR = 9, "MR";
    /// Anything.
    NULL = 10, "NULL";
    /// Well known services.
    WKS = 11, "WKS";
    /// Pointer.
    PTR = 12, "PTR";
    /// Host information; also the answer to ANY (RFC 8482).
    HINFO = 13, "HINFO";
    /// Mailbox information.
    MINFO = 14, "MINFO";
    /// Mail exchange.
    MX = 15, "MX";
    /// Text.
    TXT = 16, "TXT";
    /// Responsible person.
    RP = 17, "RP";
    /// AFS database.
    AFSDB = 18, "AFSDB";
    /// X.25 address.
    X25 = 19, "X25";
    /// ISDN address.
    ISDN = 20, "ISDN";
    /// Route through.
    RT = 21, "RT";
    /// NSAP address.
    NSAP = 22, "NSAP";
    /// NSAP pointer.
    NSAP_PTR = 23, "NSAP-PTR";
    /// Signature; with type covered 0 it is SIG(0) (RFC 2931).
    SIG = 24, "SIG";
    /// Public key.
    KEY = 25, "KEY";
    /// X.400 mail mapping.
    PX = 26, "PX";
    /// Geographical position.
    GPOS = 27, "GPOS";
    /// IPv6 address.
    AAAA = 28, "AAAA";
    /// Location.
    LOC = 29, "LOC";
    /// Next domain (obsolete).
    NXT = 30, "NXT";
    /// Endpoint identifier.
    EID = 31, "EID";
    /// Nimrod locator.
    NIMLOC = 32, "NIMLOC";
    /// Service location.
    SRV = 33, "SRV";
    /// ATM address.
    ATMA = 34, "ATMA";
    /// Naming authority pointer.
    NAPTR = 35, "NAPTR";
    /// Key exchanger.
    KX = 36, "KX";
    /// Certificate.
    CERT = 37, "CERT";
    /// IPv6 address (obsolete).
    A6 = 38, "A6";
    /// Redirection of a subtree (RFC 6672).
    DNAME = 39, "DNAME";
    /// Kitchen sink.
    SINK = 40, "SINK";
    /// EDNS (RFC 6891).
    OPT = 41, "OPT";
    /// Address prefix list.
    APL = 42, "APL";
    /// Delegation signer.
    DS = 43, "DS";
    /// SSH key fingerprint.
    SSHFP = 44, "SSHFP";
    /// IPsec key.
    IPSECKEY = 45, "IPSECKEY";
    /// Signature of a record set.
    RRSIG = 46, "RRSIG";
    /// Next secure name.
    NSEC = 47, "NSEC";
    /// Zone key.
    DNSKEY = 48, "DNSKEY";
    /// DHCP identifier.
    DHCID = 49, "DHCID";
    /// Next secure name, hashed.
    NSEC3 = 50, "NSEC3";
    /// Parameters of NSEC3.
    NSEC3PARAM = 51, "NSEC3PARAM";
    /// TLS certificate association.
    TLSA = 52, "TLSA";
    /// S/MIME certificate association.
    SMIMEA = 53, "SMIMEA";
    /// Host identity protocol.
    HIP = 55, "HIP";
    /// Zone status.
    NINFO = 56, "NINFO";
    /// Resource key.
    RKEY = 57, "RKEY";
    /// Trust anchor link.
    TALINK = 58, "TALINK";
    /// Child's DS.
    CDS = 59, "CDS";
    /// Child's DNSKEY.
    CDNSKEY = 60, "CDNSKEY";
    /// OpenPGP key.
    OPENPGPKEY = 61, "OPENPGPKEY";
    /// Child to parent synchronisation.
    CSYNC = 62, "CSYNC";
    /// Digest of a zone.
    ZONEMD = 63, "ZONEMD";
    /// Service binding.
    SVCB = 64, "SVCB";
    /// Service binding for HTTPS.
    HTTPS = 65, "HTTPS";
    /// Endpoint for delegation changes.
    DSYNC = 66, "DSYNC";
    /// Sender policy (obsolete).
    SPF = 99, "SPF";
    /// User information.
    UINFO = 100, "UINFO";
    /// User id.
    UID = 101, "UID";
    /// Group id.
    GID = 102, "GID";
    /// Unspecified format.
    UNSPEC = 103, "UNSPEC";
    /// Node identifier.
    NID = 104, "NID";
    /// ILNP 32-bit locator.
    L32 = 105, "L32";
    /// ILNP 64-bit locator.
    L64 = 106, "L64";
    /// ILNP locator pointer.
    LP = 107, "LP";
    /// 48-bit hardware address.
    EUI48 = 108, "EUI48";
    /// 64-bit hardware address.
    EUI64 = 109, "EUI64";
    /// The name does not exist (compact denial of existence, RFC 9824).
    NXNAME = 128, "NXNAME";
    /// Transaction key.
    TKEY = 249, "TKEY";
    /// Transaction signature (RFC 8945).
    TSIG = 250, "TSIG";
    /// Incremental zone transfer (RFC 1995).
    IXFR = 251, "IXFR";
    /// Zone transfer (RFC 5936).
    AXFR = 252, "AXFR";
    /// Mailbox-related records.
    MAILB = 253, "MAILB";
    /// MF or MD records (obsolete).
    MAILA = 254, "MAILA";
    /// All types (RFC 8482).
    ANY = 255, "ANY";
    /// Uniform resource identifier.
    URI = 256, "URI";
    /// Certification authority authorisation.
    CAA = 257, "CAA";
    /// Application visibility and control.
    AVC = 258, "AVC";
    /// Digital object architecture.
    DOA = 259, "DOA";
    /// Automatic multicast tunnelling relay.
    AMTRELAY = 260, "AMTRELAY";
    /// Resolver information.
    RESINFO = 261, "RESINFO";
    /// Public wallet address.
    WALLET = 262, "WALLET";
    /// BP convergence layer adapter.
    CLA = 263, "CLA";
    /// BP node number.
    IPN = 264, "IPN";
    /// Trust authority.
    TA = 32768, "TA";
    /// Look-aside validation (obsolete).
    DLV = 32769, "DLV";
}

registry! {
    /// Classes (IANA "DNS CLASSes").
    qclass, known_class, known_class_name;
    /// Internet.
    IN = 1, "IN";
    /// CSNET (obsolete).
    CS = 2, "CS";
    /// Chaos.
    CH = 3, "CH";
    /// Hesiod.
    HS = 4, "HS";
    /// None (RFC 2136).
    NONE = 254, "NONE";
    /// Any class.
    ANY = 255, "ANY";
}

/// EDNS options (IANA "DNS EDNS0 Option Codes").
pub mod option_code {
    /// Long-lived queries (RFC 8764).
    pub const LLQ: u16 = 1;
    /// Lease of a dynamic update (RFC 9664).
    pub const UPDATE_LEASE: u16 = 2;
    /// Name server identifier (RFC 5001).
    pub const NSID: u16 = 3;
    /// Client subnet (RFC 7871).
    pub const CLIENT_SUBNET: u16 = 8;
    /// Zone expiry (RFC 7314).
    pub const EXPIRE: u16 = 9;
    /// Cookies (RFC 7873).
    pub const COOKIE: u16 = 10;
    /// Idle time of a TCP connection (RFC 7828).
    pub const TCP_KEEPALIVE: u16 = 11;
    /// Padding (RFC 7830).
    pub const PADDING: u16 = 12;
    /// Chain query (RFC 7901).
    pub const CHAIN: u16 = 13;
    /// Key tags (RFC 8145).
    pub const KEY_TAG: u16 = 14;
    /// Extended DNS error (RFC 8914).
    pub const EXTENDED_ERROR: u16 = 15;
    /// Where to report errors (RFC 9567).
    pub const REPORT_CHANNEL: u16 = 18;
    /// Version of a zone (RFC 9660).
    pub const ZONEVERSION: u16 = 19;
}

/// Reasons of an extended DNS error (RFC 8914; IANA "Extended DNS Error Codes").
pub mod info_code {
    /// None of the others; see the text.
    pub const OTHER: u16 = 0;
    /// The answer is past its TTL.
    pub const STALE_ANSWER: u16 = 3;
    /// On our blocklist.
    pub const BLOCKED: u16 = 15;
    /// Blocked on somebody else's order.
    pub const CENSORED: u16 = 16;
    /// Blocked on the client's own request.
    pub const FILTERED: u16 = 17;
    /// The client may not ask here.
    pub const PROHIBITED: u16 = 18;
    /// The server has no authority over the name.
    pub const NOT_AUTHORITATIVE: u16 = 20;
    /// The operation or query is not supported.
    pub const NOT_SUPPORTED: u16 = 21;
    /// No upstream could be reached.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// A network error happened.
    pub const NETWORK_ERROR: u16 = 23;
    /// The authority's data are broken.
    pub const INVALID_DATA: u16 = 24;
}

/// The type's number: its mnemonic in any case, `*` for ANY, or `TYPE65280` (RFC 3597 section 5).
#[must_use]
pub fn type_from_text(text: &str) -> Option<u16> {
    known_type(text).or_else(|| {
        if text == "*" {
            Some(qtype::ANY)
        } else {
            numbered(text, "TYPE")
        }
    })
}

/// The type's mnemonic; nothing for a number that has none.
#[must_use]
pub const fn type_name(number: u16) -> Option<&'static str> {
    known_type_name(number)
}

/// The type as text: its mnemonic, or `TYPE65280`.
#[must_use]
pub const fn type_to_text(number: u16) -> NumberText {
    NumberText {
        name: known_type_name(number),
        prefix: "TYPE",
        number,
    }
}

/// The class's number: its mnemonic in any case, or `CLASS65280` (RFC 3597 section 5).
#[must_use]
pub fn class_from_text(text: &str) -> Option<u16> {
    known_class(text).or_else(|| numbered(text, "CLASS"))
}

/// The class as text: its mnemonic, or `CLASS65280`.
#[must_use]
pub const fn class_to_text(number: u16) -> NumberText {
    NumberText {
        name: known_class_name(number),
        prefix: "CLASS",
        number,
    }
}

/// A registry number that displays as its name or, where it has none, as prefix and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberText {
    name: Option<&'static str>,
    prefix: &'static str,
    number: u16,
}

impl NumberText {
    pub(crate) const fn new(name: Option<&'static str>, prefix: &'static str, number: u16) -> Self {
        Self {
            name,
            prefix,
            number,
        }
    }
}

impl fmt::Display for NumberText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.pad(name),
            None => write!(f, "{}{}", self.prefix, self.number),
        }
    }
}

/// The number of `PREFIX123`, the prefix in any case.
pub(crate) fn numbered(text: &str, prefix: &str) -> Option<u16> {
    let (head, digits) = text.split_at_checked(prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Opcode, Rcode};

    #[test]
    fn every_number_returns_from_its_text() {
        for number in 0..=u16::MAX {
            assert_eq!(
                type_from_text(&type_to_text(number).to_string()),
                Some(number)
            );
            assert_eq!(
                class_from_text(&class_to_text(number).to_string()),
                Some(number)
            );
        }
        for number in 0..16 {
            assert_eq!(
                Opcode::from_text(&Opcode(number).to_string()),
                Some(Opcode(number))
            );
        }
        for number in 0..4096 {
            assert_eq!(
                Rcode::from_text(&Rcode(number).to_string()),
                Some(Rcode(number))
            );
        }
    }

    #[test]
    fn texts_are_those_of_the_registry() {
        assert_eq!(type_to_text(65280).to_string(), "TYPE65280");
        assert_eq!(type_to_text(qtype::NSAP_PTR).to_string(), "NSAP-PTR");
        assert_eq!(format!("{:>6}", type_to_text(qtype::AAAA)), "  AAAA");
        assert_eq!((type_name(28), type_name(0)), (Some("AAAA"), None));
        assert_eq!(class_to_text(2570).to_string(), "CLASS2570");
        assert_eq!(
            (Opcode(3).to_string(), Rcode(3).to_string()),
            ("OPCODE3".into(), "NXDOMAIN".into())
        );
    }

    #[test]
    fn case_does_not_matter_and_nonsense_is_refused() {
        assert_eq!(type_from_text("aAaA"), Some(qtype::AAAA));
        assert_eq!(type_from_text("type1"), Some(qtype::A));
        assert_eq!(type_from_text("*"), Some(qtype::ANY));
        for text in [
            "",
            "AAAAA",
            "TYPE",
            "TYPE65536",
            "TYPE+1",
            "TYPE-1",
            "TYPE1 ",
            "TYP",
            "1",
            "ÄÖÜÄ",
        ] {
            assert_eq!(type_from_text(text), None, "{text}");
        }
        assert_eq!(
            (Opcode::from_text("notify"), Opcode::from_text("OPCODE16")),
            (Some(Opcode::NOTIFY), None)
        );
        assert_eq!(
            (Rcode::from_text("refused"), Rcode::from_text("RCODE4096")),
            (Some(Rcode::REFUSED), None)
        );
    }
}
