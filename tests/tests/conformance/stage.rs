//! Both sides on one stage: each frame goes into both, and what they make of it is compared.

use super::hear::{self, Ears};
use super::join::join;
use super::kernel::{Kernel, Seen, TIMEOUT_POLICIES, Topology, reseal};
use super::list::{self, differences};
use super::ours::Ours;
use control::cli::{Format, Output};
use control::config::Config;
use control::labels::LabelNames;
use control::net::minutes_west;
use control::rules_file::{Named, understand_with};
use control::sets::Store;
use dataplane::clock::Now;
use dataplane::flow::Policies;
use dataplane::ids::PortId;
use dataplane::packet::{Family, proto};
use dataplane::rules::model::CtState;
use dataplane::testing::gateway::{GatewayConfig, LEFT, RIGHT};
use dataplane::worker::AnswerRate;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Frames sent before what came out is looked at: more could overflow a queue on the way.
const BATCH: usize = 64;

/// Rules of a scenario, and how the tracker is set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setting<'a> {
    /// IPv4 tables; empty accepts everything.
    pub v4: &'a str,
    /// IPv6 tables.
    pub v6: &'a str,
    /// Sysctls by the names we have for them, in the order in which they are set. They are put back afterwards.
    pub(crate) sysctls: &'a [(&'a str, &'a str)],
}

/// One frame, and what came of it on our side.
#[derive(Debug)]
struct Sent {
    note: String,
    side: usize,
    frame: Vec<u8>,
    answers: Vec<Vec<u8>>,
}

/// Both sides.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    kernel: &'a mut Kernel,
    ours: Ours,
    started: Instant,
    serial: u32,
    batch: Vec<Sent>,
    /// What has come out on our side and was not compared yet, by side. Fragments come out when their datagram is whole.
    out: [Vec<Seen>; 2],
    /// Whether IPv6 datagrams are compared and not their fragments.
    pub(crate) joins: bool,
    restore: Vec<(String, String)>,
    /// Both sides' events, once somebody listens.
    ears: Option<Ears>,
    history: Vec<String>,
    /// Frames that the two disagreed about, and lists that differed.
    pub(crate) disagreements: Vec<String>,
    /// Frames sent.
    pub(crate) frames: u64,
}

impl<'a> Stage<'a> {
    /// Sets both sides up, with sets that rules may name, as `ipset save` prints them.
    #[must_use]
    pub(crate) fn new(kernel: &'a mut Kernel, setting: &Setting<'_>, sets: &str) -> Self {
        kernel.load_sets(sets);
        let started = Instant::now();
        let restore: Vec<_> =
            setting.sysctls.iter().map(|(name, _)| ((*name).to_owned(), kernel.sysctl(name))).collect();
        kernel.load(&[(Family::V4, setting.v4), (Family::V6, setting.v6)], setting.sysctls);
        let _ = kernel.collect();
        let known = Config::from_settings(&[format!("rules.timeout_policies={TIMEOUT_POLICIES:?}")]).unwrap();
        let (policies, labels) = (&known.rules.timeout_policies, LabelNames::none());
        let rules = |store: &Store| {
            let slots = store.slots();
            let named = Named { policies, sets: &slots, labels: &labels };
            let ruleset = |(family, text): (Family, &str)| {
                let text = if text.contains("*filter") {
                    text.to_owned()
                } else {
                    format!("{text}*filter\nCOMMIT\n")
                };
                let loaded = understand_with(text.as_bytes(), "scenario", family, named);
                loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
            };
            [(Family::V4, setting.v4), (Family::V6, setting.v6)].map(ruleset).to_vec()
        };
        // So many packet buffers that no fragment goes for want of one.
        let mut config =
            GatewayConfig { max_flows: 65_536, frames_per_worker: 65_536, ..GatewayConfig::default() };
        config.settings.answers = AnswerRate { per_sec: 0, ..config.settings.answers };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        config.settings.wall.set(Now::from_secs(1), i64::try_from(since_1970).unwrap(), minutes_west());
        let track = &mut config.settings.track;
        (track.half_open_percent, track.management_reserve_percent, track.adaptive_start_percent) =
            (100, 0, 0);
        for (name, value) in setting.sysctls {
            track.set(name, value).unwrap();
        }
        config.settings.policies = Policies::new(policies.clone().into(), &config.settings.track).unwrap();
        let ours = Ours::with_sets(sets, started, rules, &config);
        Self {
            kernel,
            ours,
            started,
            serial: 0,
            batch: Vec::new(),
            out: [Vec::new(), Vec::new()],
            joins: false,
            restore,
            ears: None,
            history: Vec::new(),
            disagreements: Vec::new(),
            frames: 0,
        }
    }

    /// What Linux is.
    #[must_use]
    pub(crate) const fn topology(&self) -> Topology {
        self.kernel.topology()
    }

    /// Our clock follows the real one.
    fn tick(&mut self) {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.ours.set_clock(Now::from_secs(1).plus_nanos(elapsed));
    }

    /// Sends a frame into one side of both.
    pub(crate) fn send(&mut self, side: PortId, frame: &[u8], note: &str) {
        let (side, mut frame) = (side.index(), frame.to_vec());
        self.serial += 1;
        number(&mut frame, self.serial);
        self.kernel.send(side, &frame);
        self.tick();
        let outcome = self.ours.send(if side == 0 { LEFT } else { RIGHT }, &frame);
        self.hear();
        self.frames += 1;
        let state = outcome.fate.and_then(|fate| fate.ct_state).map(CtState::name);
        self.out[1 - side].extend(outcome.forwarded.into_iter().map(|frame| Seen { frame, state }));
        self.batch.push(Sent { note: note.to_owned(), side, answers: outcome.answers, frame });
        if self.batch.len() >= BATCH {
            self.compare();
        }
    }

    /// Lets real time pass.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.compare();
        self.history.push(format!("... {time:?}"));
        std::thread::sleep(time);
        self.tick();
        self.ours.age();
        self.hear();
    }

    /// From here on both sides tell what happens to flows, printed with these options of conntrack's.
    pub(crate) fn listen(&mut self, options: &str, output: Output) {
        self.tick();
        self.ears = Some(Ears::new(self.kernel, &mut self.ours, options, output));
    }

    fn hear(&mut self) {
        if let Some(ears) = &mut self.ears {
            ears.hear(&self.ours.hear());
        }
    }

    /// Compares what was told since the last time.
    pub(crate) fn compare_events(&mut self) {
        self.compare();
        self.hear();
        let ears = self.ears.as_mut().expect("somebody listens");
        for difference in ears.differences(self.kernel) {
            self.note(difference, false);
        }
    }

    /// Compares what came of the frames sent so far.
    pub(crate) fn compare(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let topology = self.kernel.topology();
        let mut seen = self.kernel.collect();
        if self.joins {
            seen = seen.map(join);
            self.out = std::mem::take(&mut self.out).map(join);
        }
        for sent in std::mem::take(&mut self.batch) {
            let is_same = |seen: &Seen| same(&seen.frame, &sent.frame, topology);
            let said = |seen: Option<Seen>| match seen {
                None => "dropped",
                Some(seen) => seen.state.unwrap_or("no state"),
            };
            let kernel_said = said(take(&mut seen[1 - sent.side], is_same));
            let we_said = said(take(&mut self.out[1 - sent.side], is_same));
            let arrow = if sent.side == 0 { "->" } else { "<-" };
            let mut line = format!("{arrow} {}: kernel {kernel_said}, we {we_said}", sent.note);
            let mut agreed = kernel_said == we_said;
            for answer in &sent.answers {
                if take(&mut seen[sent.side], |seen| same_answer(&seen.frame, answer)).is_none() {
                    let _ = write!(line, "; only we answer {}", hex(answer));
                    agreed = false;
                }
            }
            self.note(line, agreed);
        }
        for (side, mut seen) in seen.into_iter().enumerate() {
            for ours in std::mem::take(&mut self.out[side]) {
                // Fragments with other headers than the first, or more than they should carry, do not leave as they
                // were sent, by either way.
                let is_same =
                    |seen: &Seen| seen.state == ours.state && same(&seen.frame, &ours.frame, topology);
                if take(&mut seen, is_same).is_none() {
                    let state = ours.state.unwrap_or("no state");
                    let frame = hex(&ours.frame);
                    self.note(format!("only we send out of side {side}: {state} {frame}"), false);
                }
            }
            for seen in seen {
                let state = seen.state.unwrap_or("no state");
                let frame = hex(&seen.frame);
                self.note(format!("only the kernel sends out of side {side}: {state} {frame}"), false);
            }
        }
    }

    fn note(&mut self, line: String, agreed: bool) {
        if !agreed {
            // Of several conversations the one in question.
            let tag =
                line.find('[').and_then(|from| line[from..].find(']').map(|len| &line[from..=from + len]));
            let same = |before: &&String| tag.is_none_or(|tag| before.contains(tag));
            let mut context: Vec<_> = self.history.iter().rev().filter(same).take(120).cloned().collect();
            context.reverse();
            let context = context.join("\n    ");
            self.disagreements.push(format!("{line}\n  after\n    {context}"));
        }
        self.history.push(line);
    }

    /// Both sides forget all connections and what they expected.
    pub(crate) fn forget(&mut self) {
        self.compare();
        self.kernel.forget();
        self.tick();
        self.ours.flush();
        self.hear();
    }

    /// Compares the lists of connections.
    pub(crate) fn compare_lists(&mut self) {
        self.compare();
        for family in [Family::V4, Family::V6] {
            let text = self.kernel.connections(family);
            let theirs = list::theirs(&text);
            self.tick();
            let ours = list::ours(self.ours.one(), family);
            let mut found = differences(&theirs, &ours);
            if found.is_empty() {
                // The same flows: then every line must be the same too, but for those about to end.
                let printed = list::lines(&list::our_text(self.ours.one(), family, &Output::default()));
                let known = list::lines(&text);
                found.extend(
                    printed
                        .into_iter()
                        .filter(|line| !known.contains(line))
                        .map(|line| format!("printed {line}")),
                );
            }
            for difference in found {
                self.note(format!("list: {difference}"), false);
            }
        }
    }

    /// Compares the lists of connections with their labels, but for those about to end.
    pub(crate) fn compare_labels(&mut self) {
        self.compare();
        self.tick();
        let output = Output { labels: true, ..Output::default() };
        for family in [Family::V4, Family::V6] {
            let theirs = list::lines(&self.kernel.connections_as(family, &["-o", "labels"]));
            let ours = list::lines(&list::our_text(self.ours.one(), family, &output));
            for line in ours.into_iter().filter(|line| !theirs.contains(line)) {
                self.note(format!("labels: only we: {line}"), false);
            }
            let theirs = self.kernel.connections_as(family, &["-o", "xml,labels"]);
            let output = Output { format: Format::Xml, ..output };
            let ours = list::our_text(self.ours.one(), family, &output);
            for difference in hear::differences(&theirs, &ours) {
                self.note(format!("labels: {difference}"), false);
            }
        }
    }

    /// Compares the lists of connections in the other forms that conntrack prints, but for those about to end.
    pub(crate) fn compare_forms(&mut self) {
        self.compare();
        self.tick();
        for family in [Family::V4, Family::V6] {
            for (option, format) in [("xml", Format::Xml), ("save", Format::Save)] {
                let theirs = self.kernel.connections_as(family, &["-o", option]);
                let output = Output { format, ..Output::default() };
                let ours = list::our_text(self.ours.one(), family, &output);
                for difference in hear::differences(&theirs, &ours) {
                    self.note(format!("{option}: {difference}"), false);
                }
            }
        }
    }

    /// Compares the connections that helpers expect, line by line but for their timers.
    pub(crate) fn compare_expectations(&mut self) {
        self.compare();
        self.tick();
        for family in [Family::V4, Family::V6] {
            let theirs = list::lines_of_expectations(&self.kernel.expectations(family));
            let ours = list::lines_of_expectations(&list::our_expectations(self.ours.one(), family));
            if theirs != ours {
                self.note(format!("expectations: kernel {theirs:#?}, we {ours:#?}"), false);
            }
        }
    }

    /// Both sides change their sets.
    pub(crate) fn change_sets(&mut self, commands: &str) {
        self.compare();
        self.kernel.ipset(&["restore"], commands);
        self.ours.change_sets(commands);
        self.history.push(commands.to_owned());
    }

    /// Compares what is in the sets.
    pub(crate) fn compare_sets(&mut self) {
        self.compare();
        let theirs = list::lines_of_sets(&self.kernel.ipset(&["save"], ""));
        let ours = self.ours.sets();
        if theirs != ours {
            self.note(format!("sets: kernel {theirs:#?}, we {ours:#?}"), false);
        }
    }

    /// The end: everything compared, sysctls put back. What the two disagreed about.
    #[must_use]
    pub(crate) fn end(mut self) -> Vec<String> {
        self.compare_lists();
        // The other way round: the kernel does not take a low threshold above the high one.
        for (name, value) in self.restore.iter().rev() {
            self.kernel.load(&[], &[(name, value)]);
        }
        self.disagreements
    }
}

fn same(a: &[u8], b: &[u8], topology: Topology) -> bool {
    comparable(a, topology) == comparable(b, topology)
}

/// A frame as far as it is compared. A bridge with br_netfilter cuts off what follows the IP packet, and gives
/// fragments of IPv6 that it has put together and taken apart a new identification; we leave both.
/// MAC addresses and hops are a router's own.
pub(crate) fn comparable(frame: &[u8], topology: Topology) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    let field =
        |at: usize| frame.get(at..at + 2).map(|len| usize::from(u16::from_be_bytes([len[0], len[1]])));
    let len = match frame.get(12..14) {
        Some([0x08, 0x00]) => field(16).map(|len| 14 + len),
        Some([0x86, 0xdd]) => field(18).map(|len| 54 + len),
        _ => None,
    };
    let mut bytes = frame[..len.unwrap_or(frame.len()).min(frame.len())].to_vec();
    if bytes.get(12..14) == Some(&[0x86, 0xdd]) && bytes.get(20) == Some(&FRAGMENT) && bytes.len() >= 62 {
        bytes[58..62].fill(0);
        // The flow label is the first fragment's.
        bytes[15] &= 0xf0;
        bytes[16..18].fill(0);
    }
    if topology == Topology::Router && bytes.len() >= 34 {
        bytes[..12].fill(0);
        // TTL and the checksum over it, or the hop limit.
        let hops: &[usize] = if bytes[12..14] == [0x08, 0x00] { &[22, 24, 25] } else { &[21] };
        for &at in hops {
            bytes[at] = 0;
        }
    }
    bytes
}

fn take(seen: &mut Vec<Seen>, fits: impl Fn(&Seen) -> bool) -> Option<Seen> {
    let at = seen.iter().position(fits)?;
    Some(seen.remove(at))
}

/// Answers are compared but for what a host chooses freely: identification, TTL and with them the header checksum. ICMP
/// errors also but for their source, which a wire has not got, and for the hops of the packet they are about, which a
/// router has counted; and so without their checksum.
fn same_answer(theirs: &[u8], ours: &[u8]) -> bool {
    let comparable = |frame: &[u8]| -> Option<Vec<u8>> {
        let is_v4 = frame.get(12..14)? == [0x08, 0x00];
        let (proto, src, dst, l4) =
            if is_v4 { (*frame.get(23)?, 26, 30, 34) } else { (*frame.get(20)?, 22, 38, 54) };
        if !matches!(proto, proto::ICMP | proto::ICMPV6) {
            // What follows a reset is padding.
            return Some(frame.get(src..)?.iter().copied().take(l4 - src + 20).collect());
        }
        let mut frame = frame.to_vec();
        let about = l4 + 8;
        let hops: &[usize] = if is_v4 { &[8, 10, 11] } else { &[7] };
        hops.iter().for_each(|at| frame.get_mut(about + at).into_iter().for_each(|byte| *byte = 0));
        frame.get_mut(l4 + 2..l4 + 4)?.fill(0);
        Some(frame.split_off(dst))
    };
    comparable(theirs).is_some() && comparable(theirs) == comparable(ours)
}

/// Writes a serial number where tracking does not look: IPv4's identification, IPv6's flow label. Fragments keep theirs.
fn number(frame: &mut [u8], serial: u32) {
    let [_, high, mid, low] = serial.to_be_bytes();
    match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() >= 34 && frame[14] >> 4 == 4 => {
            let is_fragment = u16::from_be_bytes([frame[20], frame[21]]) & 0x3fff != 0;
            let was_right = checksum_is_right(frame);
            if !is_fragment && was_right {
                frame[18..20].copy_from_slice(&[mid, low]);
                reseal(frame);
            }
        }
        Some([0x86, 0xdd]) if frame.len() >= 54 => {
            let label = [frame[15] & 0xf0 | high & 0x0f, mid, low];
            frame[15..18].copy_from_slice(&label);
        }
        _ => {}
    }
}

fn checksum_is_right(frame: &[u8]) -> bool {
    let mut sealed = frame.to_vec();
    reseal(&mut sealed);
    sealed == frame
}

/// Bytes for reading.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(200).fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
