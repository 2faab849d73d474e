// What passes and what does not, now and over the last two minutes.

import { attr, choice, el, keyed, panel, table, text } from './dom.js';
import { bar, chart, sparkline } from './draw.js';
import { bits, bytes, count, packets, percent, perSecond, short } from './format.js';
import { SPAN_MS } from './model.js';
import * as top from './top.js';

const parts = {};

export function build(root, app) {
  const tiles = [
    ['forwarded', 'Forwarded', ''], ['dropped', 'Dropped', 'alarm'], ['flows', 'Flows', ''], ['new', 'New flows', ''],
  ].map(([name, title, kind]) => {
    const line = sparkline(110, 34, kind);
    const big = el('span', { class: 'big num', id: `now-${name}` }, '–');
    const small = el('span', { class: 'small muted num' });
    parts[name] = { line, big, small };
    return panel(title, { class: 'tile span3' }, null, el('div', { class: 'body' }, big, small, line.node));
  });
  parts.unit = choice('Unit', [['bytes', 'bit/s'], ['packets', 'packets/s']], 'bytes', () => update(app.model));
  parts.chart = chart('Forwarded traffic of the last two minutes');
  parts.legend = el('span', { class: 'legend num' });
  parts.wires = el('span', {});
  const ports = table([
    'port', 'link', ['received', 'r'], ['p/s', 'r phone-off'], ['', 'spark phone-off'], ['sent', 'r'], ['p/s', 'r phone-off'], ['', 'spark phone-off'],
    ['total in', 'r phone-off'], ['total out', 'r phone-off'],
  ]);
  parts.ports = ports.body;
  const drops = table([['reason', ''], ['rate', 'r'], ['', 'spark phone-off'], ['packets', 'r'], ['bytes', 'r phone-off']], { id: 'drops' });
  parts.drops = drops.body;
  parts.quiet = el('p', { class: 'hint table-note' });
  const invalid = table(['found INVALID, by cause', ['rate', 'r'], ['packets', 'r']]);
  parts.invalid = invalid.body;
  parts.invalidTable = el('div', { class: 'scroll' }, invalid.node);
  const load = table(['worker', ['p/s', 'r'], ['share', 'r'], ['', 'spark'], ['flows', 'r']]);
  parts.load = load.body;
  root.append(el('div', { class: 'grid' },
    tiles,
    panel('Throughput', {}, el('span', { class: 'legend' }, parts.legend, parts.unit.node), el('div', { class: 'chart-box' }, parts.chart.node)),
    panel('Ports', {}, null, el('div', { class: 'scroll' }, ports.node)),
    panel('Dropped packets', { class: 'span7' }, el('a', { href: '#explain' }, 'Why was it dropped?'),
      el('div', { class: 'scroll' }, drops.node), parts.quiet, parts.invalidTable),
    panel('Workers', { class: 'span5' }, el('a', { href: '#workers' }, 'Rings and handover'), el('div', { class: 'scroll' }, load.node)),
    top.build()));
}

export function enter() {
  top.start();
}

export function leave() {
  top.stop();
}

export function update(model) {
  const { stats, now } = model;
  tiles(model);
  throughput(model);
  keyed(parts.ports, stats.ports, ({ name }) => name, portRow);
  for (const row of parts.ports.palisadeRows.values()) row.draw(model);
  const dropped = stats.drops.filter((drop) => drop.packets > 0).sort((one, other) => other.packets - one.packets);
  keyed(parts.drops, dropped, ({ reason }) => reason, dropRow);
  for (const row of parts.drops.palisadeRows.values()) row.draw(model, now);
  const rest = stats.drops.length - dropped.length;
  text(parts.quiet, dropped.length ? `${count(rest)} other reasons: nothing dropped.` : `Nothing dropped, for any of ${count(rest)} reasons.`);
  const invalid = Object.entries(stats.invalid).filter(([, number]) => number > 0).sort(([, one], [, other]) => other - one);
  parts.invalidTable.hidden = invalid.length === 0;
  keyed(parts.invalid, invalid, ([cause]) => cause, ([cause]) => {
    const cells = [0, 1].map(() => el('td', { class: 'r num' }));
    return {
      node: el('tr', {}, el('td', { class: 'mono' }, cause), cells),
      update([name, number]) {
        text(cells[0], perSecond(model.rate(`invalid ${name}`)));
        text(cells[1], count(number));
      },
    };
  });
  const total = stats.workers.reduce((sum, { id }) => sum + model.rate(`worker ${id} rx`), 0);
  keyed(parts.load, stats.workers.map((worker) => ({ ...worker, total })), ({ id }) => id, ({ id }) => {
    const share = bar(110);
    const cells = [0, 1, 2].map(() => el('td', { class: 'r num' }));
    return {
      node: el('tr', {}, el('td', {}, `${id}`), cells[0], cells[1], el('td', { class: 'spark' }, share.node), cells[2]),
      update(worker) {
        const rate = model.rate(`worker ${worker.id} rx`);
        text(cells[0], short(rate));
        text(cells[1], percent(rate, worker.total));
        share.update(worker.total ? rate / worker.total : 0);
        text(cells[2], count(worker.flows));
      },
    };
  });
}

function tiles(model) {
  const { stats, now } = model;
  const dropped = stats.drops.reduce((sum, drop) => sum + drop.packets, 0);
  const forwarded = stats.wires.reduce((sum, wire) => sum + wire.left_to_right.packets + wire.right_to_left.packets, 0);
  const { count: have, max, inserted, refused, evicted } = stats.flows;
  const said = {
    forwarded: [bits(model.rate('forwarded bytes') * 8), packets(model.rate('forwarded packets')), 'forwarded packets'],
    dropped: [packets(model.rate('dropped')), `${count(dropped)}, ${percent(dropped, forwarded + dropped)} of all`, 'dropped'],
    flows: [count(have), `${percent(have, max)} of ${count(max)}`, 'flows'],
    new: [perSecond(model.rate('flows inserted')), refused + evicted > 0
      ? `${count(refused)} refused, ${count(evicted)} evicted` : `${count(inserted)} since the start`, 'flows inserted'],
  };
  for (const [name, [big, small, series]] of Object.entries(said)) {
    text(parts[name].big, big);
    text(parts[name].small, small);
    parts[name].line.update(model.points(series), now, SPAN_MS);
  }
  attr(parts.dropped.big, 'class', `big num ${model.rate('dropped') > 0 ? 'bad' : ''}`);
}

/** Both directions of all wires together: one wire is the rule, and its ports are listed below. */
function throughput(model) {
  const unit = parts.unit.value;
  const format = unit === 'bytes' ? bits : packets;
  const factor = unit === 'bytes' ? 8 : 1;
  const { wires } = model.stats;
  const series = ['left_to_right', 'right_to_left'].map((way, at) => {
    const sums = new Map();
    for (const wire of wires) {
      for (const [when, value] of model.points(`wire ${wire.name} ${way} ${unit}`)) sums.set(when, (sums.get(when) ?? 0) + value * factor);
    }
    return { points: [...sums], kind: at === 1 ? 'second' : '' };
  });
  parts.chart.update(series, model.now, SPAN_MS, format);
  const only = wires.length === 1 ? wires[0] : null;
  const names = only ? [`${only.left} → ${only.right}`, `${only.right} → ${only.left}`] : ['left → right', 'right → left'];
  const keys = series.map(({ points, kind }, at) => (
    { at, kind, name: names[at], now: format(points.length ? points[points.length - 1][1] : 0) }));
  keyed(parts.legend, keys, ({ at }) => at, ({ kind }) => {
    const words = el('span');
    const value = el('b', { class: 'num' });
    return {
      node: el('span', { class: `key ${kind}` }, words, value),
      update(item) {
        text(words, item.name);
        text(value, item.now);
      },
    };
  });
}

function portRow(port) {
  const [rx, tx] = [sparkline(110, 22), sparkline(110, 22, 'second')];
  const cell = (kind = 'r num') => el('td', { class: kind });
  const [link, inBits, inPackets, outBits, outPackets] = [cell(''), cell(), cell('r num phone-off'), cell(), cell('r num phone-off')];
  const [inTotal, outTotal] = [cell('r num phone-off'), cell('r num phone-off')];
  let last = port;
  return {
    node: el('tr', {},
      el('td', {}, el('b', {}, port.name), ' ', el('span', { class: 'muted phone-off' }, `${port.wire} ${port.side}`)), link,
      inBits, inPackets, el('td', { class: 'spark phone-off' }, rx.node), outBits, outPackets, el('td', { class: 'spark phone-off' }, tx.node), inTotal, outTotal),
    update(item) {
      last = item;
      const how = item.zero_copy ? 'zero copy' : item.mode;
      text(link, item.link_up ? `up, ${how}` : 'down');
      attr(link, 'class', item.link_up ? (item.mode === 'generic' ? 'warn' : 'good') : 'bad');
    },
    draw(model) {
      const name = (way, unit) => `port ${last.name} ${way} ${unit}`;
      text(inBits, bits(model.rate(name('rx', 'bytes')) * 8));
      text(outBits, bits(model.rate(name('tx', 'bytes')) * 8));
      text(inPackets, short(model.rate(name('rx', 'packets'))));
      text(outPackets, short(model.rate(name('tx', 'packets'))));
      text(inTotal, `${count(last.rx.packets)} (${bytes(last.rx.bytes)})`);
      text(outTotal, `${count(last.tx.packets)} (${bytes(last.tx.bytes)})`);
      rx.update(model.points(name('rx', 'bytes')), model.now, SPAN_MS);
      tx.update(model.points(name('tx', 'bytes')), model.now, SPAN_MS);
    },
  };
}

function dropRow(drop) {
  const line = sparkline(110, 18, 'alarm');
  const [rate, total] = [el('td', { class: 'r num' }), el('td', { class: 'r num' })];
  const volume = el('td', { class: 'r num phone-off' });
  let last = drop;
  return {
    node: el('tr', { data: { reason: drop.reason } },
      el('td', { class: 'mono' }, drop.reason), rate, el('td', { class: 'spark phone-off' }, line.node), total, volume),
    update(item) { last = item; },
    draw(model, now) {
      const name = `drop ${last.reason}`;
      text(rate, perSecond(model.rate(name)));
      attr(rate, 'class', `r num ${model.rate(name) > 0 ? 'bad' : 'zero'}`);
      text(total, count(last.packets));
      text(volume, bytes(last.bytes));
      line.update(model.points(name), now, SPAN_MS);
    },
  };
}
