// What somebody types to find flows, turned into filters of the API. Takes words as they stand in a line of conntrack
// (`src=10.0.0.1 dport=443 [ASSURED]`), options of conntrack (`-s 10.0.0.0/8 -p tcp`), and plain words: an address or
// network of either end, `10.0.0.1:443`, `:443` or `443`, a protocol, a state.

import { protocolNumber } from './format.js';

const OPTIONS = {
  '-s': 'src', '--src': 'src', '--orig-src': 'src', '-d': 'dst', '--dst': 'dst', '--orig-dst': 'dst',
  '-r': 'reply_src', '--reply-src': 'reply_src', '-q': 'reply_dst', '--reply-dst': 'reply_dst', '-p': 'proto', '--proto': 'proto',
  '-f': 'family', '--family': 'family', '-m': 'mark', '--mark': 'mark', '-l': 'label', '--label': 'label', '-w': 'zone', '--zone': 'zone',
  '--sport': 'sport', '--orig-port-src': 'sport', '--dport': 'dport', '--orig-port-dst': 'dport', '--state': 'state',
};

const SECOND = { src: 'reply_src', dst: 'reply_dst', sport: 'reply_sport', dport: 'reply_dport' };

/** Words of `conntrack -L` that say nothing about which flow it is. */
const PASSED_OVER = new Set(['packets', 'bytes', 'use', 'delta-time', 'helper', 'id']);

const NAMES = {
  src: 'src', dst: 'dst', sport: 'sport', dport: 'dport', reply_src: 'reply_src', reply_dst: 'reply_dst', reply_sport: 'reply_sport',
  reply_dport: 'reply_dport', proto: 'proto', state: 'state', mark: 'mark', label: 'label', labels: 'label', zone: 'zone', family: 'family',
  type: 'icmp_type', code: 'icmp_code', icmp_type: 'icmp_type', icmp_code: 'icmp_code', icmp_id: 'icmp_id', 'zone-orig': 'orig_zone',
  'zone-reply': 'reply_zone',
};

const FLAGS = {
  assured: ['assured', true], '[assured]': ['assured', true], unreplied: ['seen_reply', false], '[unreplied]': ['seen_reply', false],
  replied: ['seen_reply', true], expected: ['expected', true],
};

const FAMILIES = { 4: 4, 6: 6, ipv4: 4, ipv6: 6 };

const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:.]*:?[0-9a-f:.]*)(\/\d{1,3})?$/i;

/** An address, a network, an address with a port, or a port: `{net, port}`; `null` if it is none of them. */
function end(word) {
  if (/^:\d{1,5}$/.test(word)) return { port: word.slice(1) };
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(word);
  if (bracketed && ADDRESS.test(bracketed[1])) return { net: bracketed[1], port: bracketed[2] };
  const four = /^(\d{1,3}(?:\.\d{1,3}){3}):(\d{1,5})$/.exec(word);
  if (four) return { net: four[1], port: four[2] };
  return ADDRESS.test(word) && /[.:]/.test(word) ? { net: word } : null;
}

/**
 * Understands what was typed. Gives `{filters, both, wrong}`: a flow is wanted if it fits one of the filters; `both` is
 * what fits two of them, or `null` if nothing can; `wrong` are words that mean nothing here.
 */
export function understand(typed) {
  const fields = {};
  const ends = [];
  const wrong = [];
  const words = typed.trim().split(/\s+/).filter(Boolean);
  const put = (name, value, word) => {
    const at = name in fields && name in SECOND ? SECOND[name] : name;
    if (at === 'proto') {
      const number = protocolNumber(value);
      if (number === null) wrong.push(word);
      else fields.proto = number;
    } else if (at === 'family') {
      if (value.toLowerCase() in FAMILIES) fields.family = FAMILIES[value.toLowerCase()];
      else wrong.push(word);
    } else fields[at] = at === 'state' ? value.toUpperCase() : value;
  };
  while (words.length) {
    const word = words.shift();
    const low = word.toLowerCase();
    const [, name, value] = /^([\w-]+)=(.*)$/.exec(word) ?? [];
    if (word in OPTIONS) {
      const [option, given] = [OPTIONS[word], words.shift()];
      if (given === undefined) wrong.push(word);
      else put(option, given, `${word} ${given}`);
    } else if (name in NAMES) {
      if (value) put(NAMES[name], value, word);
      else wrong.push(word);
    } else if (name && PASSED_OVER.has(name)) continue;
    else if (low in FLAGS) {
      const [flag, is] = FLAGS[low];
      fields[flag] = is;
    } else if (low === 'ipv4' || low === 'ipv6') fields.family = FAMILIES[low];
    else if (end(word)) ends.push(end(word));
    else if (/^[a-z]+$/i.test(word) && protocolNumber(word) !== null) fields.proto = protocolNumber(word);
    // A port; but in a line of conntrack the protocol's number, then the timeout.
    else if (/^\d{1,5}$/.test(word) && !typed.includes('src=')) ends.push({ port: word });
    else if (/^\d+$/.test(word) && typed.includes('src=')) continue;
    else if (/^[A-Z][A-Z0-9_]*$/.test(word)) fields.state = word;
    else wrong.push(word);
  }
  if (ends.length > 2) wrong.push(...ends.slice(2).map(({ net, port }) => `${net ?? ''}${port ? `:${port}` : ''}`));
  const given = { ...fields };
  const is = (one, other) => ({ ...given, ...at('src', 'sport', one), ...at('dst', 'dport', other) });
  const at = (net, port, some) => ({ ...(some?.net ? { [net]: some.net } : {}), ...(some?.port ? { [port]: some.port } : {}) });
  const [one, other] = ends;
  if (!one) return { filters: [given], both: null, wrong };
  // A port alone is the one that was asked for.
  if (!one.net && !other) return { filters: [is(null, one)], both: null, wrong };
  if (!other) return { filters: [is(one, null), is(null, one)], both: is(one, one), wrong };
  if (!other.net) {
    const there = { net: one.net, port: other.port };
    return { filters: [is(one, other), is(null, there)], both: is(one, there), wrong };
  }
  if (one.net === other.net && one.port === other.port) return { filters: [is(one, other)], both: null, wrong };
  return { filters: [is(one, other), is(other, one)], both: null, wrong };
}
