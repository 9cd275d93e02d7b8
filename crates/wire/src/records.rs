//! Numbers of record types and classes that the proxy treats by name.

/// Types (IANA "Resource Record (RR) TYPEs").
pub mod qtype {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Canonical name.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Pointer.
    pub const PTR: u16 = 12;
    /// Mail exchange.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// SIG; with type covered 0 it is SIG(0) (RFC 2931).
    pub const SIG: u16 = 24;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// EDNS (RFC 6891).
    pub const OPT: u16 = 41;
    /// Transaction signature (RFC 8945).
    pub const TSIG: u16 = 250;
    /// Incremental zone transfer (RFC 1995).
    pub const IXFR: u16 = 251;
    /// Zone transfer (RFC 5936).
    pub const AXFR: u16 = 252;
    /// All types (RFC 8482).
    pub const ANY: u16 = 255;
}

/// Classes (IANA "DNS CLASSes").
pub mod qclass {
    /// Internet.
    pub const IN: u16 = 1;
    /// Chaos.
    pub const CH: u16 = 3;
    /// None (RFC 2136).
    pub const NONE: u16 = 254;
    /// Any class.
    pub const ANY: u16 = 255;
}
