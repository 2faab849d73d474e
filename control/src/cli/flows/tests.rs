use super::super::CliError;
use super::super::args::{Cli, Command};
use super::action::{Action, Output, filter, query};
use super::args::{FlowsArgs, TableArg};
use crate::api::types::FlowFilter;
use clap::Parser as _;

fn parse(line: &str) -> Result<FlowsArgs, String> {
    let words = ["fwctl", "flows"].into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
        Command::Flows(args) => Ok(*args),
        other => panic!("{other:?}"),
    }
}

/// Action and filter of a command line, or the exit code and what is said.
fn understand(line: &str) -> Result<(Action, FlowFilter), (u8, String)> {
    let args = parse(line).map_err(|error| (2, error))?;
    let failed = |error: CliError| (error.code(), error.to_string());
    let action = Action::of(&args).map_err(failed)?;
    Output::of(&args).map_err(failed)?;
    Ok((action, filter(&args.filter).map_err(failed)?))
}

#[test]
fn commands_take_their_table_as_conntrack_does() {
    use TableArg::{Conntrack, Dying, Expect};
    for (line, expected) in [
        ("", Action::List(Conntrack)),
        ("-L", Action::List(Conntrack)),
        ("-L conntrack -p tcp", Action::List(Conntrack)),
        ("--dump", Action::List(Conntrack)),
        ("-Lexpect", Action::List(Expect)),
        ("-L dying", Action::List(Dying)),
        ("-C", Action::Count(Conntrack)),
        ("-C expect -f ipv6", Action::Count(Expect)),
        ("-D", Action::Delete),
        ("-D conntrack -u ASSURED", Action::Delete),
        ("-F", Action::Flush(Conntrack)),
        ("-F expect", Action::Flush(Expect)),
        ("-E -e NEW,DESTROY -b 1000", Action::Event(Conntrack)),
        ("-E -e all -e update", Action::Event(Conntrack)),
        ("-E expect", Action::Event(Expect)),
        ("-S", Action::Stats),
        ("-G -p 99 -s 1.1.1.1 -d 2.2.2.2", Action::Get),
        ("-U -t 5", Action::Update { mark: None, labels: false, timeout_secs: Some(5) }),
        (
            "-U -p udp -m 1/3",
            Action::Update { mark: Some("1/3".parse().unwrap()), labels: false, timeout_secs: None },
        ),
        ("-U --label-add a,b", Action::Update { mark: None, labels: true, timeout_secs: None }),
        ("-U --label-del -p udp", Action::Update { mark: None, labels: true, timeout_secs: None }),
        ("-U --label-del=5", Action::Update { mark: None, labels: true, timeout_secs: None }),
    ] {
        assert_eq!(understand(line).map(|(action, _)| action), Ok(expected), "{line}");
    }
}

#[test]
fn what_makes_no_sense_or_is_not_done_is_refused_by_name() {
    for (line, code, word) in [
        ("-L -F", 2, "cannot be used with"),
        ("-L foo", 2, "foo"),
        ("-S foo", 2, "foo"),
        ("-o yaml", 2, "yaml"),
        ("-o save,id", 2, "-o save"),
        ("-o save --json", 2, "-o save"),
        ("-o xml,json", 2, "not both"),
        ("-L -t 5", 2, "-t"),
        ("-L -e NEW", 2, "-e"),
        ("-D -b 5", 2, "-b"),
        ("-E -e OLD", 2, "OLD"),
        ("-F -p tcp", 2, "-D"),
        ("-S -p tcp", 2, "filter"),
        ("-F dying", 2, "dying"),
        ("-D unconfirmed", 2, "unconfirmed"),
        ("-U", 2, "-m"),
        ("-U -m 1 -u ASSURED", 2, "status"),
        ("-G", 2, "-p"),
        ("-G -p tcp -s 1.1.1.1", 2, "-d"),
        ("-G -p tcp -s 1.1.1.1 -d 2.2.2.0/24 --sport 1 --dport 2", 2, "one flow"),
        ("-G -p tcp -s 1.1.1.1 -d 2.2.2.2 --sport 1", 2, "--dport"),
        ("-G -p icmp -s 1.1.1.1 -d 2.2.2.2 --icmp-type 8", 2, "--icmp-id"),
        ("-L expect -p tcp", 2, "family"),
        ("-E expect -s 1.1.1.1", 2, "family"),
        ("-E expect -e NEW", 2, "-e"),
        ("-F expect -f ipv4", 2, "all"),
        ("-C dying", 2, "dying"),
        ("-L -s 1.1.1.1 -f ipv6", 2, "mismatched"),
        ("-L -s 1.1.1.1 -d fd00::1", 2, "mismatched"),
        ("-L -s 10.0.0.0/33", 2, "/33"),
        ("-L -m x", 2, "`x`"),
        ("-L -m 1/", 2, "32 bits"),
        ("-L --mask-src 255.0.0.0", 2, "--orig-src"),
        ("-L -s 10.0.0.1 --mask-src 255.0.255.0", 2, "netmask"),
        ("-L -s 10.0.0.1 --mask-src ffff::", 2, "netmask"),
        ("-L -u LATE", 2, "LATE"),
        ("-L -u SRC_NAT", 2, "--src-nat"),
        ("-L -u UNSET", 2, "UNREPLIED"),
        ("-L -u SEEN_REPLY,UNREPLIED", 2, "both"),
        ("-L -n -j", 2, "any-nat"),
        ("-I -p udp", 3, "-I"),
        ("-A", 3, "-A"),
        ("-R file", 3, "-R"),
        ("-L -z", 3, "-z"),
        ("-F -l web", 2, "-D"),
        ("-L expect -l web", 2, "family"),
        ("-D --label-add web", 2, "-U"),
        ("-L --label-del", 2, "-U"),
        ("-U --label-add a --label-del b", 2, "cannot be used with"),
        ("-U -l", 2, "--label"),
        ("-U --label-add", 2, "--label-add"),
        ("-L -c 5", 3, "-c"),
        ("-D expect", 3, "-D expect"),
    ] {
        let refused = understand(line).expect_err(line);
        assert!(refused.0 == code && refused.1.contains(word), "{line}: {refused:?}");
    }
}

#[test]
fn filters_ask_for_what_they_say() {
    for (line, expected) in [
        ("", ""),
        ("-p udp -f 6", "?family=6&proto=17"),
        ("-s 10.0.0.1 --mask-src 255.255.0.0", "?src=10.0.0.1%2F16"),
        ("-d fd00::1 --mask-dst ffff::", "?dst=fd00%3A%3A1%2F16"),
        ("-u ASSURED,seen_reply", "?assured=true&seen_reply=true"),
        ("-u UNREPLIED -u EXPECTED", "?expected=true&seen_reply=false"),
        ("-u OFFLOAD", "?never=true"),
        ("-n", "?never=true"),
        ("-g 1.2.3.4", "?never=true"),
        ("-j -p tcp", "?never=true&proto=6"),
        ("-l a,b -l 5", "?label=a%2Cb%2C5"),
        ("-m 16", "?mark=0x10"),
        ("-m 0x10/0xff", "?mark=0x10%2F0xff"),
        ("-w 5 --orig-zone 6 --reply-zone 7", "?orig_zone=6&reply_zone=7&zone=5"),
        ("--orig-port-src 1 --orig-port-dst 2", "?dport=2&sport=1"),
        ("--reply-port-src 1 --reply-port-dst 2", "?reply_dport=2&reply_sport=1"),
        ("--icmp-type 8 --icmp-code 0 --icmp-id 9", "?icmp_code=0&icmp_id=9&icmp_type=8"),
        ("-r 10.0.0.0/8 -q 10.0.0.1", "?reply_dst=10.0.0.1%2F32&reply_src=10.0.0.0%2F8"),
        ("--state syn_sent", "?state=SYN_SENT"),
    ] {
        assert_eq!(understand(line).map(|(_, filter)| query(&filter)), Ok(expected.to_owned()), "{line}");
    }
}
