//! What a package would hold, held against the programs and against the tools that will read it.

use super::*;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command as Program, Output};
use tempfile::TempDir;

const DATE: &str = "2026-01-31";

fn written() -> TempDir {
    let dir = TempDir::with_prefix("palisade-package-").expect("a temporary directory");
    write(dir.path(), DATE).expect("files can be written");
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A file of this directory, as it is installed.
fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    let path = installed(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a program; `None`, and a word about it, where it is not installed.
fn run(program: &mut Program) -> Option<Output> {
    match program.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("skipped: no {}", program.get_program().display());
            None
        }
        Err(error) => panic!("{}: {error}", program.get_program().display()),
    }
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Every command line there is, by the name its page would have, with its options.
fn known(command: &Command, name: &str, all: &mut Vec<(String, Command)>) {
    all.push((name.to_owned(), command.clone()));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        known(sub, &format!("{name}-{}", sub.get_name()), all);
    }
}

#[test]
fn every_command_and_option_has_its_place_in_a_page() {
    let dir = written();
    let mut all = Vec::new();
    for mut command in commands() {
        command.build();
        known(&command, command.get_name(), &mut all);
    }
    assert!(all.len() > 20, "fwctl has more commands than that");
    let mut expected: BTreeSet<String> = ["fwd.toml.5".to_owned()].into();
    for (name, command) in &all {
        let file = format!("{name}.8");
        let page = fs::read_to_string(dir.path().join("man").join(&file)).unwrap_or_default();
        assert!(page.starts_with(&format!(".TH {} 8 {DATE} ", name.to_uppercase())), "{file}: {page}");
        let about =
            command.get_about().unwrap_or_else(|| panic!("{name} says nothing of itself")).to_string();
        let first = about.split(['\'', '`', '-', '\n']).next().unwrap_or_default().to_owned();
        assert!(page.contains(&first), "{name}: {first}");
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
        for option in shown.filter_map(|argument| argument.get_long()) {
            let option = option.replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{option}")), "{name}: no --{option} in {page}");
        }
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let reference = format!("{name}-{}(8)", sub.get_name()).replace('-', "\\-");
            assert!(page.contains(&reference), "{name}: no {reference}");
        }
        expected.insert(file);
    }
    let names = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let there: BTreeSet<String> = files(&dir.path().join("man")).iter().map(names).collect();
    assert_eq!(there, expected);
}

#[test]
fn every_setting_is_in_the_page_of_the_configuration_file() {
    let dir = written();
    let page = fs::read_to_string(dir.path().join("man/fwd.toml.5")).expect("the page is there");
    let mut count = 0;
    for section in control::config::listing::sections() {
        for setting in section.settings {
            assert!(page.contains(&format!(".TP\n\\fB{}\\fR", setting.name)), "{}", setting.name);
            count += 1;
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn readers_of_manual_pages_find_no_fault() {
    let dir = written();
    for page in files(&dir.path().join("man")) {
        // What groff would warn of, as Debian's own checks ask it.
        let mut man = Program::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&page);
        if let Some(output) = run(man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80")) {
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{}: {}",
                page.display(),
                said(&output)
            );
        }
        if let Some(output) = run(Program::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&page)) {
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

#[test]
fn shells_read_their_completions_and_complete() {
    let dir = written();
    let completions = dir.path().join("completions");
    for (shell, file) in [("zsh", "_fwctl"), ("zsh", "_fwd"), ("fish", "fwctl.fish"), ("fish", "fwd.fish")] {
        let path = completions.join(shell).join(file);
        if let Some(output) = run(Program::new(shell).arg("-n").arg(&path)) {
            assert!(output.status.success() && output.stderr.is_empty(), "{file}: {}", said(&output));
        }
    }
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let program = words[0];
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let (last, before) = (&quoted[quoted.len() - 1], &quoted[quoted.len() - 2]);
        let script = format!(
            ". {}/bash/{program}; COMP_WORDS=({}); COMP_CWORD={}; _{program} {program} {last} {before}; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            completions.display(),
            quoted.join(" "),
            words.len() - 1,
        );
        let output = Program::new("bash").args(["-c", &script]).output().expect("bash is everywhere");
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {}", said(&output));
        said(&output)
    };
    assert_eq!(complete("fwctl fl"), "flows\n");
    assert!(complete("fwctl stats --").contains("--watch\n"));
    assert!(complete("fwctl rule ").contains("replace\n"));
    assert!(complete("fwd --").contains("--print-defaults\n"));
}

#[test]
fn the_example_configuration_and_its_rules_are_right() {
    let dir = TempDir::new().expect("a temporary directory");
    let etc = text("etc/fwd.toml");
    // As it is installed it lacks nothing but wires.
    let load = |text: &str| {
        fs::write(dir.path().join("fwd.toml"), text).expect("a file can be written");
        let config = Some(dir.path().join("fwd.toml"));
        control::config::Config::load(&FwdArgs { config, ..FwdArgs::default() })
    };
    let errors = load(&etc).expect_err("no wire").to_string();
    assert!(errors.contains("wire") && errors.matches("error").count() == 1, "{errors}");
    // With every comment that looks like a setting taken at its word.
    let all: String = etc
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") || rest.starts_with("[["))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = load(&all).unwrap_or_else(|errors| panic!("{errors}\n{all}"));
    let expected = control::config::Config::default();
    assert_eq!(
        (config.wires.len(), config.flows.clone(), config.workers.clone()),
        (1, expected.flows, expected.workers)
    );
    for (name, family) in [("rules.v4", 4), ("rules.v6", 6)] {
        let path = installed("etc").join(name);
        let path = path.to_string_lossy();
        let cli = ["fwctl", "check", "--strict", "--family", if family == 4 { "4" } else { "6" }, &path];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = control::cli::run(&<Cli as clap::Parser>::parse_from(cli), &mut out, &mut err);
        assert_eq!(code, 0, "{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    }
}

/// The unit with its programs where this test can see them.
fn unit_for_here(dir: &Path) -> PathBuf {
    let unit = text("debian/palisade.service")
        .replace("/usr/sbin/fwd", "/bin/true")
        .replace("/usr/bin/fwctl", "/bin/true");
    let path = dir.join("palisade.service");
    fs::write(&path, unit).expect("a file can be written");
    path
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let dir = TempDir::new().expect("a temporary directory");
    let unit = unit_for_here(dir.path());
    let mut verify = Program::new("systemd-analyze");
    let Some(output) = run(verify.args(["verify", "--man=no"]).arg(&unit)) else { return };
    // It looks at every unit of the machine; what it says of others is theirs.
    let ours: Vec<String> =
        said(&output).lines().filter(|line| line.contains("palisade")).map(str::to_owned).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    let mut security = Program::new("systemd-analyze");
    // Ten is all, zero is nothing. Much of what is left is what a firewall is for: packets, NICs, /sys.
    let output =
        run(security.args(["security", "--offline=true", "--threshold=40", "--no-pager"]).arg(&unit))
            .expect("it was there a moment ago");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_unit_starts_the_daemon_with_options_it_has() {
    let unit = text("debian/palisade.service");
    let line =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a unit starts something");
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], "/usr/sbin/fwd");
    let args = <FwdArgs as clap::Parser>::try_parse_from(words).expect("options that there are");
    assert_eq!(args.config.as_deref(), Some(Path::new(manual::CONFIG_FILE)));
    for line in unit.lines().filter_map(|line| line.strip_prefix("ExecReload=/usr/bin/fwctl")) {
        let words = ["fwctl"].into_iter().chain(line.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(words).expect("a command that there is");
    }
    // The wire is closed without it, whatever ended it.
    assert!(unit.contains("\nRestart=always\n"));
    let defaults = control::config::Config::default();
    for (dir, of) in
        [("RuntimeDirectory", &defaults.net.journal_dir), ("StateDirectory", &defaults.state.dir)]
    {
        let name = of.file_name().unwrap_or_default().to_string_lossy();
        assert!(
            unit.contains(&format!("\n{dir}={name}\n")),
            "{dir} is not where the daemon writes: {}",
            of.display()
        );
    }
}

#[test]
fn changelogs_speak_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let debian = text("debian/changelog");
    assert!(debian.starts_with(&format!("palisade ({version}-")), "{debian}");
    let ours = text("../CHANGELOG.md");
    assert!(ours.contains(&format!("\n## [{version}] - ")), "no section for {version}");
    // Keep a Changelog: the newest first, and nothing but its kinds of changes.
    let mut headings = ours.lines().filter(|line| line.starts_with("## "));
    assert_eq!(headings.next(), Some("## [Unreleased]"));
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    for line in ours.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(kinds.contains(&line), "{line}");
    }
}
