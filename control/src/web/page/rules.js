// The rules in force with their counters, as `fwctl rules` has them; which of them packets meet now, as bars.

import { get } from './api.js';
import { attr, choice, el, keyed, panel, table, text } from './dom.js';
import { bar } from './draw.js';
import { count, many, perSecond, protocol } from './format.js';

const EVERY_MS = 2000;
const FIRST_ROWS = 200;
const MORE_ROWS = 400;

const parts = {};
let views = [];
let chains = [];
let generation = null;
let rows = FIRST_ROWS;
let timer = null;
let asking = null;
let shared = null;
let given = null;

export function build(root, app) {
  shared = app;
  const again = () => { rows = FIRST_ROWS; draw(); };
  parts.filter = el('input', {
    type: 'search', placeholder: 'Filter: words of a rule or chain, as “tcp 443 ACCEPT”', 'aria-label': 'Filter rules',
    data: { first: '' }, on: { input: again }, spellcheck: 'false', autocomplete: 'off',
  });
  parts.family = choice('Family', [['', 'both'], ['4', 'IPv4'], ['6', 'IPv6']], '', again);
  parts.table = choice('Table', [['filter', 'filter'], ['mangle', 'mangle'], ['raw', 'raw'], ['', 'all']], 'filter', again);
  parts.order = choice('Order', [['', 'as written'], ['rate', 'busiest now'], ['packets', 'most packets']], '', again);
  parts.hit = el('input', { type: 'checkbox', on: { change: again } });
  parts.said = el('p', { class: 'said', role: 'status' });
  const list = table([
    ['num', 'r'], ['packets', 'r'], ['bytes', 'r'], ['now', 'r'], ['', 'spark'], 'target', 'prot', 'in', 'out', 'source', 'destination', 'match',
  ], { class: 'rules fold', id: 'rules-table' });
  parts.node = list.node;
  parts.groups = el('div', { class: 'scroll' }, list.node);
  list.body.remove();
  parts.more = el('button', { type: 'button', on: { click: () => { rows += MORE_ROWS; draw(); } } });
  parts.bounds = el('span');
  parts.foot = el('div', { class: 'foot' }, parts.bounds, parts.more);
  root.append(panel('Rules in force', {}, null,
    el('div', { class: 'tools' }, parts.filter, parts.family.node, parts.table.node, parts.order.node,
      el('label', {}, parts.hit, 'only with hits')),
    parts.said, parts.groups, parts.foot));
}

export function enter() {
  if (given !== null) {
    parts.filter.value = given;
    given = null;
    parts.table.node.lastElementChild.click();
  }
  look();
  timer = setInterval(() => { if (!document.hidden) look(); }, EVERY_MS);
}

export function leave() {
  clearInterval(timer);
  asking?.abort();
  asking = null;
}

/** Asks for the rules when they have changed, for their counters otherwise: those are a fraction of the bytes. */
async function look() {
  if (asking || document.getElementById('pause').getAttribute('aria-pressed') === 'true') return;
  asking = new AbortController();
  const { signal } = asking;
  try {
    let counters = generation === null ? null : await get('/v1/rules/counters', signal);
    if (!counters || counters.some((view) => view.generation !== generation)) {
      views = await get('/v1/rules', signal);
      generation = views[0]?.generation ?? null;
      understand();
      counters = null;
    }
    if (counters) takeCounters(counters);
    draw();
    say('', '');
  } catch (error) {
    if (!signal.aborted) say('bad', `${error.message}; counters are as they were`);
  } finally {
    if (asking?.signal === signal) asking = null;
  }
}

function say(kind, words) {
  attr(parts.said, 'class', `said ${kind}`);
  parts.said.hidden = !words;
  text(parts.said, words);
}

/** Rules and chains as they are drawn, with the text that a filter looks at. What a rule had counted goes on if it stays. */
function understand() {
  const before = new Map(chains.flatMap((chain) => chain.rules.map((rule) => [rule.key, rule])));
  const now = performance.now();
  chains = views.flatMap((view) => view.chains.map((chain) => {
    const place = `${view.family} ${chain.table} ${chain.name}`;
    return {
      key: place, family: view.family, chain,
      policy: chain.policy && [chain.policy.packets, chain.policy.bytes],
      words: `ipv${view.family} ${chain.table} ${chain.name}`.toLowerCase(),
      rules: chain.rules.map((rule) => {
        const key = `${place} ${rule.id} ${rule.num}`;
        const known = before.get(key);
        const said = [rule.target, protocol(rule.prot), rule.in, rule.out, rule.source, rule.destination, rule.extra].join(' ');
        return {
          key, rule, words: said.toLowerCase(), packets: rule.packets, bytes: rule.bytes,
          rate: known?.rate ?? 0, seen: known ? [known.packets, known.seen[1]] : [rule.packets, now],
        };
      }),
    };
  }));
}

function takeCounters(counters) {
  const now = performance.now();
  const all = counters.flatMap((view) => view.chains);
  // Both lists are of one generation and in one order.
  chains.forEach((chain, at) => {
    chain.policy = all[at].policy;
    chain.rules.forEach((rule, number) => {
      const [packets, bytes] = all[at].rules[number];
      const seconds = (now - rule.seen[1]) / 1000;
      rule.rate = seconds > 0.2 ? Math.max(0, packets - rule.seen[0]) / seconds : rule.rate;
      rule.seen = [packets, now];
      rule.packets = packets;
      rule.bytes = bytes;
    });
  });
}

/** Rules that are asked for, chain by chain, and how many of them there are. */
function wanted() {
  const words = parts.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const narrowed = words.length > 0 || parts.hit.checked;
  let matching = 0;
  let all = 0;
  const found = [];
  for (const chain of chains) {
    if (parts.family.value && String(chain.family) !== parts.family.value) continue;
    if (parts.table.value && chain.chain.table !== parts.table.value) continue;
    all += chain.rules.length;
    const rest = words.filter((word) => !chain.words.includes(word));
    const rules = chain.rules.filter((rule) => rest.every((word) => rule.words.includes(word)) && (!parts.hit.checked || rule.packets > 0));
    matching += rules.length;
    if (rules.length || !narrowed) found.push({ chain, rules });
  }
  return { found, matching, all };
}

function draw() {
  if (!chains.length && generation === null) return;
  const { found, matching, all } = wanted();
  let groups = found;
  if (parts.order.value) {
    // One list of all chains: the busiest rule first, wherever it is.
    const by = parts.order.value;
    const rules = found.flatMap(({ chain, rules: some }) => some.map((rule) => ({ chain, rule })));
    rules.sort((one, other) => other.rule[by] - one.rule[by] || other.rule.packets - one.rule.packets);
    groups = [{ chain: null, rules: rules.slice(0, rows).map(({ chain, rule }) => ({ ...rule, from: chain })) }];
  }
  const most = Math.max(1, ...found.map(({ rules }) => rules.reduce((top, { rate }) => Math.max(top, rate), 0)));
  // A heading is a row too: there may be more chains than rules.
  let left = rows;
  let drawnRules = 0;
  const bounded = [];
  for (const { chain, rules } of groups) {
    if (left <= 0) break;
    const part = rules.slice(0, left);
    left -= part.length + 1;
    drawnRules += part.length;
    bounded.push({ key: chain?.key ?? 'sorted', chain, rules: part });
  }
  const headings = parts.node.tHead;
  keyed(parts.node, [{ key: 'head', head: true }, ...bounded], ({ key }) => key, (item) => (item.head ? { node: headings } : group(item)));
  for (const [key, row] of parts.node.palisadeRows) if (key !== 'head') row.draw(most);
  const rest = matching - drawnRules;
  const wholeList = matching === all;
  text(parts.bounds, rest > 0
    ? `${count(drawnRules)} of ${many(matching, 'rule')} shown${wholeList ? '' : ` that fit, of ${count(all)}`}; ${count(rest)} more. A filter narrows them.`
    : wholeList ? many(all, 'rule') : `${count(matching)} of ${many(all, 'rule')} fit`);
  parts.more.hidden = rest <= 0;
  text(parts.more, `Show ${count(Math.min(rest, MORE_ROWS))} more`);
  const kept = views.reduce((sum, view) => sum + (view.kept?.packets ?? 0), 0);
  if (kept > 0) parts.bounds.append(` · ${many(kept, 'packet')} of kept flows met no rules`);
}

/** A chain's rules below its heading. */
function group(first) {
  const body = el('tbody');
  let item = first;
  const heading = first.chain && chainRow(first.chain);
  return {
    node: body,
    update(next) { item = next; },
    draw(most) {
      if (heading) heading.update(item.chain);
      keyed(body, [...(heading ? [{ key: 'heading', heading }] : []), ...item.rules], ({ key }) => key,
        (row) => (row.heading ? { node: row.heading.node } : ruleRow(row)));
      for (const [key, row] of body.palisadeRows) if (key !== 'heading') row.draw(most);
    },
  };
}

function chainRow({ family, chain }) {
  const policy = el('span', { class: `badge ${chain.policy?.verdict === 'DROP' ? 'bad' : chain.policy ? 'good' : ''}` });
  const counters = el('span', { class: 'muted num' });
  const refs = many(chain.references, 'reference');
  return {
    node: el('tr', { class: 'chain' }, el('th', { colspan: 12, scope: 'rowgroup' },
      el('b', {}, chain.name), el('span', { class: 'muted' }, `IPv${family} ${chain.table}`), policy, counters)),
    update(item) {
      text(policy, chain.policy ? `policy ${chain.policy.verdict}` : refs);
      text(counters, item.policy ? `${many(item.policy[0], 'packet')}, ${many(item.policy[1], 'byte')} came to its end` : '');
    },
  };
}

const GOOD = new Set(['ACCEPT']);
const BAD = new Set(['DROP', 'REJECT']);

function ruleRow({ rule, from }) {
  const [packets, bytes, now] = ['pkts', 'bytes', 'now'].map((label) => el('td', { class: 'r num counted', data: { label } }));
  const share = bar(84);
  const kind = GOOD.has(rule.target) ? 'good' : BAD.has(rule.target) ? 'bad' : '';
  const plain = (value, neutral, label) => el('td', { class: `mono ${value === neutral ? 'zero any' : ''}`, data: { label } }, value);
  const where = from ? `${from.chain.name} ${rule.num}${from.family === 6 ? ' v6' : ''}` : String(rule.num);
  const any = rule.source.includes(':') ? '::/0' : '0.0.0.0/0';
  const node = el('tr', { data: { rule: rule.id } },
    el('td', { class: from ? 'mono' : 'r num zero' }, where), packets, bytes, now, el('td', { class: 'spark' }, share.node),
    el('td', {}, el('span', { class: `target ${kind}` }, `${rule.goto ? 'goto ' : ''}${rule.target || '–'}`)),
    plain(`${protocol(rule.prot)}${rule.opt === '--' ? '' : ` ${rule.opt}`}`, 'all', ''), plain(rule.in, '*', 'in'), plain(rule.out, '*', 'out'),
    plain(rule.source, any, 'from'), plain(rule.destination, rule.destination.includes(':') ? '::/0' : '0.0.0.0/0', 'to'),
    el('td', { class: 'mono rule-text' }, rule.extra));
  let item = null;
  return {
    node,
    update(next) { item = next; },
    draw(most) {
      text(packets, count(item.packets));
      text(bytes, count(item.bytes));
      text(now, item.rate > 0 ? perSecond(item.rate) : '');
      // By logarithm: a rule with a thousandth of the traffic is to be seen as well.
      attr(share.node, 'hidden', item.rate <= 0);
      share.update(item.rate > 0 ? Math.log1p(item.rate) / Math.log1p(most) : 0);
      attr(node, 'class', item.packets > 0 ? null : 'idle');
    },
  };
}

/** What another view wants to be looked for, once this one is shown. */
export function take(words) {
  given = words;
}

export function update() {
  // A change of the rules is seen at once.
  if (generation !== null && shared.model.stats.generation !== generation) look();
}
