//! `-o xml`.

use super::action::Output;
use super::facts::Facts;
use crate::api::types::{EventKind, ExpectRow, Family, FlowKey, FlowSide, proto_name};
use chrono::{DateTime, Datelike as _, Local, TimeZone as _, Timelike as _};
use std::io::{self, Write};
use std::net::IpAddr;

/// A document: begins with its first element, so that nothing is printed of nothing.
#[derive(Debug)]
pub(super) struct Document {
    name: &'static str,
    is_open: bool,
}

impl Document {
    /// One whose root has this name; `None` in every other format.
    pub(super) fn of(name: &'static str, output: &Output) -> Option<Self> {
        (output.format == super::action::Format::Xml).then_some(Self { name, is_open: false })
    }

    /// An element follows.
    pub(super) fn open(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.is_open, true) {
            return Ok(());
        }
        writeln!(out, "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<{}>", self.name)
    }

    /// None does.
    pub(super) fn close(self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_open { writeln!(out, "</{}>", self.name) } else { Ok(()) }
    }
}

/// One flow.
pub(super) fn write_flow(facts: &Facts<'_>, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    let row = facts.row;
    let mut xml = Vec::with_capacity(1024);
    match facts.kind {
        None => write!(xml, "<flow>")?,
        Some(kind) => write!(xml, "<flow type=\"{}\">", event(kind))?,
    }
    for (side, name) in [(&row.orig, "original"), (&row.reply, "reply")] {
        write!(xml, "<meta direction=\"{name}\">")?;
        write_side(side, row.family, row.proto, facts.counters, &mut xml)?;
        write!(xml, "</meta>")?;
    }
    write!(xml, "<meta direction=\"independent\">")?;
    if let Some(state) = facts.state {
        write!(xml, "<state>{state}</state>")?;
    }
    if let Some(secs) = facts.timer {
        write!(xml, "<timeout>{secs}</timeout>")?;
    }
    if let Some(mark) = facts.mark {
        write!(xml, "<mark>{mark}</mark>")?;
    }
    if output.labels && !facts.labels.is_empty() {
        let labels = facts.labels.iter().map(|label| format!("<label>{label}</label>"));
        write!(xml, "<labels>{}</labels>", labels.collect::<String>())?;
    }
    if row.zone != 0 {
        write!(xml, "<zone>{}</zone>", row.zone)?;
    }
    if facts.kind.is_none() {
        write!(xml, "<use>1</use>")?;
    }
    write!(xml, "<id>{}</id>", row.id)?;
    if row.assured {
        write!(xml, "<assured/>")?;
    }
    if !row.seen_reply {
        write!(xml, "<unreplied/>")?;
    }
    if let Some((start, secs)) = facts.lasted() {
        if output.ktimestamp {
            // In nanoseconds.
            write!(xml, "<timestamp><start>{start}000000</start>")?;
            if let Some(stop) = row.stop_ms {
                write!(xml, "<stop>{stop}000000</stop>")?;
            }
            write!(xml, "</timestamp>")?;
        }
        write!(xml, "<deltatime>{secs}</deltatime>")?;
    }
    write!(xml, "</meta>")?;
    if let Some(helper) = facts.helper {
        write!(xml, "<helper>{helper}</helper>")?;
    }
    if let (Some(at_us), true) = (facts.at_us, output.timestamp) {
        write_when(at_us, &mut xml)?;
    }
    write!(xml, "</flow>")?;
    if facts.asked {
        write!(xml, " [USERSPACE]")?;
    }
    xml.push(b'\n');
    out.write_all(&xml)
}

/// One expectation; `event` is what happened to it and when, if that is what is told.
pub(super) fn write_expectation(
    row: &ExpectRow,
    event_at: Option<(EventKind, u64)>,
    output: &Output,
    out: &mut dyn Write,
) -> io::Result<()> {
    let ExpectRow { family, proto, timeout_secs, src, dst, dport, master, helper, zone: _ } = row;
    let mut xml = Vec::with_capacity(1024);
    match event_at {
        None => write!(xml, "<flow>")?,
        Some((kind, _)) => write!(xml, "<flow type=\"{}\">", event(kind))?,
    }
    let mask = super::expect::mask(*family);
    let ends = |src: IpAddr, dst: IpAddr| format!("<src>{src}</src><dst>{dst}</dst>");
    let ports = |sport: u16, dport: u16| format!("<sport>{sport}</sport><dport>{dport}</dport>");
    let (sport, port) = match master.key {
        FlowKey::Ports { sport, dport } => (sport, dport),
        _ => (0, 0),
    };
    write_layer3(*family, &mut xml)?;
    for (name, addresses) in
        [("expected", ends(*src, *dst)), ("mask", ends(mask, mask)), ("master", ends(master.src, master.dst))]
    {
        write!(xml, "<{name}>{addresses}</{name}>")?;
    }
    write!(xml, "</layer3><layer4 protonum=\"{proto}\" protoname=\"{}\">", proto_name(*proto))?;
    for (name, ports) in
        [("expected", ports(0, *dport)), ("mask", ports(0, u16::MAX)), ("master", ports(sport, port))]
    {
        write!(xml, "<{name}>{ports}</{name}>")?;
    }
    write!(xml, "</layer4><meta><helper-name>{helper}</helper-name><timeout>{timeout_secs}</timeout>")?;
    write!(xml, "<class>0</class>")?;
    if let (Some((_, at_us)), true) = (event_at, output.timestamp) {
        write_when(at_us, &mut xml)?;
    }
    writeln!(xml, "</meta></flow>")?;
    out.write_all(&xml)
}

const fn event(kind: EventKind) -> &'static str {
    match kind {
        EventKind::New => "new",
        EventKind::Update => "update",
        EventKind::Destroy => "destroy",
    }
}

fn write_layer3(family: Family, xml: &mut Vec<u8>) -> io::Result<()> {
    let (number, name) = if family == Family::V4 { (2, "ipv4") } else { (10, "ipv6") };
    write!(xml, "<layer3 protonum=\"{number}\" protoname=\"{name}\">")
}

fn write_side(
    side: &FlowSide,
    family: Family,
    proto: u8,
    counters: bool,
    xml: &mut Vec<u8>,
) -> io::Result<()> {
    let FlowSide { src, dst, key, zone, packets, bytes } = side;
    write_layer3(family, xml)?;
    write!(xml, "<src>{src}</src><dst>{dst}</dst></layer3>")?;
    write!(xml, "<layer4 protonum=\"{proto}\" protoname=\"{}\">", proto_name(proto))?;
    match key {
        FlowKey::Ports { sport, dport } => write!(xml, "<sport>{sport}</sport><dport>{dport}</dport>")?,
        FlowKey::Gre { srckey, dstkey } => {
            write!(xml, "<srckey>{srckey:#x}</srckey><dstkey>{dstkey:#x}</dstkey>")?;
        }
        // conntrack leaves out what tells ICMP queries apart.
        FlowKey::Icmp { .. } | FlowKey::None {} => {}
    }
    write!(xml, "</layer4>")?;
    if *zone != 0 {
        write!(xml, "<zone>{zone}</zone>")?;
    }
    match (packets, bytes) {
        (Some(packets), Some(bytes)) if counters => {
            write!(xml, "<counters><packets>{packets}</packets><bytes>{bytes}</bytes></counters>")
        }
        _ => Ok(()),
    }
}

/// A time in the operator's time zone; a week begins with day one, Sunday.
fn write_when(micros: u64, xml: &mut Vec<u8>) -> io::Result<()> {
    let time: Option<DateTime<Local>> =
        i64::try_from(micros).ok().and_then(|micros| Local.timestamp_micros(micros).single());
    let Some(time) = time else { return Ok(()) };
    write!(
        xml,
        "<when><hour>{}</hour><min>{:02}</min><sec>{:02}</sec><wday>{}</wday><day>{}</day><month>{}</month>\
         <year>{}</year></when>",
        time.hour(),
        time.minute(),
        time.second(),
        time.weekday().number_from_sunday(),
        time.day(),
        time.month(),
        time.year()
    )
}
