// Worker threads and the rings between them and the NICs: who has how much to do, and where packets are lost before
// anybody judged them.

import { attr, el, keyed, panel, table, text } from './dom.js';
import { sparkline } from './draw.js';
import { count, perSecond, short } from './format.js';
import { SPAN_MS } from './model.js';

const parts = {};

const cellOf = (kind = 'r num') => el('td', { class: kind });

export function build(root) {
  const load = table([
    'worker', ['core', 'r'], ['rx p/s', 'r'], ['', 'spark'], ['p/burst', 'r'], ['bursts/s', 'r'], ['idle polls/s', 'r'], ['sleeps/s', 'r'],
    ['flows', 'r'], ['dropped', 'r'], ['handed off/s', 'r'], ['taken over/s', 'r'], ['stalls', 'r'], 'core chosen',
  ], { id: 'workers-table' });
  parts.load = load.body;
  const rings = table([
    'queue', ['rx dropped', 'r'], ['rx ring full', 'r'], ['fill ring empty', 'r'], ['invalid descs', 'r'], ['worker', 'r'], ['rx descs/s', 'r'],
    ['tx descs/s', 'r'], ['kicks/s', 'r'],
  ], { id: 'rings-table' });
  parts.rings = rings.body;
  const ports = table(['port', 'XDP', 'memory', ['mtu', 'r'], 'packets over queues']);
  parts.ports = ports.body;
  const handoff = table(['cause', ['packets given', 'r'], ['packets taken', 'r']]);
  parts.handoff = handoff.body;
  parts.none = el('p', { class: 'hint table-note' }, 'No packet went from one worker to another.');
  root.append(el('div', { class: 'grid' },
    panel('Workers', {}, null, el('div', { class: 'scroll' }, load.node)),
    panel('Rings', {}, el('span', { class: 'muted' }, 'What is dropped here is dropped by the kernel: no rule has seen it.'), el('div', { class: 'scroll' }, rings.node)),
    panel('Ports', { class: 'span7' }, null, el('div', { class: 'scroll' }, ports.node)),
    panel('Handover between workers', { class: 'span5' }, null, el('div', { class: 'scroll' }, handoff.node), parts.none)));
}

export function update(model) {
  const { workers, ports } = model.stats;
  keyed(parts.load, workers, ({ id }) => id, (worker) => {
    const line = sparkline(110, 20);
    const cells = Object.fromEntries(['core', 'rx', 'size', 'bursts', 'idle_polls', 'sleeps', 'flows', 'dropped', 'handed_off', 'taken_over', 'stalls']
      .map((name) => [name, cellOf()]));
    const why = el('td', { class: 'muted' });
    const { core, rx, ...rest } = cells;
    return {
      node: el('tr', {}, el('td', {}, `${worker.id}`), core, rx, el('td', { class: 'spark' }, line.node), Object.values(rest), why),
      update(item) {
        const rate = (name) => model.rate(`worker ${item.id} ${name}`);
        text(core, item.core);
        text(rx, short(rate('rx')));
        text(cells.size, rate('bursts') > 0 ? (rate('rx') / rate('bursts')).toFixed(1) : '–');
        for (const name of ['bursts', 'idle_polls', 'sleeps', 'handed_off', 'taken_over']) text(cells[name], short(rate(name)));
        for (const name of ['flows', 'dropped', 'stalls']) text(cells[name], count(item[name]));
        attr(cells.stalls, 'class', `r num ${item.stalls > 0 ? 'bad' : 'zero'}`);
        text(why, item.core_why);
        line.update(model.points(`worker ${item.id} rx`), model.now, SPAN_MS);
      },
    };
  });
  const queues = ports.flatMap((port) => port.queues.map((queue) => ({ port: port.name, ...queue })));
  keyed(parts.rings, queues, ({ port, queue }) => `${port} ${queue}`, (queue) => {
    const names = ['rx_dropped', 'rx_ring_full', 'fill_ring_empty', 'invalid_descs'];
    const cells = Array.from({ length: 4 }, () => cellOf());
    const lost = names.map(() => cellOf());
    return {
      node: el('tr', {}, el('td', {}, el('b', {}, queue.port), ` ${queue.queue}`), lost, cells),
      update(item) {
        const rate = (name) => model.rate(`queue ${item.port} ${item.queue} ${name}`);
        text(cells[0], item.worker);
        text(cells[1], short(rate('rx_descs')));
        text(cells[2], short(rate('tx_descs')));
        text(cells[3], short(rate('kicks')));
        names.forEach((name, at) => {
          const growing = rate(name) > 0;
          text(lost[at], growing ? `${count(item[name])} (${perSecond(rate(name))})` : count(item[name]));
          attr(lost[at], 'class', `r num ${growing ? 'bad' : item[name] > 0 ? 'warn' : 'zero'}`);
        });
      },
    };
  });
  keyed(parts.ports, ports, ({ name }) => name, (port) => {
    const cells = Array.from({ length: 4 }, (_, at) => cellOf(at === 2 ? 'r num' : ''));
    cells[3].className = 'wrap';
    return {
      node: el('tr', {}, el('td', {}, el('b', {}, port.name)), cells),
      update(item) {
        text(cells[0], item.mode === 'native' ? 'in the driver' : 'generic hook');
        attr(cells[0], 'class', item.mode === 'native' ? '' : 'warn');
        text(cells[1], item.zero_copy ? 'zero copy' : 'copied');
        text(cells[2], item.mtu);
        const spread = { 'single-queue': 'one queue', agrees: 'come in where their flows live', differs: 'are handed over between workers' };
        text(cells[3], [spread[item.rss.state] ?? item.rss.state, ...item.rss.refused].join('; '));
      },
    };
  });
  const causes = new Map();
  for (const { handoffs } of workers) {
    for (const { cause, out, taken } of handoffs) {
      const sum = causes.get(cause) ?? { cause, out: 0, taken: 0 };
      causes.set(cause, { cause, out: sum.out + out, taken: sum.taken + taken });
    }
  }
  const met = [...causes.values()].filter(({ out, taken }) => out + taken > 0);
  parts.none.hidden = met.length > 0;
  keyed(parts.handoff, met, ({ cause }) => cause, ({ cause }) => {
    const cells = [cellOf(), cellOf()];
    return {
      node: el('tr', {}, el('td', { class: 'mono' }, cause), cells),
      update(item) {
        text(cells[0], count(item.out));
        text(cells[1], count(item.taken));
      },
    };
  });
}
