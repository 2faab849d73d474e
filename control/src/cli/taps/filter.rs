//! Filters in pcap-filter's language, compiled by libpcap: here and not in the daemon, so that the parser runs with the rights
//! of whoever wrote the filter.

use crate::cli::CliError;
use pcap::{Capture, Linktype};

/// The program that a filter compiles to; empty for an empty filter.
pub(super) fn compile(filter: &str) -> Result<Vec<(u16, u8, u8, u32)>, CliError> {
    if filter.trim().is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |why: String| {
        CliError::Usage(format!(
            "the filter `{filter}` does not compile: {why}; pcap-filter(7) has the language"
        ))
    };
    let compiled = Capture::dead(Linktype::ETHERNET).and_then(|dead| dead.compile(filter, true));
    let compiled = compiled.map_err(|error| match error {
        pcap::Error::PcapError(why) => wrong(why),
        other => wrong(other.to_string()),
    })?;
    // The crate shows an instruction as text only: the four numbers that `tcpdump -ddd` prints.
    let program = compiled.get_instructions().iter().map(|instruction| numbers(&instruction.to_string()));
    program.collect::<Option<_>>().ok_or_else(|| wrong("its program is not understood".to_owned()))
}

fn numbers(instruction: &str) -> Option<(u16, u8, u8, u32)> {
    let mut numbers = instruction.split(' ');
    let code = numbers.next()?.parse().ok()?;
    let jumps = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((code, jumps.0, jumps.1, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::testing::packets::{Builder, tcp, udp};
    use dataplane::worker::tap::{Filter, Instruction};
    use proptest::prelude::*;

    /// As the daemon takes it.
    fn filter(text: &str) -> Filter {
        let program: Vec<Instruction> = compile(text)
            .unwrap()
            .into_iter()
            .map(|(code, jump_true, jump_false, operand)| Instruction {
                code,
                jump_true,
                jump_false,
                operand,
            })
            .collect();
        Filter::new(&program).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    const FILTERS: [&str; 14] = [
        "tcp port 443",
        "udp and src host 10.0.0.1",
        "ip6",
        "vlan and udp",
        "vlan 7",
        "not tcp",
        "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
        "len > 100",
        "greater 80 or portrange 1-5",
        "ip[8] < 10 and ip[2:2] % 2 == 0",
        "ether host 02:00:00:00:00:01",
        "net 10.0.0.0/8 and not net 10.1.0.0/16",
        "icmp6 or arp",
        "(ip[6:2] & 0x1fff) * 8 + 1 >= 1 and proto 17",
    ];

    fn packets() -> Vec<Vec<u8>> {
        let builders: Vec<Builder> = vec![
            tcp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 443).syn(),
            tcp([10, 1, 0, 1], [10, 0, 0, 2]).ports(443, 3).ack().payload(&[0; 90]),
            udp([10, 0, 0, 1], [192, 0, 2, 1]).ports(1, 2).ttl(3),
            udp([10, 0, 0, 1], [192, 0, 2, 1]).ports(1, 2).vlan(7),
            udp(std::net::Ipv6Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST).ports(1, 2),
        ];
        builders.iter().map(Builder::build).chain([dataplane::testing::packets::arp()]).collect()
    }

    /// What libpcap's own interpreter says.
    fn theirs(text: &str, frame: &[u8]) -> bool {
        Capture::dead(Linktype::ETHERNET).unwrap().compile(text, true).unwrap().filter(frame)
    }

    #[test]
    fn programs_say_what_libpcap_says() {
        let mut passed = 0;
        for text in FILTERS {
            let filter = filter(text);
            for frame in packets() {
                let ours = filter.passes(&frame, u32::try_from(frame.len()).unwrap());
                assert_eq!(ours, theirs(text, &frame), "{text}: {frame:02x?}");
                passed += usize::from(ours);
            }
        }
        assert!(passed > 20, "{passed}");
    }

    proptest! {
        #[test]
        fn of_any_bytes(at in 0..FILTERS.len(), frame in prop::collection::vec(any::<u8>(), 0..80), base in 0..6_usize) {
            let mut bytes = packets()[base].clone();
            for (to, from) in bytes.iter_mut().zip(&frame) {
                if from % 7 == 0 { *to = *from; }
            }
            bytes.truncate(bytes.len().min(frame.len() + 20));
            let len = u32::try_from(bytes.len()).unwrap();
            prop_assert_eq!(filter(FILTERS[at]).passes(&bytes, len), theirs(FILTERS[at], &bytes));
        }
    }

    #[test]
    fn what_does_not_compile_is_said_with_its_reason() {
        let refused = |text: &str| match compile(text) {
            Err(CliError::Usage(why)) => why,
            other => panic!("{text}: {other:?}"),
        };
        assert!(refused("tcp prot 80").contains("tcp prot 80"), "{}", refused("tcp prot 80"));
        assert!(refused("port").contains("syntax error"), "{}", refused("port"));
        assert!(refused("host 1.2.3.4.5").contains("does not compile"));
        assert!(refused("tcp\0").contains("does not compile"));
        assert_eq!(compile("  ").unwrap(), []);
    }
}
