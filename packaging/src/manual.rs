//! Manual pages: fwd(8), fwctl(8) and each of its commands, fwd.toml(5).

use super::commands;
use super::roff::Page;
use clap::Command;
use clap_mangen::Man;
use control::config::DEFAULT_SOCKET;
use control::config::listing::{self, Section};
use std::io;

/// What the pages are part of, in the middle of their first line.
pub(crate) const MANUAL: &str = "Palisade Manual";

/// Section of the programs: system administration.
const ADMIN: &str = "8";

/// Where packages put the configuration file.
pub(crate) const CONFIG_FILE: &str = "/etc/palisade/fwd.toml";

/// What stands at the foot of every page.
pub(crate) fn source() -> String {
    format!("Palisade {}", env!("CARGO_PKG_VERSION"))
}

/// Every page with its file name.
pub(crate) fn pages(date: &str) -> io::Result<Vec<(String, String)>> {
    let mut pages = vec![("fwd.toml.5".to_owned(), settings_page(date))];
    for command in commands() {
        // Each command has its own --help; a page about `help` tells nobody anything.
        let mut command = command.disable_help_subcommand(true);
        command.build();
        add(&command, None, date, &mut pages)?;
    }
    Ok(pages)
}

/// The page of a command, and of every command below it.
fn add(
    command: &Command,
    parent: Option<&str>,
    date: &str,
    pages: &mut Vec<(String, String)>,
) -> io::Result<()> {
    let name = page_name(command);
    pages.push((format!("{name}.{ADMIN}"), program_page(command, parent, date)?));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, Some(&name), date, pages)?;
    }
    Ok(())
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn program_page(command: &Command, parent: Option<&str>, date: &str) -> io::Result<String> {
    let name = page_name(command);
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(ADMIN)
        .date(date)
        .source(source())
        .manual(MANUAL);
    let mut page = Page::default();
    page.raw(&part(|out| man.render_title(out))?);
    page.raw(&part(|out| man.render_name_section(out))?);
    let synopsis = part(|out| man.render_synopsis_section(out))?;
    page.raw(&synopsis.replace("\\fIsubcommands\\fR", "\\fICOMMAND\\fR"));
    page.raw(&part(|out| man.render_description_section(out))?);
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.raw(&part(|out| man.render_options_section(out))?);
    }
    let has_commands = command.get_subcommands().any(|sub| !sub.is_hide_set());
    if has_commands {
        page.raw(
            &part(|out| man.render_subcommands_section(out))?.replace(".SH SUBCOMMANDS", ".SH COMMANDS"),
        );
    }
    remarks(command, &mut page);
    match (name.as_str(), parent) {
        ("fwd", _) => about_daemon(&mut page),
        ("fwctl", _) => about_tool(&mut page),
        _ => {}
    }
    let parent = parent.into_iter().map(|parent| format!("{parent}({ADMIN})"));
    let others = ["fwctl(8)", "fwd(8)", "fwd.toml(5)"].map(str::to_owned);
    let mut see: Vec<String> = parent.chain(others).collect();
    see.retain(|page| *page != format!("{name}({ADMIN})"));
    see.dedup();
    page.see_also(&see);
    Ok(page.finish())
}

/// A part of a page as `clap_mangen` writes it, without what it defines at the top of each part: nothing here needs it but
/// the apostrophe, which is put in its place. One line break is enough where it has two.
fn part(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<String> {
    let mut text = Vec::new();
    render(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let mut page = String::with_capacity(text.len());
    for line in text.lines() {
        let defines = line.starts_with(".ie \\n(.g .ds Aq") || line.starts_with(".el .ds Aq");
        if defines || line.trim().is_empty() || line == ".br" && page.ends_with("\n.br\n") {
            continue;
        }
        page.push_str(&line.replace("\\*(Aq", "\\(aq"));
        page.push('\n');
    }
    Ok(page)
}

/// What the help text says last: exit codes under a heading of their own, the rest as notes.
fn remarks(command: &Command, page: &mut Page) {
    let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) else { return };
    let text = text.to_string();
    let paragraphs: Vec<&str> = text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).collect();
    let (codes, notes): (Vec<&str>, Vec<&str>) =
        paragraphs.into_iter().partition(|paragraph| paragraph.starts_with("Exit codes"));
    for (heading, paragraphs) in [("NOTES", notes), ("EXIT STATUS", codes)] {
        for (index, paragraph) in paragraphs.iter().enumerate() {
            if index == 0 {
                page.heading(heading);
            } else {
                page.paragraph();
            }
            for line in paragraph.strip_prefix("Exit codes: ").unwrap_or(paragraph).lines() {
                page.text(line.trim());
            }
        }
    }
}

fn about_daemon(page: &mut Page) {
    page.heading("SIGNALS");
    page.term(
        "SIGHUP",
        "",
        "Reads configuration and rules again. What is wrong is logged, and nothing changes then.",
    );
    page.term("SIGTERM, SIGINT", "", "Detaches, puts the NICs back as they were, and ends.");
    page.heading("ENVIRONMENT");
    page.term(
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "",
        "As systemd sets them: it is told of READY, RELOADING and STOPPING, and of WATCHDOG only while all workers poll.",
    );
    page.heading("FILES");
    page.term(CONFIG_FILE, "", "The configuration that the service is started with; see fwd.toml(5).");
    page.term("/etc/palisade/rules.v4, /etc/palisade/rules.v6", "", "The rules that it names.");
    page.term(DEFAULT_SOCKET, "", "Socket for fwctl(8).");
    page.term("/var/lib/palisade", "", "The rulesets that ran before, and the audit log.");
    page.heading("EXAMPLES");
    page.example(
        "fwd --left eth1 --right eth2 --rules /etc/iptables/rules.v4\nfwd --config /etc/palisade/fwd.toml",
    );
}

fn about_tool(page: &mut Page) {
    page.heading("FILES");
    page.term(DEFAULT_SOCKET, "", "Socket of the daemon, unless --socket names another.");
    page.heading("EXAMPLES");
    page.example(
        "fwctl stats\nfwctl rules\nfwctl flows -L -p tcp\nfwctl apply --confirm 60s /etc/palisade/rules.v4\nfwctl doctor",
    );
}

/// fwd.toml(5), made from the list of settings.
fn settings_page(date: &str) -> String {
    let mut page = Page::default();
    page.title("fwd.toml", "5", date);
    page.heading("NAME");
    page.text("fwd.toml - configuration of fwd, the daemon of the Palisade firewall");
    page.heading("SYNOPSIS");
    page.text(CONFIG_FILE);
    page.heading("DESCRIPTION");
    page.text(
        "The file is TOML. Every setting has a default, so that a wire and its rules are all that must be said. Settings that \
         do not exist, values that do not fit and settings that contradict each other are all named at start, and nothing is \
         started then.",
    );
    page.paragraph();
    page.text(
        "Any setting can be given on the command line too, as --set NAME=VALUE with its full name (section.name) or, where \
         that is unique, its last part; the command line wins. Relative file names start at the directory of this file.",
    );
    page.paragraph();
    page.text(
        "fwctl config defaults prints such a file, with every setting at its default; fwctl config check tells what is wrong with \
         this one; fwctl config schema prints a JSON Schema for editors.",
    );
    page.heading("SETTINGS");
    for section in listing::sections() {
        add_section(&section, &mut page);
    }
    page.heading("EXAMPLES");
    page.text("One wire, and rules for both families:");
    page.example(
        "[[wire]]\nname = \"uplink\"\nleft = \"eth1\"\nright = \"eth2\"\n\n[rules]\nv4 = \"rules.v4\"\nv6 = \"rules.v6\"",
    );
    page.heading("FILES");
    page.term(CONFIG_FILE, "", "Where packages put it, and where the service looks.");
    page.see_also(&["fwd(8)".to_owned(), "fwctl(8)".to_owned()]);
    page.finish()
}

fn add_section(section: &Section, page: &mut Page) {
    let brackets = if section.name == "wire" { "[[wire]]".to_owned() } else { format!("[{}]", section.name) };
    page.sub_heading(&brackets);
    page.text(section.about);
    for setting in &section.settings {
        let default = setting.default.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
        page.term(
            setting.name,
            &default,
            &format!("{} Takes {}. {}", setting.doc, setting.takes, setting.change.words()),
        );
    }
}
