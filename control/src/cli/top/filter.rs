//! The words that narrow `fwctl top` to some flows, as parameters of the API.

use crate::api::types::Net;

/// A filter in words, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// As it was written.
    pub(super) text: String,
    /// Parameters of a URL, each with its `&` before it.
    pub(super) query: String,
}

/// Protocols by the names they have here and in `/etc/protocols`.
const PROTOCOLS: [(&str, u8); 11] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("igmp", 2),
    ("ospf", 89),
];

impl Filter {
    /// Understands a filter.
    ///
    /// # Errors
    /// Names the word that is wrong, and what may stand there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut query, mut given) = (String::new(), Vec::new());
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value after it"));
            let (name, value) = match word {
                "host" | "src" | "dst" => (word, net(value()?)?),
                "port" | "sport" | "dport" => (word, number::<u16>(word, value()?)?),
                "proto" => (word, protocol(value()?)?),
                "state" => (word, value()?.to_ascii_uppercase()),
                "mark" => (word, mark(value()?)?),
                "zone" => (word, number::<u16>(word, value()?)?),
                "ipv4" => ("family", "4".to_owned()),
                "ipv6" => ("family", "6".to_owned()),
                "new" => ("seen_reply", "false".to_owned()),
                "answered" => ("seen_reply", "true".to_owned()),
                word => {
                    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == word) {
                        ("proto", number.to_string())
                    } else if word.bytes().all(|byte| byte.is_ascii_digit()) {
                        ("port", number::<u16>("port", word)?)
                    } else {
                        let net = net(word).map_err(|_| {
                            format!(
                                "`{word}` is no protocol, address, port or word of a filter; ? shows them"
                            )
                        })?;
                        ("host", net)
                    }
                }
            };
            if given.contains(&name) {
                return Err(format!("`{word}`: {name} is given twice"));
            }
            given.push(name);
            query.push('&');
            query.push_str(name);
            query.push('=');
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'/' | b'_' | b'-') {
                    query.push(char::from(byte));
                } else {
                    query.push_str(&format!("%{byte:02X}"));
                }
            }
        }
        Ok(Self { text: text.split_whitespace().collect::<Vec<_>>().join(" "), query })
    }
}

fn net(text: &str) -> Result<String, String> {
    text.parse::<Net>().map(|_| text.to_owned()).map_err(|_| format!("`{text}` is no address or network"))
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<String, String> {
    text.parse::<T>()
        .map(|_| text.to_owned())
        .map_err(|_| format!("{name}: `{text}` is no number from 0 to 65535"))
}

fn protocol(text: &str) -> Result<String, String> {
    let known = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    known
        .or_else(|| text.parse().ok())
        .map(|number: u8| number.to_string())
        .ok_or_else(|| format!("proto: `{text}` is no protocol's name or number from 0 to 255"))
}

fn mark(text: &str) -> Result<String, String> {
    text.parse::<crate::api::types::Mark>()
        .map(|_| text.to_owned())
        .map_err(|_| format!("mark: `{text}` is no mark"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_parameters() {
        let query = |text: &str| Filter::parse(text).unwrap().query;
        assert_eq!(query(""), "");
        assert_eq!(query("  tcp   dport 443 "), "&proto=6&dport=443");
        assert_eq!(query("10.0.0.0/8 53"), "&host=10.0.0.0/8&port=53");
        assert_eq!(query("src fd00::1 ipv6 new"), "&src=fd00::1&family=6&seen_reply=false");
        assert_eq!(query("state established proto 89 zone 7"), "&state=ESTABLISHED&proto=89&zone=7");
        assert_eq!(query("state a&b"), "&state=A%26B");
        assert_eq!(Filter::parse("  tcp   443 ").unwrap().text, "tcp 443");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("tpc", "`tpc`"),
            ("dport", "needs a value"),
            ("dport 70000", "70000"),
            ("src 10.0.0.0/33", "10.0.0.0/33"),
            ("tcp udp", "twice"),
            ("proto 300", "300"),
        ] {
            let why = Filter::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
