// Who has the most traffic now: flows, hosts and services, as `fwctl top` has them.

import { get, query } from './api.js';
import { attr, choice, el, keyed, panel, table, text } from './dom.js';
import { bar } from './draw.js';
import { bits, count, packets, perSecond } from './format.js';

const ENTRIES = 8;
const EVERY_MS = 2000;

/** The walk over all flows is to take no more than a twentieth of a core. */
const WALKS_APART = 20;

const parts = {};
let timer = null;
let asking = null;
let report = null;

/** What each list has: headings, a key, the cells of an entry, and how much of it there is in either direction. */
const LISTS = {
  flows: {
    heading: 'flow',
    name: ({ proto_name: name, proto, src, dst, sport, dport }) => {
      const end = (address, port) => (port === undefined ? address : address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);
      return `${name === 'unknown' ? proto : name} ${end(src, sport)} → ${end(dst, dport)}`;
    },
    rates: ({ forth, back }) => [forth, back],
    rest: ({ state }) => state ?? '',
  },
  hosts: {
    heading: 'host',
    name: ({ addr }) => addr,
    rates: ({ sent, received }) => [sent, received],
    rest: ({ flows, new_per_sec: begun }) => `${count(flows)} flows, ${perSecond(begun)} new`,
  },
  services: {
    heading: 'service',
    name: ({ proto_name: name, proto, port }) => `${name === 'unknown' ? proto : name}${port === null ? '' : ` ${port}`}`,
    rates: ({ forth, back }) => [forth, back],
    rest: ({ flows, new_per_sec: begun }) => `${count(flows)} flows, ${perSecond(begun)} new`,
  },
};

/** The panel. */
export function build() {
  parts.list = choice('List', [['flows', 'flows'], ['hosts', 'hosts'], ['services', 'services']], 'flows', draw);
  parts.by = choice('By', [['bytes', 'bit/s'], ['packets', 'packets/s'], ['new', 'new flows']], 'bytes', () => {
    asking?.abort();
    asking = null;
    look();
  });
  const list = table([['flow', ''], ['sent', 'r'], ['received', 'r'], ['', 'spark phone-off'], '']);
  parts.heading = list.node.tHead.rows[0].cells[0];
  parts.body = list.body;
  parts.said = el('p', { class: 'hint table-note' });
  return panel('Busiest now', { class: 'busiest' }, el('span', { class: 'legend' }, parts.list.node, parts.by.node),
    el('div', { class: 'scroll' }, list.node), parts.said);
}

export function start() {
  look();
}

export function stop() {
  clearTimeout(timer);
  asking?.abort();
  asking = null;
}

async function look() {
  clearTimeout(timer);
  if (asking) return;
  let wait = EVERY_MS;
  const isPaused = document.getElementById('pause').getAttribute('aria-pressed') === 'true';
  if (!document.hidden && !isPaused) {
    const mine = new AbortController();
    asking = mine;
    try {
      report = await get(`/v1/top${query({ n: ENTRIES, by: parts.by.value, interval_ms: EVERY_MS })}`, mine.signal);
      wait = Math.max(EVERY_MS, (report.walk_us / 1000) * WALKS_APART);
      draw();
    } catch (error) {
      if (mine.signal.aborted) return;
      text(parts.said, error.message);
    }
    asking = null;
  }
  timer = setTimeout(look, wait);
}

function draw() {
  if (!report) return;
  const name = parts.list.value;
  const kind = LISTS[name];
  text(parts.heading, kind.heading);
  const inPackets = report.by === 'packets';
  const value = (rate) => (inPackets ? rate.packets_per_sec : rate.bits_per_sec);
  const format = inPackets ? packets : bits;
  const size = (entry) => kind.rates(entry).reduce((sum, rate) => sum + value(rate), 0);
  const entries = report[name].slice(0, ENTRIES);
  const most = Math.max(1, ...entries.map(size));
  const items = entries.map((entry) => ({
    // Flows may look alike: of ICMP what tells them apart is not shown.
    key: `${name} ${kind.name(entry)} ${entry.id ?? ''} ${entry.worker ?? ''}`, name: kind.name(entry), rates: kind.rates(entry).map((rate) => format(value(rate))),
    share: size(entry) / most, rest: kind.rest(entry),
  }));
  keyed(parts.body, items, ({ key }) => key, () => {
    const share = bar(110);
    const [what, one, other, rest] = ['mono', 'r num', 'r num', 'muted'].map((which) => el('td', { class: which }));
    return {
      node: el('tr', {}, what, one, other, el('td', { class: 'spark phone-off' }, share.node), rest),
      update(item) {
        text(what, item.name);
        text(one, item.rates[0]);
        text(other, item.rates[1]);
        text(rest, item.rest);
        share.update(item.share);
      },
    };
  });
  const slack = report.slack?.[name] ?? 0;
  text(parts.said, entries.length === 0 ? 'No flow had a packet.'
    : `${count(report.flows_active)} of ${count(report.flows_count)} flows had a packet within ${(report.interval_ms / 1000).toFixed(1)} s`
      + `${slack ? `; more ${name} than are kept count of: an entry may be too low by ${report.by === 'new' ? perSecond(slack) : format(slack)}` : ''}.`);
  attr(parts.body, 'data-entries', entries.length);
}
