// Numbers and words as people read them.

const SPACE = '\u202f'; // narrow, does not break

/** All digits, in groups of three. */
export function count(number) {
  const digits = String(Math.trunc(number));
  return digits.replace(/\B(?=(\d{3})+(?!\d))/g, SPACE);
}

/** Three digits that matter and a decimal prefix: `[text, prefix]`. */
function scaled(number) {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let at = 0;
  let value = number;
  // 999.5 would be written 1000.
  while (value >= 999.5 && at < prefixes.length - 1) { value /= 1000; at += 1; }
  if (at === 0) return [value > 0 && value < 9.95 && !Number.isInteger(value) ? value.toFixed(1) : value.toFixed(0), ''];
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return [value.toFixed(digits), prefixes[at]];
}

/** `1.23M`. */
export function short(number) {
  return scaled(number).join('');
}

/** `1.23 Gbit/s`. */
export function bits(number) {
  const [digits, prefix] = scaled(number);
  return `${digits}${SPACE}${prefix}bit/s`;
}

/** `1.23 kp/s`. */
export function packets(number) {
  const [digits, prefix] = scaled(number);
  return `${digits}${SPACE}${prefix}p/s`;
}

/** `1.23k/s`. */
export function perSecond(number) {
  return `${short(number)}/s`;
}

/** `1.23 MB`. */
export function bytes(number) {
  const [digits, prefix] = scaled(number);
  return `${digits}${SPACE}${prefix}B`;
}

/** A share in percent. */
export function percent(part, whole) {
  if (!whole) return '–';
  const value = (100 * part) / whole;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)}${SPACE}%`;
}

/** A time span: `3 d 04:05`, `04:05:06`. */
export function span(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, '0');
  const days = Math.floor(whole / 86400);
  const [hours, minutes, rest] = [Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  return days > 0 ? `${days}${SPACE}d ${two(hours)}:${two(minutes)}` : `${two(hours)}:${two(minutes)}:${two(rest)}`;
}

/** A moment by the browser's clock and zone, in an order that sorts. */
export function moment(micros) {
  const at = new Date(micros / 1000);
  const two = (number) => String(number).padStart(2, '0');
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `
    + `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

const PROTOCOLS = {
  0: 'all', 1: 'icmp', 2: 'igmp', 4: 'ipip', 6: 'tcp', 17: 'udp', 33: 'dccp', 41: 'ipv6', 47: 'gre', 50: 'esp', 51: 'ah',
  58: 'icmpv6', 89: 'ospf', 103: 'pim', 112: 'vrrp', 132: 'sctp', 136: 'udplite',
};

/** A protocol's name for its number as rules have it (`6`, `!6`), the number where it has none. */
export function protocol(number) {
  const [, not, digits] = /^(!?)(.*)$/.exec(String(number));
  return not + (PROTOCOLS[digits] ?? digits);
}

/** The number of a protocol by name or number; `null` if it is none. */
export function protocolNumber(word) {
  const found = Object.entries(PROTOCOLS).find(([number, name]) => number !== '0' && name === word.toLowerCase());
  if (found) return Number(found[0]);
  return /^\d{1,3}$/.test(word) && Number(word) < 256 ? Number(word) : null;
}

/** `1 rule`, `2 rules`. */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}
