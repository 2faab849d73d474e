//! Names the operator writes: interfaces, EtherTypes, and the nearest known name to a misspelled one.

/// Longest interface name in bytes (`IFNAMSIZ` less its terminator).
pub const IFACE_NAME_MAX: usize = 15;

/// EtherTypes that may be written by name in `l2.pass`. Source: IEEE 802 numbers registry.
pub const ETHERTYPES: &[(&str, u16)] = &[
    ("arp", 0x0806),
    ("eapol", 0x888e),
    ("fcoe", 0x8906),
    ("ipx", 0x8137),
    ("lldp", 0x88cc),
    ("macsec", 0x88e5),
    ("mpls", 0x8847),
    ("mpls-multicast", 0x8848),
    ("pppoe", 0x8864),
    ("pppoe-discovery", 0x8863),
    ("profinet", 0x8892),
    ("ptp", 0x88f7),
    ("rarp", 0x8035),
    ("roce", 0x8915),
    ("wol", 0x0842),
];

/// Smallest EtherType; below it the field is an 802.3 length.
pub const ETHERTYPE_MIN: u16 = 0x0600;

/// Whether the kernel would take this as an interface name; if not, why. Same rule as the kernel's `dev_valid_name`.
///
/// # Errors
/// Says what is wrong with the name.
pub fn check_iface(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("an interface name cannot be empty"),
        "." | ".." => Err("`.` and `..` are not interface names"),
        _ if name.len() > IFACE_NAME_MAX => Err("an interface name has at most 15 bytes"),
        _ if name.contains(['/', ':']) => Err("an interface name has no `/` and no `:`"),
        _ if name.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err("an interface name has no blanks and no control characters")
        }
        _ => Ok(()),
    }
}

/// The candidate closest to `word`, if it is close enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters wrong is the most that still looks like a slip; rustc uses the same bound.
    let limit = (word.chars().count().max(3)) / 3;
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words: optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["tcp_loose", "tcp_be_liberal", "udp_timeout", "udp_timeout_stream"];
        assert_eq!(nearest("tcp_losse", known), Some("tcp_loose"));
        assert_eq!(nearest("tcp_loosee", known), Some("tcp_loose"));
        assert_eq!(nearest("TCP_LOOSE", known), Some("tcp_loose"));
        assert_eq!(nearest("upd_timeout", known), Some("udp_timeout"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "enp3s0f1np1", "a.100", "fifteen-letters", "br-lan"] {
            assert_eq!(check_iface(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-letters-", "a b", "a/b", "a:1", "a\u{7}"] {
            assert!(check_iface(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ethertype_names_are_unique_and_in_range() {
        for (i, (name, number)) in ETHERTYPES.iter().enumerate() {
            assert!(*number >= ETHERTYPE_MIN);
            assert!(ETHERTYPES[..i].iter().all(|(n, v)| n != name && v != number));
        }
    }
}
