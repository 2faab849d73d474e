//! Rules that keep state or ask the clock: limits, hash limits, addresses seen lately, quotas, every nth packet, time.
//! Waits keep well away from the moments at which something changes: both clocks tick, and not together.

use super::stage::Setting;
use super::talk::{CLIENT, Client, SERVER, Scenario, Server, Talk, perform};
use dataplane::testing::packets::udp;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Datagrams from a host to a port, so many.
fn sends(talk: &mut Talk<'_>, last: u8, dport: u16, times: usize) {
    for round in 0..times {
        let packet = udp(host(last), SERVER).ports(1000 + u16::from(last), dport);
        talk.send(Client, &packet, &format!("{round} from {last} to {dport}"));
    }
}

/// Every rule with the scenario, each as a table of its own.
fn perform_each(rules: &[String], scenario: &dyn Fn(&mut Talk<'_>)) {
    let tables: Vec<String> = rules.iter().map(|rules| format!("*filter\n{rules}\nCOMMIT\n")).collect();
    let scenarios: Vec<Scenario<'_>> = tables
        .iter()
        .zip(rules)
        .map(|(v4, rules)| (rules.as_str(), Setting { v4, ..PLAIN }, scenario))
        .collect();
    perform(&scenarios);
}

fn forward(conditions: &str) -> String {
    format!("-A FORWARD -p udp {conditions} -j DROP")
}

#[test]
fn limits_let_pass_a_burst_and_then_so_many_per_time() {
    let rules = [
        forward("-m limit --limit 2/sec --limit-burst 3"),
        forward("-m limit --limit 120/min --limit-burst 1"),
        forward("-m limit --limit 1/day"),
        forward("-m limit"),
        forward("-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 3 --hashlimit-name a"),
        forward("-m hashlimit --hashlimit-above 2/sec --hashlimit-burst 3 --hashlimit-name a"),
        forward(
            "-m hashlimit --hashlimit-upto 120/min --hashlimit-burst 2 --hashlimit-mode srcip --hashlimit-name a",
        ),
        forward(
            "-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-srcmask 29 --hashlimit-name a",
        ),
        forward(
            "-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 1 --hashlimit-mode dstport --hashlimit-name a",
        ),
        forward(
            "-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 1 --hashlimit-mode srcport,dstip --hashlimit-name a",
        ),
        forward(
            "-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 1 --hashlimit-mode srcip,srcport,dstip,dstport --hashlimit-name a",
        ),
        forward("-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 100 --hashlimit-name a"),
        forward(
            "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 1 --hashlimit-htable-expire 300 --hashlimit-htable-gcinterval 200 --hashlimit-mode srcip --hashlimit-name a",
        ),
    ];
    perform_each(&rules, &|talk| {
        for (last, dport, times) in [(1, 53, 6), (9, 53, 3), (2, 54, 3), (1, 54, 2)] {
            sends(talk, last, dport, times);
        }
        talk.waits(0.75);
        for (last, dport, times) in [(1, 53, 3), (2, 54, 2), (9, 53, 2)] {
            sends(talk, last, dport, times);
        }
        talk.waits(1.75);
        sends(talk, 1, 53, 6);
    });
}

#[test]
fn bytes_are_limited_and_rates_matched() {
    // Kept for long where it matters what was before: when it is looked for what is over, nobody knows.
    let rules = [
        forward("-m hashlimit --hashlimit-upto 1kb/s --hashlimit-name b"),
        forward("-m hashlimit --hashlimit-above 1kb/s --hashlimit-burst 2kb --hashlimit-name b"),
        forward("-m hashlimit --hashlimit-above 500b/s --hashlimit-mode srcip --hashlimit-name b"),
        forward(
            "-m hashlimit --hashlimit-above 4/sec --hashlimit-burst 2 --hashlimit-rate-match --hashlimit-htable-expire 60000 --hashlimit-name b",
        ),
        forward(
            "-m hashlimit --hashlimit-upto 4/sec --hashlimit-rate-match --hashlimit-htable-expire 60000 --hashlimit-name b",
        ),
        forward(
            "-m hashlimit --hashlimit-above 1kb/s --hashlimit-rate-match --hashlimit-htable-expire 60000 --hashlimit-name b",
        ),
        forward(
            "-m hashlimit --hashlimit-above 1kb/s --hashlimit-burst 3kb --hashlimit-rate-match --hashlimit-rate-interval 2 --hashlimit-htable-expire 60000 --hashlimit-name b",
        ),
        forward("-m quota --quota 700"),
        forward("-m quota ! --quota 700"),
        forward("-m quota --quota 0"),
    ];
    perform_each(&rules, &|talk| {
        let long = |talk: &mut Talk<'_>, len: usize, times: usize| {
            for round in 0..times {
                let packet = udp(CLIENT, SERVER).ports(1, 53).payload(&vec![b'x'; len]);
                talk.send(Client, &packet, &format!("{round}, {len} bytes"));
            }
        };
        for (len, times) in [(100, 4), (250, 4), (0, 6), (400, 4), (1, 20)] {
            long(talk, len, times);
        }
        talk.waits(1.3);
        long(talk, 200, 8);
        talk.waits(1.3);
        long(talk, 3, 5);
    });
}

#[test]
fn addresses_are_remembered_with_their_moments() {
    let seen = |check: &str| {
        format!(
            "-A FORWARD -p udp -m udp --dport 53 -m recent --set --name s\n-A FORWARD -p udp -m udp --dport 54 -m recent {check} --name s -j DROP\n-A FORWARD -p udp -m udp --dport 55 -m recent --remove --name s -j DROP"
        )
    };
    let rules = [
        seen("--rcheck"),
        seen("! --rcheck"),
        seen("--rcheck --seconds 1"),
        seen("--rcheck --hitcount 2"),
        seen("--rcheck --seconds 1 --hitcount 3"),
        seen("--update --seconds 1"),
        seen("! --update --seconds 1"),
        seen("--update --seconds 2 --hitcount 4"),
        seen("--rcheck --seconds 1 --reap"),
        seen("--update --seconds 1 --reap"),
        seen("--rcheck --rttl"),
        seen("--rcheck --rdest"),
        seen("! --remove"),
        seen("--rcheck --hitcount 33"),
        seen("--set"),
        "-A FORWARD -p udp -m recent --set --name m --mask 255.255.255.248\n-A FORWARD -p udp -m udp --dport 54 -m recent --rcheck --hitcount 4 --name m -j DROP".to_owned(),
        "-A FORWARD -p udp -m recent --update --seconds 1 --hitcount 3 --name b -j DROP\n-A FORWARD -p udp -m recent --set --name b -j ACCEPT".to_owned(),
        "-A FORWARD -p udp -m recent ! --rcheck --name d -m recent --set --name d -j DROP".to_owned(),
    ];
    perform_each(&rules, &|talk| {
        for dport in [54, 53, 54, 53, 54, 55, 54] {
            sends(talk, 1, dport, 1);
            sends(talk, 2, dport, 1);
        }
        sends(talk, 9, 53, 3);
        sends(talk, 1, 53, 1);
        talk.waits(0.5);
        sends(talk, 9, 54, 2);
        sends(talk, 1, 54, 1);
        sends(talk, 1, 53, 1);
        talk.waits(0.7);
        sends(talk, 9, 54, 2);
        sends(talk, 1, 54, 2);
        talk.waits(1.2);
        for last in [9, 1, 2] {
            sends(talk, last, 54, 2);
        }
        let packet = udp(host(9), SERVER).ports(1, 54).ttl(9);
        talk.send(Client, &packet, "another ttl");
        sends(talk, 9, 53, 40);
        sends(talk, 9, 54, 1);
    });
}

#[test]
fn a_list_has_room_for_a_hundred_addresses() {
    let rules = ["-A FORWARD -p udp -m udp --dport 53 -m recent --set --name l\n-A FORWARD -p udp -m udp --dport 54 -m recent --rcheck --name l -j DROP".to_owned()];
    perform_each(&rules, &|talk| {
        for last in 100..200 {
            sends(talk, last, 53, 1);
        }
        sends(talk, 100, 53, 1);
        sends(talk, 201, 53, 1);
        sends(talk, 202, 53, 1);
        for last in [100, 101, 102, 103, 199, 201, 202, 203] {
            sends(talk, last, 54, 1);
        }
    });
}

#[test]
fn every_nth_packet_is_picked() {
    let rules = [
        forward("-m statistic --mode nth --every 3 --packet 0"),
        forward("-m statistic --mode nth --every 3 --packet 2"),
        forward("-m statistic --mode nth ! --every 4 --packet 1"),
        forward("-m statistic --mode nth --every 1 --packet 0"),
        forward("-m statistic --mode random --probability 0"),
        forward("-m statistic --mode random --probability 1"),
        forward("-m statistic --mode random ! --probability 1"),
        // The usual way to share out among three.
        "-A FORWARD -p udp -m statistic --mode nth --every 3 --packet 0 -j ACCEPT\n-A FORWARD -p udp -m statistic --mode nth --every 2 --packet 0 -j DROP".to_owned(),
    ];
    perform_each(&rules, &|talk| {
        sends(talk, 1, 53, 13);
        sends(talk, 2, 54, 5);
    });
}

#[test]
fn state_is_asked_in_the_order_that_is_written() {
    let burst = "-m limit --limit 1/hour --limit-burst 4";
    let table =
        "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 4 --hashlimit-mode srcip --hashlimit-name o";
    let nth = "-m statistic --mode nth --every 3 --packet 0";
    let mut rules = Vec::new();
    for state in
        [burst, table, nth, "-m quota --quota 100", "-m recent ! --update --name o -m recent --set --name o"]
    {
        rules.extend([
            forward(&format!("{state} -m udp --dport 54")),
            forward(&format!("-m udp --dport 54 {state}")),
            forward(&format!("{state} -m multiport --dports 54,55 -m conntrack --ctstate NEW")),
            forward(&format!("-m conntrack --ctstate ESTABLISHED {state}")),
            forward(&format!("{state} {state}")),
            // One rule that is reached by two ways.
            format!(":A - [0:0]\n-A FORWARD -p udp -m udp --dport 54 -j A\n-A FORWARD -p udp -m udp --dport 53 -j A\n-A A {state} -j DROP"),
            // A jump that is asked once for all rules behind it.
            format!(":A - [0:0]\n-A FORWARD -p udp {state} -j A\n-A A -p udp -m udp --dport 99 -j ACCEPT\n-A A -p udp -m udp --dport 54 -j DROP\n-A A -p udp -m udp --dport 53 -j DROP"),
            format!(":A - [0:0]\n-A FORWARD -p udp {state} -g A\n-A FORWARD -p udp -m udp --dport 53 -j DROP\n-A A -p udp -m udp --dport 54 -j DROP"),
        ]);
    }
    // Two rules, one table; the second one's own numbers mean nothing.
    rules.push("-A FORWARD -p udp -m udp --dport 53 -m hashlimit --hashlimit-above 1/hour --hashlimit-burst 4 --hashlimit-name t -j DROP\n-A FORWARD -p udp -m udp --dport 54 -m hashlimit --hashlimit-upto 7/hour --hashlimit-burst 9 --hashlimit-name t -j DROP".to_owned());
    perform_each(&rules, &|talk| {
        for (last, dport) in [(1, 53), (1, 54), (2, 54), (1, 53), (1, 54), (1, 55), (2, 53), (1, 54)] {
            sends(talk, last, dport, 1);
            let answer = udp(SERVER, host(last)).ports(dport, 1000 + u16::from(last));
            talk.send(Server, &answer, &format!("answer of {dport} to {last}"));
        }
        sends(talk, 1, 54, 3);
        sends(talk, 1, 53, 3);
    });
}

#[test]
fn tables_count_together_what_raw_and_mangle_count() {
    let counted = "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 5 --hashlimit-name w";
    let v4 = format!(
        "*raw\n-A PREROUTING -p udp -m udp --dport 53 {counted} -j ACCEPT\n-A PREROUTING -p udp -m udp --dport 54 -m recent --set --name w\nCOMMIT\n*mangle\n-A POSTROUTING -p udp {counted} -j ACCEPT\n-A POSTROUTING -p udp -m udp --dport 54 -j DROP\nCOMMIT\n*filter\n-A FORWARD -p udp -m recent --rcheck --hitcount 3 --name w -j DROP\nCOMMIT\n"
    );
    perform(&[("three tables", Setting { v4: &v4, ..PLAIN }, &|talk: &mut Talk<'_>| {
        for (last, dport) in [(1, 53), (1, 54), (2, 54), (2, 53), (1, 54), (2, 54), (1, 54), (2, 54), (1, 53)]
        {
            sends(talk, last, dport, 1);
        }
    })]);
}

#[test]
fn ports_of_whatever_has_them_are_limited_in_both_families() {
    let counted = "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 1 --hashlimit-mode srcport,dstport --hashlimit-name p";
    let table = format!("*filter\n-A FORWARD {counted} -j DROP\nCOMMIT\n");
    let untracked = format!("*raw\n-A PREROUTING -j NOTRACK\nCOMMIT\n{table}");
    let by_address = format!(
        "*filter\n-A FORWARD {} -m recent ! --rcheck --name p --hitcount 2 -m recent --set --name p -j DROP\nCOMMIT\n",
        counted.replace("srcport,dstport", "srcip,dstip --hashlimit-srcmask 30")
    );
    let scenario = |six: bool| {
        move |talk: &mut Talk<'_>| {
            use dataplane::packet::proto;
            use dataplane::testing::packets::ip;
            talk.six = six;
            let (client, server) = talk.addresses(Client);
            let icmp = if six { proto::ICMPV6 } else { proto::ICMP };
            for protocol in
                [proto::UDP, proto::TCP, proto::UDPLITE, proto::SCTP, icmp, proto::GRE, proto::ESP, 33, 99]
            {
                for first in [1, 2, 1] {
                    for len in [3, 4, 20] {
                        let bytes = [&[0, first, 0, protocol][..], &[0; 16]].concat();
                        let packet = ip(client, server, protocol).payload(&bytes[..len]);
                        talk.send(Client, &packet, &format!("protocol {protocol}, {first}, cut to {len}"));
                    }
                }
            }
        }
    };
    let (four, six) = (scenario(false), scenario(true));
    let mut scenarios: Vec<Scenario<'_>> = Vec::new();
    for table in [&table, &untracked, &by_address] {
        scenarios.push(("ipv4", Setting { v4: table, ..PLAIN }, &four));
        scenarios.push(("ipv6", Setting { v6: table, ..PLAIN }, &six));
    }
    perform(&scenarios);
}

#[test]
fn the_clock_on_the_wall_is_asked() {
    let secs = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let daytime = |shift: i64| {
        let at = (secs + shift).rem_euclid(86_400);
        format!("{:02}:{:02}:{:02}", at / 3600, at / 60 % 60, at % 60)
    };
    let weekday = |shift: i64| ((secs + shift).div_euclid(86_400) + 3).rem_euclid(7) + 1;
    // Half an hour around now, before and after it; so much is no test as slow as to end elsewhere.
    let (before, after) = (daytime(-1800), daytime(1800));
    let (long_before, long_after) = (daytime(-3600), daytime(3600));
    let (today, tomorrow) = (weekday(0), weekday(86_400));
    let mut rules: Vec<String> = [
        "".to_owned(),
        format!("--timestart {before} --timestop {after}"),
        format!("--timestart {after} --timestop {before}"),
        format!("--timestart {after} --timestop {long_after}"),
        format!("--timestart {long_before} --timestop {before}"),
        format!("--timestart {before}"),
        format!("--timestop {before}"),
        format!("--weekdays {today}"),
        format!("--weekdays {tomorrow}"),
        format!("! --weekdays {today}"),
        format!("--weekdays {today} --kerneltz"),
        "--monthdays 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31".to_owned(),
        "--monthdays 2,4,6,8,10,12,14,16,18,20,22,24,26,28,30".to_owned(),
        "! --monthdays 1,2,3,4,5,6,7,8".to_owned(),
        "--datestart 2020-01-01 --datestop 2037-01-01".to_owned(),
        "--datestart 2037-01-01".to_owned(),
        "--datestop 2020-01-01T00:00:01".to_owned(),
    ]
    .iter()
    .map(|asked| forward(&format!("-m time {asked}")))
    .collect();
    // Over midnight, where that is where we are: from an hour ago, or into the hour to come.
    for (start, stop) in [(&before, &long_before), (&after, &after)] {
        if start >= stop {
            for day in [today, tomorrow, weekday(-86_400)] {
                rules.push(forward(&format!(
                    "-m time --timestart {start} --timestop {stop} --contiguous --weekdays {day}"
                )));
            }
        }
    }
    perform_each(&rules, &|talk| sends(talk, 1, 53, 2));
}
