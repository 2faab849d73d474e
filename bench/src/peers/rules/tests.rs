use super::openflow::blocks;
use super::*;

#[test]
fn a_ruleset_has_as_many_rules_as_were_asked_for() {
    for count in [OTHERS, 10, 10_000] {
        let rules = Rules::new(count);
        let lines = |text: String| text.lines().filter(|line| line.starts_with("-A")).count();
        assert_eq!(lines(rules.iptables_save()), count as usize);
        assert_eq!(lines(rules.ip6tables_save()), count as usize + 2);
        assert!(rules.check().is_ok());
    }
    assert!(Rules::new(OTHERS - 1).check().is_err() && Rules::new(MOST + 1).check().is_err());
}

#[test]
fn no_two_strangers_are_about_the_same_packet() {
    let strangers: Vec<Stranger> = Rules::new(20_000).strangers().collect();
    let mut keys = HashSet::new();
    for stranger in &strangers {
        assert!(keys.insert((stranger.shape, stranger.net, stranger.host, stranger.port)), "{stranger:?}");
        assert!(stranger.port_last() < *OPEN_PORTS.start());
        // Ranges begin at multiples of their length, so that two are the same or apart.
        assert_eq!((stranger.port.max(PORT_FIRST) - PORT_FIRST) % PORTS, 0);
        match stranger.shape {
            Shape::NetHostPort => assert!(stranger.net < 0x800),
            Shape::NetPorts => assert!(stranger.net >= 0x800),
            Shape::HostPort | Shape::HostNet => {}
        }
    }
}

#[test]
fn a_longer_ruleset_begins_with_a_shorter_one() {
    let strangers = |count| Rules::new(count).strangers().collect::<Vec<_>>();
    assert!(strangers(1_000).starts_with(&strangers(100)));
}

#[test]
fn blocks_are_exactly_the_range() {
    for ports in [7000..=7999, 1024..=1034, 0..=65535, 5..=5, 65535..=65535, 0..=6] {
        let blocks = blocks(ports.clone());
        for port in 0..=u16::MAX {
            let hits = blocks.iter().filter(|(value, mask)| port & mask == *value).count();
            assert_eq!(hits, usize::from(ports.contains(&port)), "port {port} of {ports:?}");
        }
    }
}

#[test]
fn every_form_has_every_stranger() {
    let rules = Rules::new(OTHERS + 40);
    let (nft, openflow) = (rules.nft(), rules.openflow());
    // Ranges are several flows, of which the first begins where the range does.
    for stranger in rules.strangers() {
        let (net, host) = (Family::V4.net(stranger.net), Family::V4.host(stranger.host));
        let verdict = if stranger.accepts { "accept" } else { "drop" };
        let (element, flow) = match stranger.shape {
            Shape::NetHostPort => (
                format!("{net} . {host} . {} : {verdict}", stranger.port),
                format!("tcp,nw_src={net},nw_dst={host},tp_dst={},", stranger.port),
            ),
            Shape::HostPort => (
                format!("{host} . {} : {verdict}", stranger.port),
                format!("udp,nw_dst={host},tp_dst={},", stranger.port),
            ),
            Shape::NetPorts => (
                format!("{net} . {}-{} : {verdict}", stranger.port, stranger.port_last()),
                format!("tcp,nw_src={net},tp_dst={:#x}/", stranger.port),
            ),
            Shape::HostNet => {
                (format!("{host} . {net} : {verdict}"), format!("ip,nw_src={host},nw_dst={net},"))
            }
        };
        assert!(nft.contains(&element), "no {element} in {nft}");
        assert!(openflow.contains(&flow), "no {flow} in {openflow}");
    }
}
