// A packet walked through the live tables: the form of `fwctl explain`, and its answer as a tree.

import { post } from './api.js';
import { attr, choice, el, panel, text } from './dom.js';
import { many } from './format.js';
import { line } from './flows.js';

const FATES = { accept: ['is accepted', 'good'], drop: ['is dropped', 'bad'], reject: ['is rejected', 'bad'], held: ['is held', 'warn'] };
const WITH_PORTS = new Set(['tcp', 'udp', 'sctp', 'udplite']);
const WITH_TYPES = new Set(['icmp', 'icmpv6']);

const NOTHING = 'Nothing is sent and nothing is changed.';

const parts = {};
let app = null;
let pending = null;

export function build(root, shared) {
  app = shared;
  const field = (name, label, props = {}, kind = '') => {
    parts[name] = el('input', { name, spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off', ...props });
    return el('label', { class: kind }, label, parts[name]);
  };
  const numeric = { inputmode: 'numeric', pattern: '[0-9]*' };
  parts.iface = el('select', { name: 'in' });
  parts.proto = el('select', { name: 'proto', on: { change: fit } },
    ['tcp', 'udp', 'icmp', 'icmpv6', 'sctp', 'gre', 'esp', 'ah', 'udplite'].map((name) => el('option', {}, name)));
  parts.frame = el('textarea', { rows: 4, 'aria-label': 'Frame in hexadecimal digits', spellcheck: 'false',
    placeholder: '0200 0000 7702 0200 0000 7701 0800 4500 003c …' });
  parts.kind = choice('Packet by', [['packet', 'by addresses'], ['frame', 'hex frame']], 'packet', fit);
  parts.packet = el('div', { class: 'fields' },
    el('label', { class: '' }, 'protocol', parts.proto),
    field('src', 'source', { placeholder: '10.0.0.1', data: { first: '' } }, 'wide'), field('sport', 'source port', { placeholder: '40000', ...numeric }),
    field('dst', 'destination', { placeholder: '10.0.0.2' }, 'wide'), field('dport', 'destination port', { placeholder: '443', ...numeric }),
    field('flags', 'TCP flags', { placeholder: 'syn, or ack if known' }, 'wide'), field('icmp_type', 'ICMP type', { placeholder: 'echo request' }, 'wide'),
    field('ttl', 'TTL', { placeholder: '64', ...numeric }), field('tos', 'TOS', { placeholder: '0', ...numeric }),
    field('len', 'length', { placeholder: 'headers', ...numeric }), field('vlan', 'VLAN tags', { placeholder: 'none' }, ''));
  parts.hex = el('div', { class: 'fields', hidden: true }, el('label', { class: 'full' }, 'frame, Ethernet header on; as tcpdump -xx prints it will do', parts.frame));
  parts.said = el('p', { class: 'note muted', role: 'status' }, NOTHING);
  parts.result = el('section', { class: 'panel', hidden: true, id: 'explained', tabindex: -1, 'aria-label': 'Explanation' });
  const form = el('form', { on: { submit: (event) => { event.preventDefault(); ask(); } } },
    el('div', { class: 'tools' }, el('label', {}, 'comes in on ', parts.iface), parts.kind.node), parts.packet, parts.hex,
    el('div', { class: 'tools' }, el('button', { type: 'submit', class: 'main' }, 'Explain'),
      parts.said));
  root.append(el('div', { class: 'grid' }, panel('What happens to this packet?', {}, null, form), parts.result));
  fit();
}

/** Shows the fields that a protocol has. */
function fit() {
  const proto = parts.proto.value;
  parts.packet.hidden = parts.kind.value !== 'packet';
  parts.hex.hidden = parts.kind.value === 'packet';
  const show = (name, is) => { parts[name].closest('label').hidden = !is; };
  show('sport', WITH_PORTS.has(proto));
  show('dport', WITH_PORTS.has(proto));
  show('flags', proto === 'tcp');
  show('icmp_type', WITH_TYPES.has(proto));
}

export function update(model) {
  const names = model.stats.ports.map(({ name }) => name);
  const have = [...parts.iface.options].map(({ value }) => value);
  if (names.join() !== have.join()) {
    const chosen = parts.iface.value;
    parts.iface.replaceChildren(...model.stats.ports.map(({ name, wire, side }) => el('option', { value: name }, `${name} (${wire}, ${side})`)));
    if (names.includes(chosen)) parts.iface.value = chosen;
  }
  if (pending) {
    const run = pending;
    pending = null;
    run();
  }
}

/** A flow whose next packet is asked about. */
export function take(flow) {
  pending = () => {
    if (parts.kind.value !== 'packet') parts.kind.node.firstElementChild.click();
    const { orig } = flow;
    parts.proto.value = flow.proto_name;
    const given = { src: orig.src, dst: orig.dst, sport: orig.sport, dport: orig.dport, icmp_type: orig.type === undefined ? '' : `${orig.type}/${orig.code}` };
    for (const name of ['src', 'dst', 'sport', 'dport', 'icmp_type', 'flags', 'ttl', 'tos', 'len', 'vlan']) parts[name].value = given[name] ?? '';
    fit();
    say('', 'A flow does not say which NIC its first packet came in on: choose it, then Explain.');
    parts.iface.focus();
  };
}

export function enter() {
  if (app.model.stats) update(app.model);
}

/** What was filled in, as the API wants it. */
function request() {
  if (parts.kind.value === 'frame') return { in: parts.iface.value, frame: parts.frame.value };
  const proto = parts.proto.value;
  const packet = { proto };
  const word = (name) => parts[name].value.trim();
  const put = (name, value) => { if (value !== '') packet[name] = value; };
  const number = (name) => {
    if (word(name) === '') return;
    // What is no number goes along as it is: the daemon says what is wrong with it.
    packet[name] = /^\d+$/.test(word(name)) ? Number(word(name)) : word(name);
  };
  put('src', word('src'));
  put('dst', word('dst'));
  if (WITH_PORTS.has(proto)) ['sport', 'dport'].forEach(number);
  if (proto === 'tcp') put('flags', word('flags').toLowerCase().replace(/[\s,]+/g, ','));
  if (WITH_TYPES.has(proto)) put('icmp_type', word('icmp_type'));
  ['ttl', 'tos', 'len'].forEach(number);
  const tags = word('vlan').split(/[\s,]+/).filter(Boolean);
  if (tags.length) packet.vlan = tags.map((tag) => (/^\d+$/.test(tag) ? Number(tag) : tag));
  return { in: parts.iface.value, packet };
}

function say(kind, words) {
  attr(parts.said, 'class', `note ${kind || 'muted'}`);
  text(parts.said, words);
}

async function ask() {
  say('', 'Asking …');
  try {
    const said = await post('/v1/explain', request());
    say('', NOTHING);
    parts.result.replaceChildren(...drawn(said));
    parts.result.hidden = false;
    parts.result.scrollIntoView({ block: 'nearest' });
  } catch (error) {
    say('bad', error.message);
    parts.result.hidden = true;
  }
}

const at = (rule) => `${rule.table} ${rule.chain}${rule.number ? ` ${rule.number}` : ''}`;

function ruleWords(rule) {
  return [el('span', { class: 'at' }, at(rule)), ' ', el('span', { class: 'rule' }, rule.text), rule.place ? el('span', { class: 'at' }, `  ${rule.place}`) : null];
}

/** The verdict first: it is what was asked. */
function drawn({ packet, owner, flow, ct, steps = [], tried = 0, omitted = 0, verdict, notes = [], generation }) {
  const [words, kind] = FATES[verdict.verdict] ?? [verdict.verdict, ''];
  const head = el('div', { class: 'verdict', id: 'verdict' }, el('b', { class: kind }, `It ${words}`),
    verdict.verdict === 'accept' ? el('span', {}, `and leaves on ${packet.egress}`) : null,
    verdict.reason ? el('span', { class: 'badge bad', title: verdict.reason.text }, verdict.reason.name) : null,
    verdict.answer ? el('span', {}, `The sender is answered: ${verdict.answer}.`) : null,
    verdict.rule ? el('span', { class: 'muted' }, 'by ', ruleWords(verdict.rule)) : null);
  const item = (title, ...rest) => el('li', {}, el('b', {}, title), ' ', rest);
  const list = (items) => (items.length ? el('ul', {}, items.map((one) => el('li', { class: 'mono' }, one))) : null);
  const items = [
    item('Packet', `${packet.summary}, in on ${packet.ingress}`, packet.malformed ? el('div', { class: 'bad' }, `${packet.malformed.name}: ${packet.malformed.text}`) : null, list(packet.headers ?? [])),
    owner && item('Owner', `worker ${owner.worker}, bucket ${owner.bucket}: ${owner.why}`),
    flow ? item('Flow', { original: 'it belongs to', reply: 'it answers', about: 'it is an error about' }[flow.relation], el('div', { class: 'rule' }, line(flow.flow)),
      list([...(flow.changes ?? []), ...(flow.remembered ? [flow.remembered] : [])])) : item('Flow', 'none is known'),
    ct && item('Connection state', el('b', { class: ct.state === 'INVALID' ? 'bad' : '' }, ct.state), ct.reason ? ` (${ct.reason.name}: ${ct.reason.text})` : '', `: ${ct.why}`),
    steps.length > 0 && item('Rules', el('span', { class: 'muted' }, `${many(tried, 'rule')} asked, generation ${generation}`), nested(steps),
      omitted ? el('div', { class: 'muted' }, `${many(omitted, 'more rule')} that would have decided did not match`) : null),
    verdict.reason && item('Why', verdict.reason.text),
    ...notes.map((note) => item('Note', note)),
  ];
  return [head, el('ul', { class: 'steps' }, items.filter(Boolean))];
}

/** Steps as deep as the chains they are in. */
function nested(steps) {
  const root = el('ol');
  const open = [root];
  for (const step of steps) {
    while (open.length > step.depth + 1) open.pop();
    while (open.length < step.depth + 1) {
      const deeper = el('ol');
      open[open.length - 1].append(el('li', {}, deeper));
      open.push(deeper);
    }
    const kind = { matched: 'matched', failed: 'missed', policy: '', return: 'missed' }[step.kind] ?? '';
    open[open.length - 1].append(el('li', { class: kind, data: { kind: step.kind } }, step.kind === 'policy' ? 'policy ' : '',
      step.kind === 'return' ? el('span', { class: 'at' }, `${at(step)}: end of the chain`) : ruleWords(step),
      step.effect ? el('div', {}, step.effect) : null, step.failed ? el('div', { class: 'muted' }, `does not match: ${step.failed}`) : null));
  }
  return root;
}
