//! Seeded random trains of fragments: datagrams cut at random, pieces lost, repeated, reordered, moved, overlapping,
//! empty, of odd lengths or far away, several datagrams at a time; ECN marks changed on the way. Both families.

use super::kernel::Topology;
use super::random::Random;
use super::stage::Setting;
use super::talk::{Client, Talk, perform};
use dataplane::testing::packets::{icmp, ip, tcp, udp};
use std::env;

/// Trains of a run in CI, of each family.
const TRAINS: u64 = 2_000;

/// A piece of a datagram: where it starts and ends, whether more is said to follow, its ECN bits, and whether the rest
/// of its header is another than that of its datagram's other pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    from: usize,
    to: usize,
    more: bool,
    ecn: u8,
    is_odd: bool,
}

/// The furthest that a header can say.
const OFFSET_MAX: usize = 65_528;

/// Pieces in the order in which they are sent, of what, and under which identification.
struct Train {
    whole: Vec<u8>,
    id: u16,
    cuts: Vec<Cut>,
}

/// A frame with a part of `whole`'s payload; what lies behind its end is made up.
fn frame(whole: &[u8], id: u16, cut: Cut) -> Vec<u8> {
    let Cut { from, to, more, ecn, is_odd } = cut;
    let header_len = if whole[12] == 0x08 { 34 } else { 54 };
    let payload = (from..to).map(|at| whole.get(header_len + at).copied().unwrap_or(0xee));
    let mut frame = whole[..header_len].to_vec();
    if is_odd {
        (frame[5], frame[11]) = (0x33, 0x44);
        frame[if header_len == 34 { 22 } else { 21 }] = 33;
    }
    if header_len == 34 {
        frame.extend(payload);
        let len = u16::try_from(frame.len() - 14).unwrap();
        frame[15] = ecn;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let field = u16::try_from(from / 8).unwrap() | u16::from(more) << 13 | u16::from(is_odd) << 14;
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        super::kernel::reseal(&mut frame);
        return frame;
    }
    frame[15] |= ecn << 4;
    frame[20] = 44;
    frame.extend([whole[20], 0]);
    frame.extend((u16::try_from(from).unwrap() | u16::from(more)).to_be_bytes());
    frame.extend(u32::from(id).to_be_bytes());
    frame.extend(payload);
    let len = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).unwrap()
}

fn datagram(talk: &Talk<'_>, random: &mut Random, id: u16, first_min: usize) -> Vec<u8> {
    let (client, server) = talk.addresses(Client);
    let len = random.pick(&[24, 40, 64, 100, 131, 200, 400, 1000, 3000]).max(2 * first_min);
    let body: Vec<u8> = (0..len).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    let built = match random.below(6) {
        0 => tcp(client, server).ports(id, 80).syn(),
        1 => icmp(client, server, if talk.six { 128 } else { 8 }, 0).id(id),
        2 => ip(client, server, 253),
        _ => udp(client, server).ports(id, 53),
    };
    let built = built.payload(&body);
    if random.one_in(12) { built.bad_checksum().build() } else { built.build() }
}

/// A datagram cut into pieces, none of which is nearly all of it: the kernel would send that one on as a whole.
fn cuts(random: &mut Random, len: usize, first_min: usize) -> Vec<Cut> {
    let units = len.div_ceil(8);
    let mut places = Vec::new();
    for _ in 0..=random.below(6) {
        places.push((1 + below(random, units - 1)) * 8);
    }
    places.extend([units / 2 * 8, 0]);
    places.retain(|place| *place == 0 || *place >= first_min);
    places.sort_unstable();
    places.dedup();
    let ends = places.iter().skip(1).copied().chain([len]);
    let mut cuts: Vec<Cut> =
        places.iter().zip(ends).map(|(&from, to)| Cut { from, to, more: true, ..Cut::default() }).collect();
    cuts.last_mut().unwrap().more = false;
    cuts
}

/// Does something to a train that the sender of its datagram did not.
fn disturb(random: &mut Random, cuts: &mut Vec<Cut>, len: usize) {
    const FAR: [usize; 8] = [65_528, 65_520, 65_504, 65_000, 60_000, 32_768, 8_192, 4_096];
    let at = match random.below(4) {
        0 => 0,
        1 => cuts.len() - 1,
        _ => below(random, cuts.len()),
    };
    let units = |random: &mut Random| (1 + below(random, 3)) * 8;
    let cut = cuts[at];
    let changed = match random.below(12) {
        0 => {
            cuts.remove(at);
            if cuts.is_empty() {
                cuts.push(cut);
            }
            return;
        }
        1 => cut,
        2 => Cut { from: cut.from.saturating_sub(units(random)), ..cut },
        3 => Cut { from: (cut.from + units(random)).min(cut.to & !7), ..cut },
        4 => Cut { to: cut.to + units(random), ..cut },
        5 => Cut { to: cut.to.saturating_sub(units(random)).max(cut.from), ..cut },
        6 => Cut { to: (cut.to + below(random, 8)).saturating_sub(below(random, 8)).max(cut.from), ..cut },
        7 => Cut { more: !cut.more, ..cut },
        8 => Cut { to: cut.from, ..cut },
        9 => {
            let from = below(random, len.div_ceil(8)) * 8;
            Cut { from, to: (from + units(random)).min(len.max(from)), more: random.one_in(2), ..cut }
        }
        10 => {
            let from = random.pick(&FAR);
            Cut { from, to: from + units(random) + below(random, 9), ..cut }
        }
        _ => Cut { from: cut.from.saturating_sub(8), to: cut.to + 8, ..cut },
    };
    // As a piece of its own, or in place of the one that it was.
    if random.one_in(2) {
        cuts[at] = changed;
    } else {
        cuts.insert(below(random, cuts.len() + 1), changed);
    }
}

fn train(talk: &Talk<'_>, random: &mut Random, id: u16, first_min: usize) -> Train {
    let whole = datagram(talk, random, id, first_min);
    let len = whole.len() - if talk.six { 54 } else { 34 };
    let mut all = cuts(random, len, first_min);
    for _ in 0..random.below(4) {
        disturb(random, &mut all, len);
    }
    match random.below(4) {
        0 => {}
        1 => all.reverse(),
        _ => {
            for at in (1..all.len()).rev() {
                all.swap(at, below(random, at + 1));
            }
        }
    }
    // One mark on all pieces, as a rule.
    let mark = random.pick(&[0, 0, 1, 2, 3]);
    let is_mixed = random.one_in(6);
    for cut in &mut all {
        cut.ecn = if is_mixed && random.one_in(3) { u8::try_from(random.below(4)).unwrap() } else { mark };
        cut.is_odd = random.one_in(8);
        cut.from = cut.from.min(OFFSET_MAX);
        cut.to = cut.to.clamp(cut.from, cut.from + len.saturating_sub(16));
        if cut.from == 0 && cut.to > 0 {
            cut.to = cut.to.max(first_min);
        }
        // All of a datagram in one fragment is no fragment: to IPv4 anyway, to us of IPv6 (RFC 6946).
        cut.more |= cut.from == 0;
    }
    let longest = all.iter().map(|cut| cut.to - cut.from).max().unwrap_or(0);
    for cut in &mut all {
        // The kernel sends on as one packet what is no longer than its longest fragment, which is eight bytes of header
        // longer.
        cut.more |= cut.to <= longest + 8;
    }
    Train { whole, id, cuts: all }
}

/// Bytes of a first piece so that it holds any header: a router pulls the header of a segment together, and then cuts
/// the whole anew.
const FIRST_MIN: usize = 40;

/// Sends several trains at a time, a piece of one and a piece of another, and then something that makes both sides give
/// up what they still hold of them.
fn run(talk: &mut Talk<'_>, seed: u64, trains: u64) {
    let mut random = Random(seed | 1);
    let first_min = if talk.stage.topology() == Topology::Router { FIRST_MIN } else { 0 };
    let mut id = 0;
    let mut sent = 0;
    while sent < trains && talk.stage.disagreements.len() < 20 {
        let mut together: Vec<Train> = Vec::new();
        for _ in 0..=random.below(4) {
            id += 1;
            sent += 1;
            let mut next = train(talk, &mut random, id, first_min);
            next.cuts.reverse();
            together.push(next);
        }
        let mut on_the_way: Vec<usize> = (0..together.len()).collect();
        while !on_the_way.is_empty() {
            let at = below(&mut random, on_the_way.len());
            let Train { whole, id, cuts } = &mut together[on_the_way[at]];
            match cuts.pop() {
                Some(cut) => {
                    let note = format!("[{id}] of {}: {cut:?}", whole.len());
                    talk.stage.send(Client.side(), &frame(whole, *id, cut), &note);
                }
                None => {
                    on_the_way.swap_remove(at);
                }
            }
        }
        for Train { whole, id, .. } in &together {
            let cut = Cut { from: 8, to: if talk.six { 13 } else { 8 }, more: true, ..Cut::default() };
            talk.stage.send(Client.side(), &frame(whole, *id, cut), &format!("[{id}] the end"));
        }
        if sent % 200 < together.len() as u64 {
            talk.stage.compare_lists();
            talk.stage.forget();
        }
    }
}

#[test]
fn random_trains_are_put_together_alike() {
    let number = |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, trains) = (number("PALISADE_SEED", 0x5eed), number("PALISADE_TRAINS", TRAINS));
    println!("PALISADE_SEED={seed} PALISADE_TRAINS={trains}");
    let plain = Setting { v4: "", v6: "", sysctls: &[] };
    let v4 = |talk: &mut Talk<'_>| run(talk, seed, trains);
    let v6 = |talk: &mut Talk<'_>| {
        talk.six = true;
        run(talk, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), trains);
    };
    perform(&[("IPv4", plain, &v4), ("IPv6", plain, &v6)]);
}
