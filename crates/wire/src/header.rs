//! The fixed header of a DNS message (RFC 1035 section 4.1.1).

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 12;

/// The second 16 bits of the header: QR, opcode, AA, TC, RD, RA, AD, CD and the low rcode bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// QR: the message is a response.
    #[must_use]
    pub const fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// The kind of query.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        Opcode((self.0 >> 11) as u8 & 0x0f)
    }

    /// AA: authoritative answer.
    #[must_use]
    pub const fn authoritative(self) -> bool {
        self.0 & 0x0400 != 0
    }

    /// TC: the message was truncated.
    #[must_use]
    pub const fn truncated(self) -> bool {
        self.0 & 0x0200 != 0
    }

    /// RD: recursion desired.
    #[must_use]
    pub const fn recursion_desired(self) -> bool {
        self.0 & 0x0100 != 0
    }

    /// RA: recursion available.
    #[must_use]
    pub const fn recursion_available(self) -> bool {
        self.0 & 0x0080 != 0
    }

    /// AD: authentic data (RFC 4035).
    #[must_use]
    pub const fn authentic_data(self) -> bool {
        self.0 & 0x0020 != 0
    }

    /// CD: checking disabled (RFC 4035).
    #[must_use]
    pub const fn checking_disabled(self) -> bool {
        self.0 & 0x0010 != 0
    }

    /// The low four bits of the rcode; the OPT record holds the others.
    #[must_use]
    pub const fn rcode(self) -> Rcode {
        Rcode(self.0 & 0x000f)
    }
}

/// A query's opcode (IANA "DNS OpCodes").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// A standard query.
    pub const QUERY: Self = Self(0);
    /// A server status request.
    pub const STATUS: Self = Self(2);
    /// A zone change notice (RFC 1996).
    pub const NOTIFY: Self = Self(4);
    /// A dynamic update (RFC 2136).
    pub const UPDATE: Self = Self(5);
}

/// A response code, with the extended bits of the OPT record where there is one
/// (IANA "DNS RCODEs").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query could not be interpreted.
    pub const FORMERR: Self = Self(1);
    /// The server failed.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The kind of query is not implemented.
    pub const NOTIMP: Self = Self(4);
    /// Refused for policy reasons.
    pub const REFUSED: Self = Self(5);
    /// Unsupported EDNS version (RFC 6891).
    pub const BADVERS: Self = Self(16);
    /// Bad or missing server cookie (RFC 7873).
    pub const BADCOOKIE: Self = Self(23);
}
