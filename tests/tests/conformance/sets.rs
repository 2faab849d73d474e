//! `-m set` and `-j SET` with the kernel's ipset as judge: the same sets, rules and frames on both sides.

use super::stage::Setting;
use super::talk::{
    CLIENT, CLIENT6, Client, SERVER, SERVER6, Scenario, Server, Talk, perform_with_sets,
    perform_with_sets_on_router,
};
use dataplane::packet::proto;
use dataplane::testing::packets::{Builder, ip, ping, tcp, udp};
use std::net::Ipv4Addr;

const SETS: &str = "\
create ip hash:ip counters
add ip 10.0.0.1
add ip 10.0.0.9 packets 5 bytes 500
create masked hash:ip netmask 24
add masked 10.0.7.1
create ip6 hash:ip family inet6 counters
add ip6 fd00::1
create net hash:net counters
add net 10.0.0.0/8
add net 10.0.3.0/24 nomatch
add net 10.0.3.7
create net6 hash:net family inet6
add net6 fd00::/16
add net6 fd00:3::/32 nomatch
create ipport hash:ip,port counters
add ipport 10.0.0.2,tcp:80
add ipport 10.0.0.2,udp:53
add ipport 10.0.0.2,icmp:echo-request
add ipport 10.0.0.2,icmp:port-unreachable
add ipport 10.0.0.2,47:0
add ipport 10.0.0.2,sctp:80
add ipport 10.0.0.2,udplite:80
create ipport6 hash:ip,port family inet6
add ipport6 fd00::2,tcp:80
add ipport6 fd00::2,icmpv6:echo-request
create netport hash:net,port
add netport 10.0.0.0/24,tcp:80
add netport 10.0.0.2,tcp:80 nomatch
add netport 10.0.0.0/16,udp:53
create netport6 hash:net,port family inet6
add netport6 fd00::/64,udp:53
create ippip hash:ip,port,ip
add ippip 10.0.0.1,tcp:80,10.0.0.2
add ippip 10.0.0.1,udp:53,10.0.0.2
create ippnet hash:ip,port,net
add ippnet 10.0.0.1,tcp:80,10.0.0.0/24
add ippnet 10.0.0.1,tcp:80,10.0.0.9 nomatch
create ippnet6 hash:ip,port,net family inet6
add ippnet6 fd00::1,udp:53,fd00::/64
create ports bitmap:port range 50-100 counters
add ports 53
add ports 80
create map bitmap:ip range 10.0.0.0/24 netmask 30
add map 10.0.0.1
create brief hash:ip timeout 1000 counters
create pairs hash:ip,port timeout 1000 counters
create nets hash:net timeout 0
create list list:set counters
add list ip
add list net
add list ip6
add list ipport
create last hash:ip timeout 1
";

fn frames() -> Vec<(Builder, &'static str)> {
    let far = Ipv4Addr::new(10, 0, 0, 9);
    let other = Ipv4Addr::new(10, 0, 3, 7);
    let except = Ipv4Addr::new(10, 0, 3, 8);
    let masked = Ipv4Addr::new(10, 0, 7, 200);
    let three = "fd00:3::1".parse::<std::net::Ipv6Addr>().unwrap();
    vec![
        (tcp(CLIENT, SERVER).ports(4000, 80).syn(), "tcp 80"),
        (tcp(CLIENT, SERVER).ports(80, 4000).syn(), "tcp from 80"),
        (tcp(far, SERVER).ports(4000, 80).syn(), "another to 80"),
        (tcp(CLIENT, far).ports(4000, 80).syn(), "to another's 80"),
        (udp(CLIENT, SERVER).ports(4000, 53), "udp 53"),
        (udp(other, SERVER).ports(4000, 53), "from within the exception"),
        (udp(except, SERVER).ports(4000, 99), "an exception"),
        (udp(masked, except).ports(4000, 100), "masked, to an exception"),
        (udp(CLIENT, SERVER).ports(4000, 101), "udp 101"),
        (udp(Ipv4Addr::new(11, 0, 0, 1), Ipv4Addr::new(12, 0, 0, 1)).ports(80, 80), "strangers"),
        (ping(CLIENT, SERVER, 4), "ping"),
        (ip(CLIENT, SERVER, 47), "GRE"),
        (ip(CLIENT, SERVER, proto::ESP), "ESP"),
        (tcp(CLIENT6, SERVER6).ports(4000, 80).syn(), "tcp 80, IPv6"),
        (udp(CLIENT6, SERVER6).ports(4000, 53), "udp 53, IPv6"),
        (udp(three, SERVER6).ports(4000, 53), "an exception, IPv6"),
        (ping(CLIENT6, SERVER6, 4), "ping, IPv6"),
        (ip(CLIENT6, SERVER6, 47), "GRE, IPv6"),
    ]
}

/// Sends all of them both ways.
fn all(talk: &mut Talk<'_>) {
    for (frame, note) in frames() {
        talk.send(Client, &frame, note);
        talk.send(Server, &frame, note);
    }
    talk.stage.compare_sets();
}

/// A chain of a family with one rule.
fn dropping(condition: &str) -> String {
    format!("*filter\n-A FORWARD -m set {condition} -j DROP\nCOMMIT\n")
}

#[test]
fn sets_of_every_type_hold_what_the_kernel_says() {
    let v4 = [
        "--match-set ip src",
        "--match-set ip dst",
        "! --match-set ip src",
        "--match-set ip src,dst,src",
        "--match-set masked src",
        "--match-set net src",
        "--match-set net dst",
        "! --match-set net dst",
        "--match-set net src --return-nomatch",
        "! --match-set net src --return-nomatch",
        "--match-set ipport dst,dst",
        "--match-set ipport dst,src",
        "--match-set ipport src,src",
        "--match-set ipport dst",
        "! --match-set ipport dst",
        "--match-set netport dst,dst",
        "--match-set netport src,dst",
        "--match-set netport src,dst --return-nomatch",
        "--match-set ippip src,dst,dst",
        "--match-set ippip dst,src,src",
        "! --match-set ippip src,dst",
        "--match-set ippnet src,dst,dst",
        "--match-set ippnet src,dst,dst --return-nomatch",
        "--match-set ports dst",
        "--match-set ports src",
        "--match-set map src",
        "--match-set map dst",
        "--match-set list src",
        "--match-set list dst",
        "--match-set list dst,dst",
        "! --match-set list dst,dst",
        "--match-set list src ! --update-counters",
        "--match-set list src ! --update-subcounters",
        "--match-set ip src ! --update-counters",
        "--match-set ip src --packets-gt 2",
        "--match-set ip src --packets-lt 3",
        "--match-set ip src --packets-eq 2",
        "--match-set ip src ! --packets-eq 2",
        "--match-set ip src --bytes-gt 100",
        "--match-set ip src --bytes-lt 100 --packets-gt 1",
        "--match-set net src --packets-gt 3",
        "--match-set list src --packets-gt 3",
        "--match-set masked src --packets-gt 3",
    ];
    let v6 = [
        "--match-set ip6 src",
        "--match-set net6 src",
        "--match-set net6 src --return-nomatch",
        "! --match-set net6 dst",
        "--match-set ipport6 dst,dst",
        "--match-set netport6 src,dst",
        "--match-set ippnet6 src,dst,dst",
        "--match-set ports dst",
        "--match-set list src",
        "! --match-set list dst",
    ];
    let four = v4.iter().map(|condition| (*condition, dropping(condition), String::new()));
    let six = v6.iter().map(|condition| (*condition, String::new(), dropping(condition)));
    let texts: Vec<_> = four.chain(six).collect();
    let scenarios: Vec<Scenario<'_>> = texts
        .iter()
        .map(|(name, v4, v6)| (*name, Setting { v4, v6, sysctls: &[] }, &all as &dyn Fn(&mut Talk<'_>)))
        .collect();
    perform_with_sets(SETS, &scenarios);
}

#[test]
fn what_stands_around_a_set_in_a_rule_is_asked_in_order() {
    let ordered = "*filter\n-A FORWARD -m set --match-set ip src -p tcp -m tcp --dport 80 -j DROP\n\
        -A FORWARD -p udp -m udp --dport 53 -m set --match-set net src -j DROP\nCOMMIT\n";
    // A jump is asked once, whatever the chain does meanwhile.
    let chained = "*filter\n:C - [0:0]\n:D - [0:0]\n-A FORWARD -m set --match-set ip src -j C\n\
        -A FORWARD -m set --match-set ipport dst,dst -g D\n-A C -p udp -m udp --dport 53 -j RETURN\n\
        -A C -m set --match-set ports dst -j DROP\n-A D -m set ! --match-set net src -j DROP\nCOMMIT\n";
    let mangled = "*raw\n-A PREROUTING -m set --match-set net dst -j MARK --set-mark 1\nCOMMIT\n*mangle\n\
        -A PREROUTING -m set --match-set ip src -j MARK --set-mark 2\n\
        -A POSTROUTING -m mark --mark 2 -m set --match-set ports dst -j DROP\nCOMMIT\n*filter\n\
        -A FORWARD -m conntrack --ctstate ESTABLISHED -m set --match-set ip dst -j DROP\nCOMMIT\n";
    let setting = |v4| Setting { v4, v6: "", sysctls: &[] };
    let scenarios: [Scenario<'_>; 3] = [
        ("ordered", setting(ordered), &all),
        ("chained", setting(chained), &all),
        ("mangled", setting(mangled), &all),
    ];
    perform_with_sets(SETS, &scenarios);
}

#[test]
fn rules_put_addresses_into_sets_and_take_them_out() {
    let setting = |v4| Setting { v4, v6: "", sysctls: &[] };
    let add = "*filter\n-A FORWARD -m set --match-set brief src -j DROP\n\
        -A FORWARD -p tcp -m tcp --dport 80 -j SET --add-set brief src\n\
        -A FORWARD -p udp -m udp --dport 53 -j SET --add-set pairs dst,dst --timeout 500\n\
        -A FORWARD -p udp -m udp --dport 99 -j SET --del-set brief src\nCOMMIT\n";
    let exist = "*filter\n-A FORWARD -j SET --add-set brief src --exist --timeout 300 --del-set net src\n\
        -A FORWARD -j SET --add-set nets dst --timeout 0\n-A FORWARD -j SET --add-set pairs src\nCOMMIT\n";
    let lists =
        "*filter\n-A FORWARD -j SET --add-set list dst,dst\n-A FORWARD -j SET --del-set list src\nCOMMIT\n";
    let maps = "*filter\n-A FORWARD -j SET --add-set map dst\n-A FORWARD -j SET --add-set ports src\n\
        -A FORWARD -j SET --add-set masked src\n-A FORWARD -j SET --add-set ippnet src,dst,dst\n\
        -A FORWARD -j SET --add-set netport src,src\nCOMMIT\n";
    let raw = "*raw\n-A PREROUTING -m set ! --match-set net src -j SET --add-set brief src\nCOMMIT\n*mangle\n\
        -A POSTROUTING -m set --match-set brief dst -j DROP\nCOMMIT\n*filter\nCOMMIT\n";
    let scenarios: [Scenario<'_>; 5] = [
        ("added and removed", setting(add), &all),
        ("exist", setting(exist), &all),
        ("lists", setting(lists), &all),
        ("bitmaps and networks", setting(maps), &all),
        ("raw and mangle", setting(raw), &all),
    ];
    perform_with_sets(SETS, &scenarios);
}

#[test]
fn sets_change_under_the_rules() {
    let rules = "*filter\n-A FORWARD -m set --match-set ip src -j DROP\n-A FORWARD -m set --match-set net dst -j DROP\n\
        -A FORWARD -m set --match-set last src -j DROP\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n";
    let scenario = |talk: &mut Talk<'_>| {
        all(talk);
        for commands in [
            "del ip 10.0.0.1\n",
            "flush net\nadd net 10.0.0.2\n",
            "create ip2 hash:ip counters\nadd ip2 10.0.0.2\nswap ip ip2\n",
            "add ip 10.0.0.1\nadd net 10.0.0.0/24 nomatch\n",
            "flush\n",
            "add last 10.0.0.1\n",
        ] {
            talk.stage.change_sets(commands);
            all(talk);
        }
        talk.waits(1.5);
        all(talk);
    };
    let setting = Setting { v4: rules, v6: "", sysctls: &[] };
    perform_with_sets(SETS, &[("live edits", setting, &scenario)]);
}

#[test]
fn nics_are_known_by_name_where_the_rule_stands() {
    let sets = "create nics hash:net,iface counters\nadd nics 10.0.0.0/24,left\nadd nics 10.0.0.0/8,right\n\
        add nics 10.0.0.9,left nomatch\ncreate nics6 hash:net,iface family inet6\nadd nics6 fd00::/16,left\n\
        create filled hash:net,iface timeout 1000\n";
    let rules = |condition: &str| {
        format!(
            "*raw\n-A PREROUTING -m set --match-set nics {condition} -j MARK --set-xmark 1/1\nCOMMIT\n*mangle\n\
             -A POSTROUTING -m set --match-set nics {condition} -j MARK --set-xmark 2/2\nCOMMIT\n*filter\n\
             -A FORWARD -m mark --mark 1/1 -p tcp -j DROP\n-A FORWARD -j SET --add-set filled {condition}\n\
             -A FORWARD -m set --match-set nics {condition} -j DROP\nCOMMIT\n"
        )
    };
    let v6 = "*filter\n-A FORWARD -m set --match-set nics6 src,src -j DROP\nCOMMIT\n";
    let texts = ["src,src", "src,dst", "dst,src", "dst,dst", "src"].map(rules);
    let scenarios: Vec<Scenario<'_>> = texts
        .iter()
        .map(|v4| ("NICs", Setting { v4, v6, sysctls: &[] }, &all as &dyn Fn(&mut Talk<'_>)))
        .collect();
    perform_with_sets_on_router(sets, &scenarios);
}
