//! Addresses in the configuration: where to listen, and whom to send to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where to listen on TCP; written `ADDRESS:PORT`, or empty for nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |addr| addr.fmt(f))
    }
}

impl Listen {
    /// What the text says; `None` if it is neither empty nor an address and a port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(None));
        }
        text.parse().ok().filter(|addr: &SocketAddr| addr.port() != 0).map(|addr| Self(Some(addr)))
    }

    /// What may be meant by a text that says nothing.
    pub(super) fn hint(text: &str) -> String {
        let port = text.strip_prefix(':').unwrap_or(text);
        if let Ok(port @ 1..) = port.parse::<u16>() {
            return format!("this machine alone: \"127.0.0.1:{port}\"; everybody: \"0.0.0.0:{port}\"");
        }
        match text.parse::<IpAddr>() {
            Ok(addr) => format!("the port is missing: \"{}\"", SocketAddr::new(addr, 9100)),
            Err(_) => "write it as \"127.0.0.1:9100\" or \"[::1]:9100\"; \"\" for nowhere".to_owned(),
        }
    }
}

/// Names by which a listener may be called, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(pub Vec<String>);

impl HostNames {
    /// Whether a text can be the name of a host, without a port.
    pub(super) fn is_name(text: &str) -> bool {
        let is_label = |label: &str| {
            let bytes = label.as_bytes();
            (1..=63).contains(&bytes.len())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        text.len() <= 253 && text.split('.').all(is_label)
    }
}

/// Whether a text names a host and a port, `HOST:PORT` or `[ADDRESS]:PORT`. Whether there is such a host shows later.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    if !matches!(port.parse::<u16>(), Ok(1..)) {
        return false;
    }
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|addr| addr.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(is_known)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_have_no_port_and_no_space() {
        for name in ["gateway", "gw.example.org", "a-b_c.x", "10.0.0.1"] {
            assert!(HostNames::is_name(name), "{name}");
        }
        for not in
            ["", "gw.", ".gw", "gw:8080", "a b", "http://gw", "*.example.org", "[::1]", &"a".repeat(64)]
        {
            assert!(!HostNames::is_name(not), "{not}");
        }
    }

    #[test]
    fn a_host_has_a_port() {
        for good in ["collector.example:4739", "10.0.0.1:2055", "[2001:db8::1]:4739"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in
            ["", "collector", ":4739", "host:0", "host:65536", "2001:db8::1", "[::1]", "a b:1", "[x]:1"]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for text in ["", "127.0.0.1:9100", "[::1]:80"] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), text);
        }
        for text in ["127.0.0.1", "9100", ":9100", "localhost:80", "127.0.0.1:0", "::1"] {
            assert_eq!(Listen::parse(text), None, "{text}");
            assert!(Listen::hint(text).contains(':'));
        }
    }
}
