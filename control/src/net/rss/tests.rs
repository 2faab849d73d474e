use super::*;
use std::cell::RefCell;

/// A NIC that takes what its driver takes.
#[derive(Debug)]
struct Fake {
    config: RefCell<Option<HashConfig>>,
    fields: RefCell<[Option<u64>; 6]>,
    takes_key: bool,
    takes_table: bool,
    /// Flow types whose fields may be set.
    takes_fields: [bool; 6],
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

fn at(flow: FlowType) -> usize {
    FlowType::ALL.iter().position(|known| *known == flow).unwrap()
}

impl Fake {
    /// As drivers come: a random key, UDP and SCTP by addresses.
    fn new(entries: u32) -> Self {
        let config = HashConfig {
            indirection: (0..entries).map(|entry| entry % 4).collect(),
            key: (0..52).collect(),
            function: TOEPLITZ,
            transform: 1,
        };
        let fields = FlowType::ALL.map(|flow| match flow.proto {
            proto::TCP => Some(WITH_PORTS),
            proto::UDP => Some(ADDRESSES),
            _ => None,
        });
        let takes_fields = fields.map(|fields| fields.is_some());
        Self {
            config: RefCell::new(Some(config)),
            fields: RefCell::new(fields),
            takes_key: true,
            takes_table: true,
            takes_fields,
        }
    }
}

impl Rss for Fake {
    fn config(&self) -> io::Result<HashConfig> {
        self.config.borrow().clone().map_or_else(refused, Ok)
    }

    fn set_config(&self, new: &HashConfig) -> io::Result<()> {
        let mut config = self.config.borrow_mut();
        let Some(config) = config.as_mut() else { return refused() };
        let sets_key = new.key != config.key || new.transform != config.transform;
        let sets_table = !new.indirection.is_empty() && new.indirection != config.indirection;
        if sets_key && !self.takes_key || sets_table && !self.takes_table {
            return refused();
        }
        let indirection =
            if new.indirection.is_empty() { &config.indirection } else { &new.indirection }.clone();
        *config = HashConfig { indirection, ..new.clone() };
        Ok(())
    }

    fn fields(&self, flow: FlowType) -> io::Result<u64> {
        self.fields.borrow()[at(flow)].map_or_else(refused, Ok)
    }

    fn set_fields(&self, flow: FlowType, fields: u64) -> io::Result<()> {
        if !self.takes_fields[at(flow)] {
            return refused();
        }
        self.fields.borrow_mut()[at(flow)] = Some(fields);
        Ok(())
    }
}

const SCTP4: FlowType = FlowType { proto: proto::SCTP, family: Family::V4 };
const UDP6: FlowType = FlowType { proto: proto::UDP, family: Family::V6 };

/// Buckets of four workers with a queue each.
fn queues() -> [u32; BUCKETS] {
    std::array::from_fn(|bucket| u32::try_from(bucket % 4).unwrap())
}

#[test]
fn a_willing_nic_is_made_ours_and_put_back() {
    for entries in [64, 128, 512] {
        let nic = Fake::new(entries);
        nic.config.borrow_mut().as_mut().unwrap().indirection.reverse();
        let before = Before::read(&nic);
        let mut done = agree(&nic, true);
        assert!(point(&nic, &mut done, &queues(), true));
        assert_eq!((done.state, done.is_movable, &done.refused), (RssState::Agrees, true, &Vec::new()));
        let now = nic.config().unwrap();
        assert_eq!((now.key, now.transform), (symmetric_key(52), 0));
        assert_eq!(now.indirection[..8], [0, 1, 2, 3, 0, 1, 2, 3]);
        assert!(done.fields.has_ports(UDP6) && !done.fields.has_ports(SCTP4));
        assert_ne!(Before::read(&nic), before);
        assert_eq!(before.restore(&nic), Vec::<String>::new());
        assert_eq!(Before::read(&nic), before);
    }
}

#[test]
fn what_a_nic_refuses_is_said() {
    let nic = Fake { takes_key: false, ..Fake::new(128) };
    let mut done = agree(&nic, true);
    assert_eq!(done.state, RssState::Differs);
    assert!(done.refused[0].contains("key cannot be set"), "{:?}", done.refused);
    assert!(point(&nic, &mut done, &queues(), true), "its table is right all the same");
    assert_eq!(done.state, RssState::Differs);

    let nic = Fake { takes_table: false, ..Fake::new(128) };
    nic.config.borrow_mut().as_mut().unwrap().indirection[5] = 0;
    let mut done = agree(&nic, true);
    assert_eq!(done.state, RssState::Agrees);
    assert!(!point(&nic, &mut done, &queues(), true));
    assert_eq!((done.state, done.is_movable), (RssState::Differs, false));
    assert!(done.refused[0].contains("table cannot be set"), "{:?}", done.refused);

    let nic = Fake { config: RefCell::new(None), ..Fake::new(128) };
    let mut done = agree(&nic, true);
    assert_eq!((done.state, done.entries), (RssState::Differs, 0));
    assert!(done.refused[0].contains("no RSS"), "{:?}", done.refused);
    assert!(!point(&nic, &mut done, &queues(), true));
    assert_eq!(Before::read(&nic).restore(&nic), Vec::<String>::new());
}

#[test]
fn a_nic_that_is_left_alone_is_only_looked_at() {
    let nic = Fake::new(128);
    let before = Before::read(&nic);
    let mut done = agree(&nic, false);
    assert!(point(&nic, &mut done, &queues(), false), "its table happens to be right");
    assert_eq!(done.state, RssState::Differs);
    assert!(!done.is_movable);
    assert_eq!(Before::read(&nic), before);
}

#[test]
fn ports_are_hashed_where_all_nics_can() {
    let (mut able, mut unable) = (Fake::new(128), Fake::new(128));
    unable.takes_fields[at(UDP6)] = false;
    let mut done = [agree(&able, true), agree(&unable, true)];
    let common = done.iter().fold(Fields::ALL, |all, one| all.and(one.fields));
    assert!(!common.has_ports(UDP6) && common.has_ports(FlowType { family: Family::V4, ..UDP6 }));
    narrow(&able, &mut done[0], common, true);
    narrow(&unable, &mut done[1], common, true);
    assert_eq!(able.fields(UDP6).unwrap(), ADDRESSES);
    assert!(done.iter().all(|done| done.refused.is_empty()));
    // One that will not go back says so.
    able.takes_fields[at(UDP6)] = false;
    able.set_fields(FlowType { family: Family::V4, ..UDP6 }, ADDRESSES).unwrap();
    able.fields.borrow_mut()[at(UDP6)] = Some(WITH_PORTS);
    narrow(&able, &mut done[0], common, true);
    assert!(done[0].refused[0].contains("udp6"), "{:?}", done[0].refused);
}
