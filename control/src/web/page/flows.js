// Flows by a search, in conntrack's words. A table of a million flows is never fetched: the first rows that fit are, and
// the daemon says how many more there are.

import { get, query, rows } from './api.js';
import { attr, el, keyed, panel, table, text } from './dom.js';
import { bytes as volume, count, many, short } from './format.js';
import { understand } from './search.js';

const ROWS = 200;

const parts = {};
let asking = null;
let searched = null;
let app = null;

export function build(root, shared) {
  app = shared;
  parts.field = el('input', {
    type: 'search', placeholder: 'tcp 10.0.0.1 :443 ESTABLISHED', 'aria-label': 'Search flows', data: { first: '' },
    spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off',
  });
  parts.said = el('p', { class: 'said', role: 'status', hidden: true });
  const list = table([
    'flow', 'state', ['timeout', 'r'], 'source', 'destination', ['sent', 'r'], ['answered', 'r'], 'flags', ['mark', 'r'], ['worker', 'r'],
  ], { class: 'flows fold', id: 'flows-table' });
  parts.table = list.node;
  list.body.remove();
  parts.bounds = el('span');
  const form = el('form', {
    class: 'tools', role: 'search', on: { submit: (event) => { event.preventDefault(); search(); } },
  }, parts.field, el('button', { type: 'submit', class: 'main' }, 'Search'));
  parts.hint = el('p', { class: 'hint' }, 'Addresses and networks of either end, ', el('code', {}, ':port'), ', protocol, state, ',
    el('code', {}, 'assured'), ', ', el('code', {}, 'unreplied'), '; or words of conntrack: ',
    el('code', {}, 'src=10.0.0.0/8 dport=443 mark=0x1/0xff'), '.');
  root.append(panel('Flows', {}, null, form, parts.hint, parts.said, el('div', { class: 'scroll' }, list.node),
    el('div', { class: 'foot' }, parts.bounds)));
}

export function enter() {
  if (searched === null) search();
}

/** What another view wants to be searched for. */
export function take(words) {
  searched = null;
  setTimeout(() => { parts.field.value = words; search(); });
}

function say(kind, words) {
  attr(parts.said, 'class', `said ${kind}`);
  text(parts.said, words);
  // One stands in the place of the other: nothing below moves.
  parts.said.hidden = !words;
  parts.hint.hidden = Boolean(words);
}

async function search() {
  asking?.abort();
  const typed = parts.field.value;
  const { filters, both, wrong } = understand(typed);
  attr(parts.field, 'aria-invalid', wrong.length ? 'true' : null);
  if (wrong.length) return say('bad', `Not understood: ${wrong.join(' ')}. Nothing was searched for.`);
  searched = typed;
  asking = new AbortController();
  const { signal } = asking;
  parts.table.setAttribute('aria-busy', 'true');
  try {
    const found = new Map();
    let isMore = false;
    for (const filter of filters) {
      const part = await rows(`/v1/flows${query(filter)}`, ROWS, signal);
      for (const row of part.found) found.set(keyOf(row), row);
      isMore ||= part.more;
    }
    const shown = [...found.values()].slice(0, ROWS);
    isMore ||= found.size > shown.length;
    const head = { head: parts.table.tHead };
    keyed(parts.table, [head, ...shown], (row) => (row.head ? 'head' : keyOf(row)), (row) => (row.head ? { node: row.head } : flowRow(row)));
    let all = shown.length;
    if (isMore) all = Math.max(all, await countAll(filters, both, signal));
    const words = typed.trim() ? ' fit' : '';
    text(parts.bounds, all > shown.length
      ? `First ${count(shown.length)} of ${many(all, 'flow')} that${words || ' are tracked'}; ${count(all - shown.length)} more. Narrow the search to see others.`
      : `${many(all, 'flow')}${words || ' tracked'}`);
    say('', all === 0 && typed.trim() ? 'No flow fits. Its packets may have been dropped before a flow was made: see Explain.' : '');
  } catch (error) {
    if (!signal.aborted) say('bad', error.message);
  } finally {
    if (asking?.signal === signal) parts.table.removeAttribute('aria-busy');
  }
}

/** How many fit: those of each filter, less those counted twice. */
async function countAll(filters, both, signal) {
  let all = 0;
  for (const filter of filters) all += (await get(`/v1/flows/count${query(filter)}`, signal)).count;
  if (both) all -= (await get(`/v1/flows/count${query(both)}`, signal)).count;
  return all;
}

/** Ids have more digits than numbers of this language: the tuple tells flows apart as well. */
function keyOf(row) {
  const { src, dst, sport, dport, type, code, id, srckey, dstkey } = row.orig;
  return [row.worker, row.family, row.zone, row.proto, src, dst, sport ?? type ?? srckey, dport ?? code ?? dstkey, id].join(' ');
}

/** An end of a flow: address with port, an ICMP type with its code. */
function endOf(side, which) {
  const port = side[which === 'src' ? 'sport' : 'dport'];
  const address = side[which];
  if (port === undefined) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function sideWords(side, name) {
  const key = side.sport !== undefined ? ` sport=${side.sport} dport=${side.dport}`
    : side.type !== undefined ? ` type=${side.type} code=${side.code} id=${side.id}`
      : side.srckey !== undefined ? ` srckey=0x${side.srckey.toString(16)} dstkey=0x${side.dstkey.toString(16)}` : '';
  const zone = side.zone ? ` zone-${name}=${side.zone}` : '';
  const counted = side.packets === undefined ? '' : ` packets=${side.packets} bytes=${side.bytes}`;
  return `src=${side.src} dst=${side.dst}${key}${zone}${counted}`;
}

/** A flow as `conntrack -L` prints it. */
export function line(row) {
  return [
    `${row.proto_name.padEnd(8)} ${row.proto} ${row.timeout_secs}`, row.state, sideWords(row.orig, 'orig'), row.seen_reply ? null : '[UNREPLIED]',
    sideWords(row.reply, 'reply'), row.assured ? '[ASSURED]' : null, row.kept ? '[KEPT]' : null, `mark=${row.mark}`,
    row.zone ? `zone=${row.zone}` : null, row.helper ? `helper=${row.helper}` : null, 'use=1', row.labels?.length ? `labels=${row.labels.join(',')}` : null,
  ].filter(Boolean).join(' ');
}

function flowRow(first) {
  const cells = ['state', 'timeout', 'sent', 'answered', 'flags', 'mark'].map((name) => [name, el('td', {
    class: name === 'state' ? '' : name === 'flags' ? 'flags' : 'r num', data: { label: name === 'flags' || name === 'state' ? '' : name },
  })]);
  const { state, timeout, sent, answered, flags, mark } = Object.fromEntries(cells);
  const open = el('button', { type: 'button', 'aria-expanded': 'false', 'aria-label': 'Show the whole flow' }, '▸');
  let item = first;
  const words = el('div', { class: 'wrap' });
  const detail = el('tr', { class: 'detail', hidden: true }, el('td', { colspan: 10 }, words,
    el('div', { class: 'tools' }, el('button', { type: 'button', on: { click: () => app.go('explain', item) } }, 'Explain its next packet'))));
  const toggle = () => {
    detail.hidden = !detail.hidden;
    attr(open, 'aria-expanded', String(!detail.hidden));
    text(open, detail.hidden ? '▸' : '▾');
  };
  const { orig } = first;
  const kind = orig.type === undefined ? '' : ` type ${orig.type} id ${orig.id}`;
  const node = el('tr', { class: 'row', on: { click: (event) => { if (!window.getSelection()?.toString() || event.target === open) toggle(); } } },
    el('td', {}, open, ` ${first.proto_name === 'unknown' ? first.proto : first.proto_name}`), state, timeout,
    el('td', { class: 'break' }, endOf(orig, 'src')), el('td', { class: 'break', data: { label: '→' } }, endOf(orig, 'dst') + kind), sent, answered, flags, mark,
    el('td', { class: 'r num phone-off' }, String(first.worker)));
  const counted = (side) => (side.packets === undefined ? '–' : `${short(side.packets)} p, ${volume(side.bytes)}`);
  return {
    node: el('tbody', {}, node, detail),
    update(row) {
      item = row;
      text(state, row.state ?? '');
      text(timeout, `${count(row.timeout_secs)} s`);
      text(sent, counted(row.orig));
      text(answered, row.seen_reply ? counted(row.reply) : '');
      text(flags, [row.assured && 'ASSURED', !row.seen_reply && 'UNREPLIED', row.expected && 'EXPECTED', row.kept && 'KEPT', row.helper].filter(Boolean).join(' '));
      text(mark, row.mark ? `0x${row.mark.toString(16)}` : '');
      text(words, line(row));
    },
  };
}
