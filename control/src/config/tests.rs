use super::settings::{CONNTRACK, Known, SECTIONS, SETTINGS, WIRE};
use super::*;
use clap::{CommandFactory, Parser};
use dataplane::flow::TrackSettings;
use std::io::Write as _;

/// What `fwd ARGS` would run with, the file's text given instead of its name.
fn load(file: Option<&str>, args: &[&str]) -> Result<Config, ConfigErrors> {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    let mut args = FwdArgs::try_parse_from(["fwd"].iter().chain(args)).unwrap();
    if let Some(text) = file {
        temp.write_all(text.as_bytes()).unwrap();
        args.config = Some(temp.path().to_owned());
    }
    Config::load(&args).map_err(|mut errors| {
        for source in &mut errors.sources {
            source.name = source.name.replace(&*temp.path().to_string_lossy(), "fwd.toml");
        }
        errors
    })
}

const BASE: &[&str] = &["--left", "a0", "--right", "b0", "--rules", "r4"];

fn with(extra: &[&str]) -> Result<Config, ConfigErrors> {
    load(None, &[BASE, extra].concat())
}

/// Messages and `line:column`, one line each.
fn summary(errors: &ConfigErrors) -> Vec<String> {
    let one = |p: &Problem| {
        let place =
            errors.place(p).map_or(String::new(), |(file, line, column)| format!("{file}:{line}:{column}: "));
        let hint = p.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{place}{}{hint}", p.message)
    };
    errors.problems().iter().map(one).collect()
}

fn refused(file: &str) -> Vec<String> {
    summary(&load(Some(file), BASE).unwrap_err())
}

fn refused_set(set: &str) -> Vec<String> {
    summary(&with(&["--set", set]).unwrap_err())
}

#[test]
fn the_command_line_definition_is_sound() {
    FwdArgs::command().debug_assert();
}

#[test]
fn two_nics_and_rules_are_enough() {
    let config = with(&[]).unwrap();
    let wire = WireConfig {
        name: "wire0".into(),
        left: "a0".into(),
        right: "b0".into(),
        queues: None,
        full: Full::default(),
    };
    let expected = Config {
        wires: vec![wire],
        rules: RulesConfig { v4: Some("r4".into()), ..RulesConfig::default() },
        ..Config::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn the_default_file_reads_back_as_the_defaults() {
    let text = Config::default_toml();
    let config = load(Some(&text), BASE).unwrap();
    let mut expected = with(&[]).unwrap();
    assert_eq!(config, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 100 && line == line.trim_end()), "{text}");
    // With its examples uncommented it is a whole configuration.
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(code) if code.contains(" = ") && !code.contains(". ") || code == "[[wire]]" => code,
        _ => line,
    });
    let config = load(Some(&lines.collect::<Vec<_>>().join("\n")), &[]).unwrap();
    expected.wires[0].left = "eth0".into();
    expected.wires[0].right = "eth1".into();
    expected.api.group = Some("netadmin".into());
    expected.api.write_group = Some("netadmin".into());
    expected.ipfix.collector = Some("collector.example:4739".into());
    expected.log.nflog_dir = Some("/var/log/palisade".into());
    expected.rules = config.rules.clone();
    assert!(config.rules.v4.as_ref().unwrap().is_absolute() && config.rules.v6.is_some());
    assert_eq!(config, expected);
}

#[test]
fn every_setting_is_explained_in_a_section_and_takes_its_own_value_back() {
    let defaults = Config::default();
    for known in Known::all() {
        assert!(SECTIONS.iter().any(|(section, _)| *section == known.section()), "{}", known.name());
        assert!(known.doc().ends_with('.'), "{}", known.name());
        let value = known.show(&defaults).unwrap_or_else(|| format!("\"{}\"", known.example()));
        let set = format!("{}={value}", known.name());
        let config = with(&["--set", &set]).unwrap_or_else(|e| panic!("{set}: {e}"));
        assert_eq!(known.show(&config).unwrap(), value, "{set}");
    }
    assert_eq!(Known::all().count(), SETTINGS.len() + CONNTRACK.len());
}

/// The file takes what `fwctl sysctl` takes, and refuses what that refuses.
#[test]
fn settings_of_the_tracker_have_one_range_by_whatever_way() {
    for setting in CONNTRACK {
        let (min, max) = TrackSettings::range(setting.name).unwrap();
        for value in [min.wrapping_sub(1), min, max, max + 1] {
            let file = with(&["--set", &format!("{}={value}", setting.name)]).is_ok();
            let running = TrackSettings::default().set(setting.name, &value.to_string()).is_ok();
            assert_eq!((file, running), ((min..=max).contains(&value), file), "{}={value}", setting.name);
        }
    }
}

#[test]
fn a_name_that_several_settings_share_has_to_be_given_in_full() {
    let said = refused_set("listen=127.0.0.1:8080").join("\n");
    assert!(said.contains("`listen` is the name of several settings"), "{said}");
    assert!(said.contains("metrics.listen or web.listen"), "{said}");
    let config = with(&["--set", "web.listen=127.0.0.1:8080"]).unwrap();
    assert_eq!((config.web.listen.to_string().as_str(), config.metrics.listen.0), ("127.0.0.1:8080", None));
    // Others are known by their last part.
    let mut leaves: Vec<&str> = Known::all().map(Known::leaf).chain(WIRE.iter().map(|s| s.name)).collect();
    leaves.sort_unstable();
    let shared: Vec<&str> = leaves.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert_eq!(shared, ["listen"]);
}

#[test]
fn names_by_which_the_page_is_called_are_names_of_hosts() {
    let config = with(&["--set", "web.hosts=[\"GW.example.org\", \"gw\"]"]).unwrap();
    assert_eq!(config.web.hosts.0, ["gw.example.org", "gw"]);
    for wrong in ["[\"http://gw/\"]", "[\"gw:8080\"]", "[1]", "7"] {
        let said = refused_set(&format!("web.hosts={wrong}")).join("\n");
        assert!(said.contains("name of a host") || said.contains("names of hosts"), "{wrong}: {said}");
    }
}

#[test]
fn set_wins_over_options_and_options_over_the_file() {
    let file = "[conntrack]\ntcp_loose = false\nudp_timeout = 11\n[api]\nsocket = \"/run/a.sock\"\n[rules]\nv4 = \"x\"\n\
                [[wire]]\nname = \"lan\"\nleft = \"l0\"\nright = \"r0\"\nqueues = 2\n";
    let config = load(Some(file), &[]).unwrap();
    assert_eq!((config.conntrack.get("tcp_loose"), config.conntrack.get("udp_timeout")), (Some(0), Some(11)));
    assert_eq!((&*config.wires[0].name, config.wires[0].queues), ("lan", Some(2)));
    assert!(config.rules.v4.unwrap().ends_with("x"));

    let args =
        ["--left", "a0", "--right", "b0", "--socket", "/run/b.sock", "--rules", "y", "--set", "tcp_loose=1"];
    let config = load(Some(file), &args).unwrap();
    assert_eq!(
        (&*config.wires[0].left, &*config.wires[0].right, &*config.wires[0].name),
        ("a0", "b0", "lan")
    );
    assert_eq!((config.wires[0].queues, config.conntrack.get("tcp_loose")), (Some(2), Some(1)));
    assert_eq!((config.api.socket, config.rules.v4), ("/run/b.sock".into(), Some("y".into())));

    let args = ["--socket", "/run/b.sock", "--set", "api.socket=/run/c.sock", "--set", "socket=/run/d.sock"];
    assert_eq!(load(Some(file), &args).unwrap().api.socket, PathBuf::from("/run/d.sock"));
}

#[test]
fn set_takes_values_without_quotes_and_names_in_every_form() {
    let config = with(&[
        "--set",
        "idle=spin",
        "--set",
        "workers.cores=[2, 3]",
        "--set",
        "api.group=1000",
        "--set",
        "pass=arp,0x8864,llc",
        "--set",
        "nf_conntrack_tcp_be_liberal=1",
        "--set",
        "net.netfilter.nf_conntrack_udp_timeout=7",
        "--set",
        "net.ipv4.ipfrag_max_dist=9",
        "--set",
        "nf_conntrack_max=4096",
        "--set",
        "hugepages = off",
        "--set",
        "queues=4",
        "--set",
        "umem.frames_per_worker=auto",
    ])
    .unwrap();
    let workers =
        WorkersConfig { cores: Cores::List(vec![2, 3]), idle: Idle::Spin, rebalance: Rebalance::Manual };
    assert_eq!(config.workers, workers);
    assert_eq!(config.api.group.as_deref(), Some("1000"));
    assert_eq!(config.l2.pass, L2Pass::Only { ethertypes: vec![0x0806, 0x8864], llc: true });
    assert_eq!(
        (config.conntrack.get("tcp_be_liberal"), config.conntrack.get("udp_timeout")),
        (Some(1), Some(7))
    );
    assert_eq!(config.conntrack.get("ipfrag_max_dist"), Some(9));
    assert_eq!((config.flows.max, config.umem.hugepages), (4096, Auto::Off));
    assert_eq!(config.wires[0].queues, Some(4));
}

#[test]
fn settings_alone_need_no_wires_and_no_rules() {
    let config = Config::from_settings(&["tcp_loose=0".to_owned()]).unwrap();
    assert_eq!((config.conntrack.get("tcp_loose"), config.wires.len()), (Some(0), 0));
    let errors = Config::from_settings(&["tcp_loose=2".to_owned(), "left=x".to_owned()]).unwrap_err();
    assert_eq!(
        summary(&errors),
        [
            "command line:1:17: `conntrack.tcp_loose` takes true or false, not `2`",
            "wire `wire0` has no right NIC (set `right` to an interface name)",
        ]
    );
}

#[test]
fn set_reaches_wires_by_name_by_number_and_alone() {
    let file = "[[wire]]\nname = \"dmz\"\nleft = \"l0\"\nright = \"r0\"\n[rules]\nv6 = \"x\"\n";
    let config = load(
        Some(file),
        &[
            "--set",
            "wire.dmz.right=x0",
            "--set",
            "wire.1.left=l1",
            "--set",
            "wire.1.right=r1",
            "--set",
            "queues=2",
        ],
    )
    .unwrap();
    let ends: Vec<_> = config.wires.iter().map(|w| (&*w.name, &*w.left, &*w.right, w.queues)).collect();
    assert_eq!(ends, [("dmz", "l0", "x0", Some(2)), ("wire1", "l1", "r1", Some(2))]);

    let args = ["--set", "left=a", "--set", "right=b", "--set", "wire.name=up", "--set", "v4=r"];
    assert_eq!(load(None, &args).unwrap().wires[0].name, "up");

    let two = format!("{file}[[wire]]\nleft = \"l1\"\nright = \"r1\"\n");
    let errors = load(Some(&two), &["--set", "left=a", "--set", "wire.7.left=b", "--set", "wire.dmz.lef=c"])
        .unwrap_err();
    assert_eq!(
        summary(&errors),
        [
            "command line:1:7: there are 2 wires: say which (--set wire.NAME.left=VALUE)",
            "command line:1:7: there is no wire `7` (use a wire's name, or its number from 0; the next free number adds a wire)",
            "command line:1:7: there is no setting `lef` in [[wire]] (did you mean `left`?)",
        ]
    );
    let errors = load(Some(&two), &["--left", "a", "--right", "b"]).unwrap_err();
    assert_eq!(
        summary(&errors),
        [
            "command line:1:8: --left and --right name one wire, the file describes 2 (use --set wire.NAME.left=IF for one of several)"
        ]
    );
}

#[test]
fn all_errors_of_all_sources_come_at_once_in_order() {
    let file = "[workers]\nidle = \"spinn\"\ncores = [1, 1]\n\n[umem]\nring_size_descs = 1000\n[conntrack]\n\
                tcp_losse = 1\ntcp_loose = 2\n";
    let errors = load(Some(file), &[BASE, &["--set", "udp_timeout=0"]].concat()).unwrap_err();
    assert_eq!(
        summary(&errors),
        [
            "fwd.toml:2:8: `workers.idle` takes \"spin\", \"adaptive\" or \"sleep\", not `spinn` (did you mean \"spin\"?)",
            "fwd.toml:3:13: `workers.cores`: core 1 is listed twice",
            "fwd.toml:6:19: `umem.ring_size_descs` takes a power of two from 64 to 32768, not `1000` (the nearest are 512 and 1024)",
            "fwd.toml:8:1: there is no setting `tcp_losse` in [conntrack] (did you mean `tcp_loose`?)",
            "fwd.toml:9:13: `conntrack.tcp_loose` takes true or false, not `2`",
            "command line:1:19: `conntrack.udp_timeout` takes a whole number from 1 to 20000000, not `0`",
        ]
    );
}

#[test]
fn a_report_shows_the_line_a_caret_and_a_hint() {
    let errors = load(Some("[conntrack]\ntcp_losse = 1\n"), BASE).unwrap_err();
    let expected = "\
error: there is no setting `tcp_losse` in [conntrack]
 --> fwd.toml:2:1
  |
2 | tcp_losse = 1
  | ^^^^^^^^^
  |
  = help: did you mean `tcp_loose`?";
    assert_eq!(errors.to_string(), expected);
    let errors = with(&["--set", "wire.0.right=a0"]).unwrap_err();
    let expected = "\
error: NIC `a0` is used twice
 --> command line:1:20
  |
1 | --set wire.0.right=a0
  |                    ^^
  |
 ::: command line:1:8
  |
1 | --left a0
  |        -- the other one
  |
  = help: a NIC is one end of one wire; two ends need two NICs";
    assert_eq!(errors.to_string(), expected);
    assert!(errors.render(true).contains("\u{1b}["));
}

#[test]
fn broken_toml_is_reported_with_its_place_and_the_rest_is_still_checked() {
    let text = "[workers]\nidle = = \"spin\"\n[umem]\nhugepages = \"of\"\n";
    let problems = refused(text);
    assert!(problems[0].starts_with("fwd.toml:2:8: not TOML: "), "{problems:?}");
    assert!(problems.last().unwrap().starts_with("fwd.toml:4:13: `umem.hugepages` takes"), "{problems:?}");
    assert_eq!(problems.len(), 2, "{problems:?}");
    let problems = refused("[log]\nlevel = \"info\"\nlevel = \"debug\"\n");
    assert!(problems[0].starts_with("fwd.toml:3:1: not TOML: duplicate key"), "{problems:?}");
}

#[test]
fn names_in_the_wrong_place_are_pointed_home() {
    for (file, expected) in [
        (
            "tcp_loose = 1",
            "fwd.toml:1:1: there is no section `tcp_loose` (the setting `tcp_loose` stands in [conntrack])",
        ),
        ("[worker]", "fwd.toml:1:2: there is no section `worker` (did you mean [workers]?)"),
        ("[[wires]]", "fwd.toml:1:3: there is no section `wires` (did you mean [[wire]]?)"),
        (
            "[umem]\nidle = \"spin\"",
            "fwd.toml:2:1: there is no setting `idle` in [umem] (it stands in [workers])",
        ),
        (
            "[umem]\nquux = 1",
            "fwd.toml:2:1: there is no setting `quux` in [umem] (`fwd --print-defaults` shows every setting)",
        ),
        (
            "[conntrack]\nnf_conntrack_tcp_loose = 1",
            "fwd.toml:2:1: there is no setting `nf_conntrack_tcp_loose` in [conntrack] (write it without the prefix: `tcp_loose`)",
        ),
        (
            "umem = 3",
            "fwd.toml:1:8: `umem` is a section, not a setting (write [umem] and its settings below)",
        ),
    ] {
        assert_eq!(refused(file), [expected]);
    }
    let sections: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
    let known = format!("the sections are [[wire]], {}", sections.join(", "));
    assert_eq!(refused("[colour]"), [format!("fwd.toml:1:2: there is no section `colour` ({known})")]);
    let wire = "[wire]\nleft = \"a\"";
    assert_eq!(
        summary(&load(Some(wire), &["--rules", "r"]).unwrap_err()),
        ["fwd.toml:1:1: `wire` is a list of wires (write [[wire]], with two brackets, once for each wire)"]
    );
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    for (file, expected) in [
        (
            "[flows]\nmax = \"1000\"",
            "fwd.toml:2:7: `flows.max` takes a whole number from 64 to 268435456, not `1000` (write numbers without quotes)",
        ),
        (
            "[flows]\nmax = 1.5",
            "fwd.toml:2:7: `flows.max` takes a whole number from 64 to 268435456, not a number with a fraction",
        ),
        (
            "[flows]\nmax = -1",
            "fwd.toml:2:7: `flows.max` takes a whole number from 64 to 268435456, not `-1`",
        ),
        (
            "[flows]\nmax = 99999999999999999999",
            "fwd.toml:2:7: `flows.max` takes a whole number from 64 to 268435456, not a number that large",
        ),
        (
            "[flows]\nmax = [1]",
            "fwd.toml:2:7: `flows.max` takes a whole number from 64 to 268435456, not a list",
        ),
        (
            "[flows]\nmax = { a = 1 }",
            "fwd.toml:2:7: `flows.max` takes a whole number from 64 to 268435456, not a table",
        ),
        ("[net]\npromiscuous = \"yes\"", "fwd.toml:2:15: `net.promiscuous` takes true or false, not `yes`"),
        (
            "[api]\nsocket = \"fwd.sock\"",
            "fwd.toml:2:10: `api.socket` takes a full path, not `fwd.sock` (start it with `/`)",
        ),
        ("[api]\ngroup = \"\"", "fwd.toml:2:9: `api.group` takes the name of a group, not an empty text"),
        (
            "[umem]\nframe_size_bytes = 3000",
            "fwd.toml:2:20: `umem.frame_size_bytes` takes a power of two from 2048 to 4096, or \"auto\", not `3000` (the nearest are 2048 and 4096)",
        ),
        ("[workers]\ncores = 0", "fwd.toml:2:9: `workers.cores`: there can be 1 to 64 workers"),
        ("[workers]\ncores = []", "fwd.toml:2:9: `workers.cores`: an empty list leaves no worker"),
        (
            "[workers]\ncores = [1, \"x\"]",
            "fwd.toml:2:13: `workers.cores` takes a number of workers, a list of cores, or \"auto\", not a list (write numbers without quotes)",
        ),
        (
            "[l2]\npass = [\"arp\", \"lldpp\"]",
            "fwd.toml:2:16: `l2.pass`: `lldpp` is no EtherType (did you mean \"lldp\"?)",
        ),
        (
            "[l2]\npass = [\"0x0800\"]",
            "fwd.toml:2:9: `l2.pass`: IPv4 and IPv6 are judged by the rules, not by this list",
        ),
        (
            "[l2]\npass = [0x8100]",
            "fwd.toml:2:9: `l2.pass`: VLAN tags are looked through; list what is inside them",
        ),
        (
            "[l2]\npass = [1500]",
            "fwd.toml:2:9: `l2.pass`: EtherTypes start at 0x0600 (802.3 frames are \"llc\")",
        ),
    ] {
        assert_eq!(refused(file), [expected]);
    }
    assert_eq!(
        refused_set("pass=arp,lldpp"),
        ["command line:1:16: `l2.pass`: `lldpp` is no EtherType (did you mean \"lldp\"?)"]
    );
    assert_eq!(
        refused_set("tcp_loose"),
        ["command line:1:7: --set takes NAME=VALUE (for example --set tcp_loose=0)"]
    );
    assert_eq!(
        refused_set("tcp_losse=1"),
        ["command line:1:7: there is no setting `tcp_losse` (did you mean `tcp_loose`?)"]
    );
    assert_eq!(
        refused_set("=1")[0],
        "command line:1:7: there is no setting `` (`fwd --print-defaults` shows every setting)"
    );
}

#[test]
fn contradictions_are_found() {
    let nics =
        "[[wire]]\nleft = \"a\"\nright = \"b\"\n[[wire]]\nleft = \"c\"\nright = \"a\"\n[rules]\nv4 = \"r\"";
    let errors = load(Some(nics), &[]).unwrap_err();
    assert_eq!(
        summary(&errors),
        ["fwd.toml:6:9: NIC `a` is used twice (a NIC is one end of one wire; two ends need two NICs)"]
    );
    assert!(errors.to_string().contains("--- the other one"), "{errors}");
    let names = "[[wire]]\nname = \"x\"\nleft = \"a\"\nright = \"b\"\n[[wire]]\nname = \"x\"\nleft = \"c\"\nright = \"d\"";
    let args = ["--rules", "r"];
    assert_eq!(summary(&load(Some(names), &args).unwrap_err()), ["fwd.toml:6:8: two wires are called `x`"]);
    let half = "[[wire]]\nleft = \"a\"";
    assert_eq!(
        summary(&load(Some(half), &args).unwrap_err()),
        ["fwd.toml:1:1: wire `wire0` has no right NIC (set `right` to an interface name)"]
    );
    assert_eq!(
        refused("[umem]\nframes_per_worker = 1000"),
        [
            "fwd.toml:2:21: 1000 frames per worker cannot fill rings of 2048 descriptors (at least 4096 are needed; \"auto\" chooses enough)"
        ]
    );
    assert_eq!(
        refused("[web]\nlisten = \"127.0.0.1:9\"\n[metrics]\nlisten = \"127.0.0.1:9\""),
        [
            "fwd.toml:2:10: metrics.listen and web.listen are both 127.0.0.1:9 (each needs an address of its own: choose another port for one of them)"
        ]
    );
}

#[test]
fn what_is_missing_is_said() {
    assert_eq!(
        summary(&load(None, &["--rules", "r"]).unwrap_err()),
        [
            "no wire: nothing to forward between (give --left IF --right IF, or a [[wire]] in the configuration file)"
        ]
    );
    assert_eq!(
        summary(&load(None, &["--left", "a", "--right", "b"]).unwrap_err()),
        [
            "no rules: a firewall without rules is a wire (give --rules FILE (iptables-save), --rules6 FILE (ip6tables-save), or both)"
        ]
    );
    let bad = ["--left", "no/slash", "--right", "way-too-long-a-name", "--rules", "r"];
    assert_eq!(
        summary(&load(None, &bad).unwrap_err()),
        [
            "command line:1:8: `wire.0.left`: an interface name has no `/` and no `:`",
            "command line:1:9: `wire.0.right`: an interface name has at most 15 bytes",
        ]
    );
    let errors = load(None, &[BASE, &["--config", "/nonexistent/fwd.toml"]].concat()).unwrap_err();
    assert_eq!(
        summary(&errors),
        [
            "cannot read the configuration file /nonexistent/fwd.toml: No such file or directory (os error 2) (check the path given with --config)"
        ]
    );
    assert!(FwdArgs::try_parse_from(["fwd", "--left", "a"]).is_err());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "(\\PC|[\\[\\]=\"'.#,\n\t a-z0-9_]){0,80}") {
        let in_file = load(Some(&text), BASE);
        let set = with(&[&format!("--set={text}")]);
        for errors in [in_file.err(), set.err()].into_iter().flatten() {
            proptest::prop_assert!(!errors.to_string().is_empty());
            summary(&errors);
        }
    }
}

#[test]
fn every_value_says_where_it_comes_from() {
    let file = "[workers]\nidle = \"spin\"\n\n[conntrack]\nudp_timeout = 9\n";
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(file.as_bytes()).unwrap();
    let name = temp.path().to_string_lossy().into_owned();
    let args = [&["fwd", "--config", &name], BASE, &["--set", "udp_timeout=11"]].concat();
    let loaded = Config::load_with_origins(&FwdArgs::try_parse_from(args).unwrap()).unwrap();
    let origin = |setting: &str| loaded.origins.get(setting).to_string();
    assert_eq!(origin("workers.idle"), format!("{name}:2"));
    assert_eq!(origin("conntrack.udp_timeout"), "--set udp_timeout=11");
    assert_eq!(origin("wire.0.left"), "--left a0");
    assert_eq!(origin("rules.v4"), "--rules r4");
    assert_eq!(origin("flows.max"), "default");
    for item in loaded.config.items() {
        if item.value != item.default {
            assert_ne!(loaded.origins.get(&item.name), Origin::Default, "{}", item.name);
        }
    }
}

#[test]
fn what_differs_is_named_and_can_be_taken_over() {
    let before = with(&[]).unwrap();
    let set = ["tcp_loose=0", "idle=spin", "wire.0.full=pass-untracked", "pass=arp", "flows.max=77"];
    let after = before.with_settings(&set.map(str::to_owned)).unwrap();
    assert!(after.origins.names().eq([
        "conntrack.tcp_loose",
        "flows.max",
        "l2.pass",
        "wire.0.full",
        "workers.idle"
    ]));
    let differences = before.differences(&after.config);
    let named: Vec<(&str, Change, String)> =
        differences.iter().map(|d| (&*d.name, d.change, format!("{} {}", d.before, d.after))).collect();
    assert_eq!(
        named,
        [
            ("wire.0.full", Change::Hot, "\"drop-new\" \"pass-untracked\"".to_owned()),
            ("workers.idle", Change::Hot, "\"adaptive\" \"spin\"".to_owned()),
            ("flows.max", Change::Restart, "1048576 77".to_owned()),
            ("l2.pass", Change::Hot, "\"all\" [\"0x0806\"]".to_owned()),
            ("conntrack.tcp_loose", Change::Hot, "true false".to_owned()),
        ]
    );
    let mut changed = before.clone();
    for difference in &differences {
        changed.take_over(&difference.name, &after.config);
    }
    assert_eq!(changed, after.config);
    let more = load(None, &[BASE, &["--set", "wire.1.left=c", "--set", "wire.1.right=d"]].concat()).unwrap();
    assert!(
        before
            .differences(&more)
            .iter()
            .all(|d| d.change == Change::Restart && d.name.starts_with("wire.1."))
    );
    assert!(more.differences(&before).iter().all(|d| d.change == Change::Restart && d.after.is_null()));
    // The same wires the other way round: `full` belongs to the wire, not to its place.
    let two = "[[wire]]\nleft = \"a\"\nright = \"b\"\nfull = \"pass-untracked\"\n[[wire]]\nleft = \"c\"\nright = \"d\"\n";
    let (first, second) = two.split_at(two.rfind("[[").unwrap());
    let args = ["--rules", "r"];
    let swapped = load(Some(&format!("{second}{first}")), &args).unwrap();
    let differences = load(Some(two), &args).unwrap().differences(&swapped);
    assert!(differences.iter().any(|d| d.name == "wire.0.full"));
    assert!(differences.iter().all(|d| d.change == Change::Restart), "{differences:?}");

    let errors = before.with_settings(&["tcp_losse=0".to_owned(), "left=b0".to_owned()]).unwrap_err();
    assert_eq!(
        summary(&errors),
        [
            "command line:1:18: there is no setting `tcp_losse` (did you mean `tcp_loose`?)",
            "command line:1:23: NIC `b0` is used twice (a NIC is one end of one wire; two ends need two NICs)",
        ]
    );
}

#[test]
fn a_file_is_checked_whole_and_what_may_come_by_the_command_line_is_a_warning() {
    let check = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut checked = check_file(file.path());
        let name = file.path().to_string_lossy().into_owned();
        checked
            .errors
            .sources
            .iter_mut()
            .for_each(|source| source.name = source.name.replace(&name, "fwd.toml"));
        (checked.is_wrong(), checked.counts(), summary(&checked.errors))
    };
    let (is_wrong, counts, said) = check("[workers]\nidle = \"spin\"\n");
    assert_eq!((is_wrong, counts), (false, (0, 2)), "{said:?}");
    let whole = "[[wire]]\nleft = \"a\"\nright = \"b\"\n[rules]\nv4 = \"/nonexistent/rules.v4\"\n[api]\ngroup = \"no-such\"\n";
    let (is_wrong, _, said) = check(whole);
    assert!(!is_wrong);
    assert_eq!(
        said,
        [
            "fwd.toml:5:6: /nonexistent/rules.v4 cannot be read: No such file or directory (os error 2) (check the path; relative ones start at this file's directory)",
            "fwd.toml:7:9: there is no group `no-such` here (groupadd --system no-such)",
        ]
    );
    let (is_wrong, counts, said) = check("[workers]\nidle = 7\n[umem]\nring_size_descs = 3\n[x]\n");
    assert_eq!((is_wrong, counts.0), (true, 3), "{said:?}");
    assert!(check_file(std::path::Path::new("/nonexistent/fwd.toml")).unreadable);
}
