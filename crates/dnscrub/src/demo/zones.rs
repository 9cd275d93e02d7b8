//! The zones that the embedded name servers serve, and that the proxy knows the names of.

use std::fmt::Write as _;

use dnscrub_embedded_authority::{Zone, ZoneError};

/// Their origins.
pub(super) const ORIGINS: [&str; 2] = ["example.test", "shop.test"];

/// Hosts of every zone. None of them looks like a random name.
pub(super) const HOSTS: [&str; 16] = [
    "www", "mail", "api", "cdn", "img", "blog", "docs", "login", "status", "static", "m", "news",
    "media", "search", "pay", "help",
];

/// The zones, parsed.
///
/// # Errors
/// None but for a mistake in this file.
pub(super) fn zones() -> Result<Vec<Zone>, ZoneError> {
    ORIGINS
        .iter()
        .enumerate()
        .map(|(number, origin)| Zone::parse(origin, &text(number)))
        .collect()
}

/// The zone files, by the name of their file.
pub(super) fn files() -> impl Iterator<Item = (String, String)> {
    ORIGINS
        .iter()
        .enumerate()
        .map(|(number, origin)| (format!("{origin}.zone"), text(number)))
}

fn text(number: usize) -> String {
    let mut text = String::from(
        "@ 3600 IN SOA ns1 hostmaster 1 3600 600 604800 300\n\
         @ 3600 IN NS ns1\n\
         @ 3600 IN NS ns2\n\
         @ 3600 IN MX 10 mail\n\
         @ 3600 IN TXT \"v=spf1 mx -all\"\n\
         ns1 3600 IN A 192.0.2.1\n\
         ns2 3600 IN A 192.0.2.2\n",
    );
    for (host, last) in HOSTS.iter().zip(80..) {
        // documentation addresses: RFC 5737, RFC 3849; writing into a string cannot fail
        let _ = writeln!(text, "{host} 300 IN A 192.0.2.{last}");
        let _ = writeln!(text, "{host} 300 IN AAAA 2001:db8:{number}::{last}");
    }
    text
}
