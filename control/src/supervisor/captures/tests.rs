//! Capture files, read back by what reads captures here, and put aside when they are full.

use super::*;
use dataplane::clock::Now;
use dataplane::ids::PortId;
use dataplane::rules::interned::Interned;
use dataplane::rules::log::{LogSpec, LogTo};
use dataplane::worker::Why;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

const NICS: [&str; 2] = ["eth0", "eth1"];

fn config(dir: Option<&Path>) -> LogConfig {
    LogConfig {
        nflog_dir: dir.map(Path::to_owned),
        nflog_file_kib: 64,
        nflog_files: 3,
        ..LogConfig::default()
    }
}

fn note() -> Note {
    let spec = LogSpec { prefix: "two words".into(), to: LogTo::Capture { group: 5, size: None } };
    Note {
        at: Now::from_secs(1),
        ingress: PortId(1),
        egress: Some(PortId(0)),
        l3_offset: 14,
        frame_len: 1000,
        mark: 7,
        state: Some(CtState::New),
        why: Why::Rule { spec: Interned::new(spec), id: RuleId(0xabc) },
        len: 100,
    }
}

fn write(captures: &mut Captures, group: u16, content: u8) {
    let note = note();
    let around = Around { prefix: "two words", ingress: "eth1", egress: "eth0", mark: 7 };
    let packet = Packet {
        at: Duration::new(1_700_000_000, 123_456_789),
        note: &note,
        around: &around,
        rule: RuleId(0xabc),
        bytes: &[content; 100],
    };
    captures.write(group, &NICS, &packet);
}

/// Of a packet interface, time, first byte, length and comment.
type Read = (u32, Duration, u8, u32, String);

/// Interface names and packets.
fn read(path: &Path) -> (Vec<String>, Vec<Read>) {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let (mut names, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(nic) => {
                names.extend(nic.options.iter().filter_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                }));
            }
            Block::EnhancedPacket(packet) => {
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                    _ => None,
                });
                packets.push((
                    packet.interface_id,
                    packet.timestamp,
                    packet.data[0],
                    packet.original_len,
                    comment.unwrap(),
                ));
            }
            _ => {}
        }
    }
    (names, packets)
}

#[test]
fn a_group_has_a_file_that_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    for content in [1, 2] {
        let mut captures = Captures::new(&config(Some(dir.path())));
        write(&mut captures, 5, content);
        write(&mut captures, 6, content);
        captures.flush();
        assert!(captures.complaints().is_empty());
    }
    let (names, packets) = read(&dir.path().join("nflog-5.pcapng"));
    assert_eq!(names, ["eth0", "eth1", "eth0", "eth1"], "a section for each time it was opened");
    let expected = |content| {
        let comment = "rule=0000000000000abc ct=NEW in=eth1 out=eth0 mark=0x7 prefix=two words";
        (1, Duration::new(1_700_000_000, 123_456_789), content, 1000, comment.to_owned())
    };
    assert_eq!(packets, [expected(1), expected(2)]);
    assert!(dir.path().join("nflog-6.pcapng").exists());
}

#[test]
fn full_files_are_put_aside_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut captures = Captures::new(&config(Some(dir.path())));
    // Each packet takes more than 200 bytes: some 300 fill a file.
    for _ in 0..3000 {
        write(&mut captures, 0, 9);
    }
    captures.flush();
    let mut sizes: Vec<(String, u64)> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    sizes.sort();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["nflog-0.1.pcapng", "nflog-0.2.pcapng", "nflog-0.pcapng"]);
    assert!(sizes.iter().all(|(_, size)| *size < 66 * 1024), "{sizes:?}");
    assert!(read(&dir.path().join("nflog-0.2.pcapng")).1.len() > 200);
    assert_eq!(captures.lost(), 0);
}

#[test]
fn many_groups_share_a_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut captures = Captures::new(&config(Some(dir.path())));
    for round in 0..2 {
        for group in 0..200 {
            write(&mut captures, group, round);
        }
    }
    captures.flush();
    assert!(captures.open.len() <= OPEN_MAX);
    drop(captures);
    for group in 0..200 {
        assert_eq!(read(&dir.path().join(format!("nflog-{group}.pcapng"))).1.len(), 2);
    }
}

#[test]
fn what_cannot_be_written_is_complained_of() {
    let mut captures = Captures::new(&config(None));
    write(&mut captures, 3, 1);
    write(&mut captures, 3, 1);
    let said = captures.complaints();
    assert!(said.len() == 1 && said[0].contains("group 3") && said[0].contains("log.nflog_dir"), "{said:?}");
    write(&mut captures, 3, 1);
    assert!(captures.complaints().is_empty(), "once is enough");
    assert_eq!(captures.lost(), 3);
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let mut captures = Captures::new(&config(Some(&blocked)));
    write(&mut captures, 3, 1);
    let said = captures.complaints();
    assert!(said.len() == 1 && said[0].starts_with("1 packets of NFLOG rules"), "{said:?}");
}
