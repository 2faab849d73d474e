//! What `fwctl top` knows and what the operator has chosen. Pure: answers and keys go in, with the time; what is to be asked
//! next comes out.

use super::filter::Filter;
use super::rates::{Rates, sum};
use crate::api::types::{HistoryReport, Rate, Stats, TopBy, TopReport};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Values kept for sparklines: more than any terminal is wide.
const HISTORY: usize = 512;

/// Intervals that `+` and `-` go through, in milliseconds.
const INTERVALS_MS: [u64; 6] = [500, 1000, 2000, 3000, 5000, 10_000];

/// Entries asked for: more than a screen has lines.
const ENTRIES: u16 = 200;

/// What is on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Flows,
    Hosts,
    Services,
    Rules,
    Drops,
    Workers,
}

impl Tab {
    pub(super) const ALL: [Self; 7] =
        [Self::Overview, Self::Flows, Self::Hosts, Self::Services, Self::Rules, Self::Drops, Self::Workers];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Flows => "Flows",
            Self::Hosts => "Hosts",
            Self::Services => "Services",
            Self::Rules => "Rules",
            Self::Drops => "Drops",
            Self::Workers => "Workers",
        }
    }
}

/// Whose traffic is added up by host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Both ends of each flow.
    Both,
    /// Who began it.
    Sources,
    /// With whom.
    Destinations,
}

/// What the daemon is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) interval: Duration,
    pub(super) by: TopBy,
    pub(super) entries: u16,
    pub(super) filter: Filter,
}

impl Ask {
    /// The request.
    pub(super) fn target(&self) -> String {
        let Self { interval, by, entries, filter } = self;
        let by = match by {
            TopBy::Bytes => "bytes",
            TopBy::Packets => "packets",
            TopBy::New => "new",
        };
        format!("/v1/top?interval_ms={}&by={by}&n={entries}{}", interval.as_millis(), filter.query)
    }
}

/// What came of asking.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Counters, and the changes of the rules.
    Counters(Box<Stats>, Box<HistoryReport>),
    /// Flows, hosts, services and rules, as an [`Ask`] wanted them.
    Top(Ask, Box<TopReport>),
    /// The daemon says no: a sentence.
    Refused(String),
    /// The daemon is not there: a sentence.
    Gone(String),
}

/// Past values of something, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Past(VecDeque<u64>);

impl Past {
    fn push(&mut self, value: u64) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.0.iter().copied()
    }
}

/// What comes in and goes out, now and before.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub(super) now: Rate,
    pub(super) past: Past,
}

impl Traffic {
    fn push(&mut self, rate: Rate) {
        self.now = rate;
        self.past.push(rate.bits_per_sec);
    }
}

/// Everything there is to draw.
#[derive(Debug)]
pub(super) struct State {
    pub(super) ask: Ask,
    pub(super) tab: Tab,
    pub(super) ends: Ends,
    pub(super) is_paused: bool,
    pub(super) is_help: bool,
    /// A filter being typed, and what is wrong with it.
    pub(super) typing: Option<(String, Option<String>)>,
    /// Lines scrolled down.
    pub(super) scroll: usize,
    /// The last counters.
    pub(super) stats: Option<Box<Stats>>,
    pub(super) history: Box<HistoryReport>,
    /// Between the last two counters.
    pub(super) rates: Option<Rates>,
    /// All NICs together.
    pub(super) rx: Traffic,
    pub(super) tx: Traffic,
    /// By NIC: what it received and sent together.
    pub(super) ports: Vec<Past>,
    pub(super) top: Option<Box<TopReport>>,
    /// Why there is nothing new.
    pub(super) trouble: Option<String>,
    /// When the last answer came.
    pub(super) answered: Instant,
    pub(super) is_over: bool,
}

impl State {
    pub(super) fn new(ask: Ask, now: Instant) -> Self {
        Self {
            ask,
            tab: Tab::Overview,
            ends: Ends::Both,
            is_paused: false,
            is_help: false,
            typing: None,
            scroll: 0,
            stats: None,
            history: Box::default(),
            rates: None,
            rx: Traffic::default(),
            tx: Traffic::default(),
            ports: Vec::new(),
            top: None,
            trouble: None,
            answered: now,
            is_over: false,
        }
    }

    /// Takes an answer in. While paused, none.
    pub(super) fn take(&mut self, answer: Answer, now: Instant) {
        if self.is_paused {
            return;
        }
        match answer {
            Answer::Counters(stats, history) => {
                self.answered = now;
                self.trouble = None;
                self.history = history;
                self.take_stats(stats);
            }
            // Nobody wants an answer to what was asked before.
            Answer::Top(ask, report) if ask == self.ask => {
                self.answered = now;
                self.top = Some(report);
            }
            Answer::Top(..) => {}
            Answer::Refused(why) | Answer::Gone(why) => self.trouble = Some(why),
        }
    }

    fn take_stats(&mut self, stats: Box<Stats>) {
        // Another daemon than before, or the same question too soon.
        self.rates = match &self.stats {
            Some(before) if before.uptime_ms < stats.uptime_ms => Some(Rates::between(before, &stats)),
            Some(before) if before.uptime_ms == stats.uptime_ms => return,
            _ => None,
        };
        if let Some(rates) = &self.rates {
            self.rx.push(rates.rx());
            self.tx.push(rates.tx());
            self.ports.resize_with(rates.ports.len(), Past::default);
            for (past, port) in self.ports.iter_mut().zip(&rates.ports) {
                past.push(port.rx.bits_per_sec.saturating_add(port.tx.bits_per_sec));
            }
        } else {
            // Until there are two pictures, what the daemon makes of its own.
            self.rx.now = sum(stats.ports.iter().map(|port| port.rx_rate));
            self.tx.now = sum(stats.ports.iter().map(|port| port.tx_rate));
        }
        self.stats = Some(stats);
    }

    /// How long nothing has come that should have.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        let patience = self.ask.interval * 2 + Duration::from_secs(2);
        let silent = now.saturating_duration_since(self.answered);
        (!self.is_paused && silent > patience).then_some(silent)
    }

    /// Does what a key says; whether something else is to be asked for.
    pub(super) fn press(&mut self, key: KeyEvent) -> bool {
        let before = self.ask.clone();
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c')) {
            self.is_over = true;
        } else if self.typing.is_some() {
            self.type_filter(key.code, control);
        } else if self.is_help {
            // Any key leaves the help, and no key does two things.
            self.is_help = false;
        } else {
            self.command(key.code);
        }
        let is_other = self.ask != before;
        if is_other {
            // What is on the screen is no answer to this any more.
            self.top = None;
            self.scroll = 0;
        }
        is_other
    }

    fn type_filter(&mut self, key: KeyCode, control: bool) {
        let Some((text, wrong)) = &mut self.typing else { return };
        match key {
            KeyCode::Esc => self.typing = None,
            KeyCode::Enter => match Filter::parse(text) {
                Ok(filter) => {
                    self.ask.filter = filter;
                    self.typing = None;
                }
                Err(why) => *wrong = Some(why),
            },
            KeyCode::Backspace => {
                text.pop();
                *wrong = None;
            }
            KeyCode::Char('u') if control => {
                text.clear();
                *wrong = None;
            }
            KeyCode::Char(character) if !control && text.len() < 200 => {
                text.push(character);
                *wrong = None;
            }
            _ => {}
        }
    }

    fn command(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.is_help = true,
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.typing = Some((self.ask.filter.text.clone(), None)),
            KeyCode::Esc => self.ask.filter = Filter::default(),
            KeyCode::Char('b') => self.ask.by = TopBy::Bytes,
            KeyCode::Char('p') => self.ask.by = TopBy::Packets,
            KeyCode::Char('n') => self.ask.by = TopBy::New,
            KeyCode::Char('e') => {
                self.ends = match self.ends {
                    Ends::Both => Ends::Sources,
                    Ends::Sources => Ends::Destinations,
                    Ends::Destinations => Ends::Both,
                };
            }
            KeyCode::Char('+') => self.step_interval(false),
            KeyCode::Char('-') => self.step_interval(true),
            KeyCode::Char(digit @ '1'..='9') => {
                let at = digit.to_digit(10).map_or(0, |digit| digit as usize - 1);
                if let Some(tab) = Tab::ALL.get(at) {
                    self.show(*tab);
                }
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll += 10,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.scroll = 0;
    }

    fn turn(&mut self, by: usize) {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.show(Tab::ALL[(at + by) % Tab::ALL.len()]);
    }

    /// The next longer interval, or the next shorter one.
    fn step_interval(&mut self, is_longer: bool) {
        let now = self.ask.interval;
        let mut all = INTERVALS_MS.map(Duration::from_millis).into_iter();
        let next = if is_longer { all.find(|ms| *ms > now) } else { all.rev().find(|ms| *ms < now) };
        self.ask.interval = next.unwrap_or(now);
    }
}

impl Ask {
    /// For a screen.
    pub(super) fn for_screen(self) -> Self {
        Self { entries: ENTRIES, ..self }
    }
}
