// Who changed what: the rulesets that ran, newest first, and their text.

import { get, query } from './api.js';
import { attr, el, keyed, panel, table, text } from './dom.js';
import { count, moment } from './format.js';

const OUTCOMES = { applied: ['', ''], unconfirmed: ['not confirmed yet', 'warn'], confirmed: ['confirmed', 'good'], rolled_back: ['rolled back', 'bad'] };
const TEXT_MAX = 400000;

/** A change made from the page waits for a confirmation, always: nobody is to lock himself out with a click. */
const CONFIRM_SECS = 60;

const parts = {};
let app = null;

export function build(root, shared) {
  app = shared;
  const list = table([['number', 'r'], 'when', 'who', 'what', 'outcome', ['rules', 'r'], 'text'], { class: 'events', id: 'history-table' });
  parts.body = list.body;
  parts.where = el('span', { class: 'muted' });
  parts.title = el('h2');
  parts.text = el('pre', { tabindex: 0, 'aria-label': 'Rules' });
  parts.shown = el('section', { class: 'panel', hidden: true },
    el('header', {}, parts.title, el('button', { type: 'button', class: 'link', on: { click: () => { parts.shown.hidden = true; } } }, 'Close')),
    el('div', { class: 'body' }, parts.text));
  root.append(el('div', { class: 'grid' }, panel('History', {}, parts.where, el('div', { class: 'scroll' }, list.node)), parts.shown));
}

export function update() {
  if (!app.history) return;
  const { entries, running, dir } = app.history;
  text(parts.where, dir ? `kept in ${dir}` : 'in memory only: it ends with the daemon');
  keyed(parts.body, [...entries].reverse(), ({ number }) => number, row);
  for (const [number, { node }] of parts.body.palisadeRows) attr(node, 'class', number === running ? 'running' : null);
}

function row(entry) {
  const outcome = el('td', { class: 'when' });
  const why = entry.comment ? el('div', { class: 'muted' }, entry.comment) : null;
  const show = (family) => el('button', {
    type: 'button', class: 'link', 'aria-label': `IPv${family} rules of ruleset ${entry.number}`, on: { click: () => showText(entry.number, family) },
  }, `IPv${family}`);
  const back = el('button', {
    type: 'button', class: 'link', hidden: true,
    on: { click: () => app.change('/v1/rollback', { number: entry.number, confirm_secs: CONFIRM_SECS, comment: 'from the web page' }) },
  }, `go back to it (${CONFIRM_SECS} s to confirm)`);
  return {
    node: el('tr', {}, el('td', { class: 'r' }, `${entry.number}`), el('td', { class: 'when num' }, moment(entry.at_us)), el('td', {}, entry.who),
      el('td', {}, entry.what, why), outcome, el('td', { class: 'r num' }, count(entry.rules)), el('td', { class: 'when' }, show(4), ' ', show(6), ' ', back)),
    update(item) {
      const isRunning = item.number === app.history.running;
      back.hidden = !app.write || isRunning || Boolean(app.history.pending);
      const [words, kind] = OUTCOMES[item.outcome] ?? [item.outcome, ''];
      const said = [isRunning ? 'runs' : '', words].filter(Boolean).join(', ');
      if (outcome.textContent !== said) outcome.replaceChildren(said ? el('span', { class: `badge ${isRunning && !kind ? 'good' : kind}` }, said) : '');
    },
  };
}

async function showText(number, family) {
  text(parts.title, `Ruleset ${number}, IPv${family}`);
  parts.shown.hidden = false;
  try {
    const rules = await get(`/v1/history/rules${query({ number, family })}`);
    const cut = rules.length > TEXT_MAX ? `${rules.slice(0, TEXT_MAX)}\n# ${count(rules.length - TEXT_MAX)} characters more: fwctl history ${number}` : rules;
    text(parts.text, cut || '# no rules');
  } catch (error) {
    text(parts.text, error.message);
  }
  parts.shown.scrollIntoView({ block: 'nearest' });
}
