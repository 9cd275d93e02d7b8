//! The fixed header of a DNS message (RFC 1035 section 4.1.1).

use std::fmt;

use crate::records::{NumberText, numbered};

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

macro_rules! named_codes {
    ($(#[$attribute:meta])* $name:ident($inner:ty), $prefix:literal, $max:literal;
     $($(#[doc = $doc:literal])+ $constant:ident = $value:literal,)+) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[doc = $doc])+ pub const $constant: Self = Self($value);)+

            /// Every code with a name, in ascending order.
            pub const NAMED: &[Self] = &[$(Self::$constant),+];

            /// The mnemonic; nothing for a code that has none.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($constant)),)+
                    _ => None,
                }
            }

            /// Reads a mnemonic in any case, or
            #[doc = concat!("`", $prefix, "9`.")]
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case(stringify!($constant)) {
                    return Some(Self::$constant);
                })+
                let number = numbered(text, $prefix).filter(|number| *number <= $max)?;
                Some(Self(<$inner>::try_from(number).ok()?))
            }
        }

        /// The mnemonic, or
        #[doc = concat!("`", $prefix, "9`.")]
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                NumberText::new(self.name(), $prefix, self.0.into()).fmt(f)
            }
        }
    };
}

named_codes! {
    /// A query's opcode (IANA "DNS OpCodes").
    Opcode(u8), "OPCODE", 15;
    /// A standard query.
    QUERY = 0,
    /// An inverse query (obsolete).
    IQUERY = 1,
    /// A server status request.
    STATUS = 2,
    /// A zone change notice (RFC 1996).
    NOTIFY = 4,
    /// A dynamic update (RFC 2136).
    UPDATE = 5,
    /// DNS stateful operations (RFC 8490).
    DSO = 6,
}

named_codes! {
    /// A response code, with the extended bits of the OPT record where there is one
    /// (IANA "DNS RCODEs").
    Rcode(u16), "RCODE", 4095;
    /// No error.
    NOERROR = 0,
    /// The query could not be interpreted.
    FORMERR = 1,
    /// The server failed.
    SERVFAIL = 2,
    /// The name does not exist.
    NXDOMAIN = 3,
    /// The kind of query is not implemented.
    NOTIMP = 4,
    /// Refused for policy reasons.
    REFUSED = 5,
    /// The name exists though it should not (RFC 2136).
    YXDOMAIN = 6,
    /// The record set exists though it should not (RFC 2136).
    YXRRSET = 7,
    /// The record set does not exist though it should (RFC 2136).
    NXRRSET = 8,
    /// Not authoritative for the zone, or not authorised (RFC 2136, RFC 8945).
    NOTAUTH = 9,
    /// The name is not within the zone (RFC 2136).
    NOTZONE = 10,
    /// The DSO type is not implemented (RFC 8490).
    DSOTYPENI = 11,
    /// Unsupported EDNS version (RFC 6891); in a TSIG record BADSIG.
    BADVERS = 16,
    /// The key is not known (RFC 8945).
    BADKEY = 17,
    /// The signature is outside its time window (RFC 8945).
    BADTIME = 18,
    /// Bad TKEY mode (RFC 2930).
    BADMODE = 19,
    /// Duplicate key name (RFC 2930).
    BADNAME = 20,
    /// The algorithm is not supported (RFC 2930).
    BADALG = 21,
    /// The signature is truncated too far (RFC 8945).
    BADTRUNC = 22,
    /// Bad or missing server cookie (RFC 7873).
    BADCOOKIE = 23,
}
