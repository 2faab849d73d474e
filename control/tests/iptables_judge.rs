//! The real iptables as judge: what it takes we print as it does or call unsupported, what it refuses we refuse.
//! Needs root and iptables; skips otherwise. Everything happens in network namespaces of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use control::config::Config;
use control::iptables::diagnostics::Severity;
use control::iptables::names::FileServices;
use control::iptables::syntax::Counters;
use control::iptables::{Loaded, load_with, printer};
use control::labels::LabelNames;
use control::sets::Store;
use dataplane::packet::Family;
use dataplane::rules::model::Table;

/// Timeout policies that rules may name, as nfct(8) takes them. Of longer names the kernel gives iptables-save the first
/// four letters only: `xt_CT` declares its `usersize` by the layout of revision 0.
const TIMEOUT_POLICIES: [&str; 5] = [
    "web inet tcp established 100",
    "web6 inet6 tcp established 100",
    "dns inet udp unreplied 5 replied 10",
    "rest inet generic timeout 7",
    "any6 inet6 generic timeout 7",
];

/// Sets that rules may name.
const SETS: &str = "create one hash:ip\ncreate six hash:ip family inet6\ncreate net hash:net counters\n\
    create pair hash:ip,port timeout 5\ncreate ports bitmap:port range 0-1023\ncreate all list:set\n";

/// A network namespace that lives as long as the test.
struct Namespace(String);

impl Namespace {
    /// `None`, with a word on why, where the judge cannot be called.
    fn new(test: &str) -> Option<Self> {
        let is_root =
            std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        if !is_root {
            println!("skipped: needs root");
            return None;
        }
        let name = format!("palisade-{test}-{}", std::process::id());
        let made =
            Command::new("ip").args(["netns", "add", &name]).status().is_ok_and(|status| status.success());
        if !made {
            println!("skipped: cannot make a network namespace");
            return None;
        }
        let namespace = Self(name);
        let version = namespace.run(&["iptables-restore", "--version"], "").1;
        if !version.contains("v1.8.9 (nf_tables)") {
            println!("skipped: the judge is iptables 1.8.9 (nft), here is `{}`", version.trim());
            return None;
        }
        for policy in TIMEOUT_POLICIES {
            let words: Vec<&str> = ["nfct", "add", "timeout"].into_iter().chain(policy.split(' ')).collect();
            if !namespace.run(&words, "").0 {
                println!("skipped: nfct cannot add a timeout policy");
                return None;
            }
        }
        if !namespace.run(&["ipset", "restore"], SETS).0 {
            println!("skipped: ipset cannot make sets");
            return None;
        }
        Some(namespace)
    }

    /// Runs a command inside; whether it succeeded, and what it printed.
    fn run(&self, words: &[&str], input: &str) -> (bool, String) {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What iptables makes of a file: its save without comment lines, or `None` if it refuses.
    fn judge(&self, family: Family, text: &str) -> Option<String> {
        let tool = tool(family);
        let reset = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n*mangle\nCOMMIT\n*raw\nCOMMIT\n";
        assert!(self.run(&[&format!("{tool}-restore")], reset).0, "the judge is out of order");
        // With -c the counters are loaded too, but declarations without counters are refused.
        let taken = self.run(&[&format!("{tool}-restore"), "-c"], text).0
            || self.run(&[&format!("{tool}-restore")], text).0;
        if !taken {
            return None;
        }
        let has = |table: &&str| {
            let is_it =
                |line: &str| line.strip_prefix('*').is_some_and(|rest| rest.trim_start().starts_with(table));
            text.lines().any(is_it)
        };
        let save = |table| self.run(&[&format!("{tool}-save"), "-c", "-t", table], "").1;
        let saved: String = ["raw", "mangle", "filter"].into_iter().filter(has).map(save).collect();
        Some(saved.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |mut out, line| {
            let _ = writeln!(out, "{line}");
            out
        }))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn tool(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn ours(text: &str, family: Family) -> Loaded {
    let config = Config::from_settings(&[format!("rules.timeout_policies={TIMEOUT_POLICIES:?}")]).unwrap();
    let services = FileServices::parse(&std::fs::read_to_string("/etc/services").unwrap_or_default())
        .with_timeout_policies(&config.rules.timeout_policies);
    let store = Store::new(&[]);
    store.restore(SETS.as_bytes(), false, &services).unwrap();
    let services = services.with_sets(store.slots());
    load_with(text.as_bytes(), "test.rules", family, &services)
}

/// Our print with the counters of the file.
fn print_ours(loaded: &Loaded) -> Option<String> {
    loaded.ruleset.as_ref()?;
    let file = loaded.syntax.as_ref()?;
    Some(printer::save(file, Some(&|at| printer::initial_counters(file, at))))
}

fn compare(namespace: &Namespace, text: &str, family: Family, what: &str) -> Result<(), String> {
    let theirs = namespace.judge(family, text);
    let loaded = ours(text, family);
    let printed = print_ours(&loaded);
    let found: Vec<_> = loaded.diagnostics.iter().map(|d| (d.severity, d.message.clone())).collect();
    match (&theirs, &printed) {
        (Some(theirs), Some(printed)) if theirs == printed => Ok(()),
        (Some(theirs), Some(printed)) => Err(format!("{what}\n--- iptables\n{theirs}--- ours\n{printed}")),
        (None, Some(_)) => Err(format!("{what}: iptables refuses it, we do not: {found:?}")),
        (Some(_), None) if loaded.worst() == Some(Severity::Error) => {
            Err(format!("{what}: iptables takes it, we call it an error: {found:?}"))
        }
        (_, None) => Ok(()),
    }
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn single_lines(name: &str, family: Family) {
    let Some(namespace) = Namespace::new(&format!("lines{}", family as u8)) else { return };
    let mut failures = Vec::new();
    for line in std::fs::read_to_string(data(name)).unwrap().lines() {
        let text = format!("*filter\n:FOO - [0:0]\n{line}\nCOMMIT\n");
        failures.extend(compare(&namespace, &text, family, line).err());
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_ipv4_construct_is_taken_or_refused_as_iptables_does() {
    single_lines("lines4.txt", Family::V4);
}

#[test]
fn every_ipv6_construct_is_taken_or_refused_as_ip6tables_does() {
    single_lines("lines6.txt", Family::V6);
}

/// Labels by names, in a mount namespace where connlabel.conf has them.
#[test]
fn labels_are_called_by_their_names() {
    const NAMES: &str = "# names\n0 zero\n0x5\teth0-in\n127 two words\n";
    const SCRIPT: &str = "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w \
        && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc && mkdir -p /etc/xtables \
        && printf '%s' \"$1\" > /etc/xtables/connlabel.conf && iptables-restore && iptables-save -t filter";
    let Some(namespace) = Namespace::new("labels") else { return };
    let labels = LabelNames::parse(NAMES, "names").unwrap();
    let services = FileServices::default().with_labels(labels);
    for (rule, is_good) in [
        ("--label zero", true),
        ("! --label \"two words\" --set", true),
        ("--label 5 --set", true),
        ("--label 6", true),
        ("--label eth0-out", false),
        ("--label Zero", false),
    ] {
        let text = format!("*filter\n-A FORWARD -m connlabel {rule}\nCOMMIT\n");
        let (taken, saved) = namespace.run(&["unshare", "-m", "sh", "-c", SCRIPT, "sh", NAMES], &text);
        assert_eq!(taken, is_good, "{rule}");
        let loaded = load_with(text.as_bytes(), "test.rules", Family::V4, &services);
        let printed =
            loaded.syntax.as_ref().filter(|_| loaded.ruleset.is_some()).map(|file| printer::save(file, None));
        assert_eq!(printed.is_some(), is_good, "{rule}: {:?}", loaded.diagnostics);
        let rules = |text: &str| text.lines().find(|line| line.starts_with("-A")).map(str::to_owned);
        assert_eq!(printed.as_deref().and_then(rules), rules(&saved), "{rule}");
    }
}

/// Lines led by the table they are for.
fn tables(name: &str, family: Family) {
    let Some(namespace) = Namespace::new(&format!("tables{}", family as u8)) else { return };
    let mut failures = Vec::new();
    for line in std::fs::read_to_string(data(name)).unwrap().lines() {
        let (table, rule) = line.split_once(' ').unwrap();
        // A table that is there twice is what it was the second time.
        let filter = if table == "filter" { "" } else { "*filter\nCOMMIT\n" };
        let text = format!("*{table}\n:FOO - [0:0]\n{rule}\nCOMMIT\n{filter}");
        failures.extend(compare(&namespace, &text, family, line).err());
        if let (Some(_), Some(ours)) = (namespace.judge(family, &text), print_ours(&ours(&text, family))) {
            assert!(ours.contains("-A "), "{line}: lost on the way\n{ours}");
            let file = self::ours(&text, family).syntax.unwrap();
            let kind = file.chains.iter().map(|chain| chain.table).find(|kind| kind.name() == table).unwrap();
            let listed = printer::listing(&file, kind, &|at| printer::initial_counters(&file, at));
            let theirs =
                namespace.run(&[tool(family), "-t", table, "-L", "-v", "-n", "--line-numbers"], "").1;
            if theirs != listed {
                failures.push(format!("{line}\n--- iptables -L\n{theirs}--- ours\n{listed}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_table_takes_and_prints_ipv4_rules_about_connections_as_iptables_does() {
    tables("tables4.txt", Family::V4);
}

#[test]
fn every_table_takes_and_prints_ipv6_rules_about_connections_as_ip6tables_does() {
    tables("tables6.txt", Family::V6);
}

#[test]
fn matches_on_ipv4_headers_are_taken_and_printed_as_iptables_does() {
    tables("headers4.txt", Family::V4);
}

#[test]
fn matches_on_ipv6_headers_are_taken_and_printed_as_ip6tables_does() {
    tables("headers6.txt", Family::V6);
}

#[test]
fn file_structure_is_taken_or_refused_as_iptables_restore_does() {
    let Some(namespace) = Namespace::new("files") else { return };
    let text = std::fs::read_to_string(data("structures.txt")).unwrap();
    let mut failures = Vec::new();
    for case in text.lines() {
        let file = case.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r");
        failures.extend(compare(&namespace, &file, Family::V4, case).err());
    }
    for depth in 14..=17 {
        let mut file = String::from("*filter\n");
        (1..=depth).for_each(|i| writeln!(file, ":C{i} - [0:0]").unwrap());
        (1..depth).for_each(|i| {
            writeln!(file, "-A C{i} -{} C{}", if i % 2 == 0 { "j" } else { "g" }, i + 1).unwrap();
        });
        file.push_str("-A FORWARD -j C1\nCOMMIT\n");
        failures.extend(compare(&namespace, &file, Family::V4, &format!("depth {depth}")).err());
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn whole_files_print_and_list_as_iptables_does() {
    let Some(namespace) = Namespace::new("whole") else { return };
    let mut failures = Vec::new();
    let mut paths: Vec<_> =
        std::fs::read_dir(data("rules")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let family = if name.contains('6') { Family::V6 } else { Family::V4 };
        let text = std::fs::read_to_string(&path).unwrap();
        failures.extend(compare(&namespace, &text, family, &name).err());
        let loaded = ours(&text, family);
        assert!(loaded.ruleset.is_some(), "{name}: {:?}", loaded.diagnostics);
        let file = loaded.syntax.unwrap();
        let listed = printer::listing(&file, Table::Filter, &|at| printer::initial_counters(&file, at));
        let theirs = namespace.run(&[tool(family), "-L", "-v", "-n", "--line-numbers"], "").1;
        if theirs != listed {
            failures.push(format!("{name}\n--- iptables -L\n{theirs}--- ours\n{listed}"));
        }
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn protocols_print_under_the_names_iptables_gives_them() {
    let Some(namespace) = Namespace::new("protocols") else { return };
    let mut text = String::from("*filter\n");
    (1..=255).for_each(|number| writeln!(text, "-A FORWARD -p {number} -j ACCEPT").unwrap());
    text.push_str("COMMIT\n");
    compare(&namespace, &text, Family::V4, "protocols").unwrap();
}

#[test]
fn counters_shorten_as_iptables_shortens_them() {
    let Some(namespace) = Namespace::new("counters") else { return };
    let mut text = String::from("*filter\n:FORWARD DROP [123456:99999999]\n");
    for number in [0u64, 99_999, 100_000, 9_999_499, 9_999_500, 12_345_678, 9_999_499_999, 12_345_678_901_234]
    {
        writeln!(text, "[{number}:{}] -A FORWARD -j DROP", number / 3 * 7).unwrap();
    }
    text.push_str("COMMIT\n");
    assert!(namespace.judge(Family::V4, &text).is_some());
    let file = ours(&text, Family::V4).syntax.unwrap();
    let listed = printer::listing(&file, Table::Filter, &|at| printer::initial_counters(&file, at));
    let theirs = namespace.run(&["iptables", "-L", "-v", "-n", "--line-numbers"], "").1;
    assert_eq!(theirs, listed);
    assert_eq!(
        printer::initial_counters(
            &file,
            dataplane::rules::model::RuleRef { chain: dataplane::rules::model::ChainId(1), rule: None }
        ),
        Counters { packets: 123_456, bytes: 99_999_999 }
    );
}

/// Options that combine; the generator below picks a few for each rule.
const PARTS: [&str; 34] = [
    "-s 10.1.2.3",
    "! -s 10.1.0.0/16",
    "-d 192.168.1.1/255.255.0.255",
    "-d 1.1.1.1,2.0.0.0/7",
    "-i eth0",
    "! -i eth+",
    "! -o wan9",
    "-f",
    "! -f",
    "-p tcp",
    "-p udp",
    "! -p esp",
    "-p sctp",
    "-p icmp",
    "--sport 1000:2000",
    "! --dport 53",
    "--dport :1023",
    "--tcp-flags SYN,ACK,FIN,RST SYN",
    "! --syn",
    "--icmp-type echo-request",
    "! --icmp-type 3/4",
    "-m tcp",
    "-m udp",
    "-m multiport --dports 80,443,8000:8080",
    "-m multiport ! --ports 1,2",
    "-m conntrack --ctstate NEW",
    "-m conntrack ! --ctstate ESTABLISHED,INVALID",
    "-m state --state RELATED,UNTRACKED",
    "-m comment --comment \"two words\"",
    "-m comment --comment plain",
    "-j ACCEPT",
    "-j REJECT --reject-with tcp-reset",
    "-j REJECT",
    "-g FOO",
];

#[test]
fn options_in_any_order_and_company_print_as_iptables_prints_them() {
    let Some(namespace) = Namespace::new("mixed") else { return };
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below).unwrap()
    };
    let wrap = |rules: &str| format!("*filter\n:FOO - [0:0]\n{rules}COMMIT\n");
    let (mut good, mut refused) = (String::new(), Vec::new());
    let (mut good_count, mut tries) = (0, 0);
    while good_count < 1500 && tries < 100_000 {
        tries += 1;
        let parts: Vec<&str> = (0..=random(6)).map(|_| PARTS[random(34)]).collect();
        let rule = format!("-A FORWARD {}\n", parts.join(" "));
        let loaded = ours(&wrap(&rule), Family::V4);
        if loaded.ruleset.is_some() {
            good.push_str(&rule);
            good_count += 1;
        } else if loaded.worst() == Some(Severity::Error) && refused.len() < 150 {
            refused.push(rule);
        }
    }
    let mut failures: Vec<String> =
        refused.iter().filter_map(|rule| compare(&namespace, &wrap(rule), Family::V4, rule).err()).collect();
    let (theirs, printed) =
        (namespace.judge(Family::V4, &wrap(&good)), print_ours(&ours(&wrap(&good), Family::V4)));
    match (theirs, printed) {
        (Some(theirs), Some(printed)) => {
            let differences = theirs.lines().zip(printed.lines()).filter(|(theirs, ours)| theirs != ours);
            failures
                .extend(differences.map(|(theirs, ours)| format!("iptables: {theirs}\nours:     {ours}")));
        }
        // Somebody refuses the whole: find out for which rule.
        _ => failures.extend(
            good.lines()
                .filter_map(|rule| compare(&namespace, &wrap(&format!("{rule}\n")), Family::V4, rule).err()),
        ),
    }
    failures.truncate(20);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
