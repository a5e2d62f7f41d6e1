//! Where requests are to go, checked once: what gets into a configuration can't be more than it says.

use super::NginxError;
use std::net::{IpAddr, Ipv6Addr};

/// What moves to the destination where nobody says otherwise: what a core itself serves. `follower_server` is no
/// such thing: it tells this very host about its own configuration.
pub const MOVING: [&str; 7] = [
    "core_server",
    "websocket_server",
    "hfs_server",
    "preview_server",
    "preview_server_forward",
    "audit_server",
    "mfa_server",
];

/// Where requests go, what goes there, and how the other side is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The other machine.
    pub address: Address,
    /// Names of upstreams; none: [`MOVING`], as far as they are there.
    pub upstreams: Vec<String>,
    /// What its certificate is verified against; `None`: it is not verified.
    pub trusted: Option<TrustedFile>,
}

/// An address and a port, as nginx's `server` takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    is_name: bool,
}

impl Address {
    /// Reads `ADDRESS[:PORT]`: IPv4, IPv6 (with a port in brackets), or a host name. The port is 443 otherwise.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Address, NginxError> {
        let wrong = || NginxError::Address { text: text.to_owned() };
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Address { text: format!("[{address}]:443"), is_name: false });
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => {
                let host: Ipv6Addr = host.parse().map_err(|_| wrong())?;
                let port = if rest.is_empty() { "443" } else { rest.strip_prefix(':').ok_or_else(wrong)? };
                (format!("[{host}]"), port)
            }
            None => {
                let (host, port) = text.split_once(':').unwrap_or((text, "443"));
                (host.to_owned(), port)
            }
        };
        let is_digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|&port| is_digits && port > 0).ok_or_else(wrong)?;
        let is_name = !host.starts_with('[') && host.parse::<IpAddr>().is_err();
        if is_name && !is_host_name(&host) {
            return Err(wrong());
        }
        Ok(Address { text: format!("{host}:{port}"), is_name })
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has to be looked up.
    #[must_use]
    pub fn is_name(&self) -> bool {
        self.is_name
    }
}

/// Labels of letters, digits, `-` and `_`; not digits alone at the end, which is a mistyped address.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// The path of a file of certificates, as nginx will open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedFile(String);

impl TrustedFile {
    /// What Debian's `ca-certificates` and nginx's own images have.
    pub const DEFAULT: &str = "/etc/ssl/certs/ca-certificates.crt";

    /// Takes an absolute path without white space, quotes or what else nginx reads otherwise.
    ///
    /// # Errors
    /// It is something else.
    pub fn new(path: &str) -> Result<TrustedFile, NginxError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,=~".contains(&byte);
        if path.starts_with('/') && path.bytes().all(is_plain) {
            Ok(TrustedFile(path.to_owned()))
        } else {
            Err(NginxError::TrustedFile { text: path.to_owned() })
        }
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_port_and_nothing_else_gets_in() {
        for (text, expected) in [
            ("203.0.113.9", Some("203.0.113.9:443")),
            ("203.0.113.9:8443", Some("203.0.113.9:8443")),
            ("2001:db8::1", Some("[2001:db8::1]:443")),
            ("[2001:db8::1]", Some("[2001:db8::1]:443")),
            ("[2001:db8::1]:8443", Some("[2001:db8::1]:8443")),
            ("core-2.example.org", Some("core-2.example.org:443")),
            ("", None),
            (":443", None),
            ("203.0.113.999", None),
            ("203.0.113.9:", None),
            ("203.0.113.9:0", None),
            ("203.0.113.9:+1", None),
            ("203.0.113.9:70000", None),
            ("https://203.0.113.9", None),
            ("a b", None),
            ("a;}", None),
            ("a\n", None),
            ("$host", None),
            ("unix:/run/x", None),
        ] {
            let parsed = Address::parse(text).ok();
            assert_eq!(parsed.as_ref().map(Address::as_str), expected, "{text}");
        }
    }

    #[test]
    fn a_path_can_say_nothing_but_a_path() {
        assert!(TrustedFile::new(TrustedFile::DEFAULT).is_ok());
        for path in ["ca.pem", "/a b", "/a;", "/a\n", "/$x", "/a\"", ""] {
            assert!(TrustedFile::new(path).is_err(), "{path}");
        }
    }
}
