// The frame: which view is shown, when the daemon is asked, what is said about how it answers.

import { change, get } from './api.js';
import { attr, el, keyed, text } from './dom.js';
import { count, many, span } from './format.js';
import { Model } from './model.js';
import * as overview from './overview.js';
import * as rules from './rules.js';
import * as flows from './flows.js';
import * as explain from './explain.js';
import * as workers from './workers.js';
import * as history from './history.js';

const EVERY_MS = 1000;
const EVERY_MS_WHEN_LOST = 3000;
const HISTORY_EVERY_MS = 3000;

const VIEWS = { overview, rules, flows, explain, workers, history };

const model = new Model();
const byId = (id) => document.getElementById(id);

/** What views share. */
const app = {
  model,
  history: null,
  /** Whether the page may confirm and roll back: where the daemon says so. */
  write: false,
  /** Changes something, says how it went, and looks at the history anew. */
  async change(target, body) {
    try {
      await change(target, body);
      refused = null;
    } catch (error) {
      refused = error.message;
    }
    askedHistory = 0;
    await look().catch(() => {});
    update();
  },
  /** Goes to a view and hands something over to it. */
  go(name, given) {
    if (given !== undefined) VIEWS[name].take?.(given);
    location.hash = name;
  },
};

let shown = null;
let isPaused = false;
let lostSince = null;
let refused = null;
let askedHistory = 0;

function show() {
  const asked = location.hash.slice(1);
  const name = asked in VIEWS ? asked : 'overview';
  if (shown === name) return;
  if (shown) {
    byId(`view-${shown}`).hidden = true;
    VIEWS[shown].leave?.();
  }
  const root = byId(`view-${name}`);
  if (!root.hasChildNodes()) VIEWS[name].build(root, app);
  root.hidden = false;
  shown = name;
  for (const link of document.querySelectorAll('.tabs a')) {
    attr(link, 'aria-current', link.hash === `#${name}` ? 'page' : null);
  }
  document.title = name === 'overview' ? 'Palisade' : `${name[0].toUpperCase()}${name.slice(1)} · Palisade`;
  VIEWS[name].enter?.();
  update();
}

function update() {
  if (!model.stats) return;
  text(byId('uptime'), span(model.now / 1000));
  text(byId('generation'), `#${model.stats.generation}`);
  VIEWS[shown].update?.(model);
  alerts();
}

/** What an operator must not miss, whatever view is shown. */
function alerts() {
  const said = [];
  if (lostSince !== null) {
    said.push({ key: 'lost', kind: 'bad', words: `The daemon has not answered for ${span((Date.now() - lostSince) / 1000)}. `
      + 'What is shown is what it said last; the page goes on by itself.' });
  }
  const pending = app.history?.pending;
  if (pending) {
    const left = Math.max(0, pending.secs_left - Math.round((Date.now() - app.history.taken) / 1000));
    said.push({ key: 'pending', kind: 'warn', words: `Ruleset ${pending.number} waits for its confirmation: in ${left} s ruleset `
      + `${pending.back_to} comes back.${app.write ? '' : ' fwctl confirm keeps it.'}`, actions: app.write });
  }
  if (refused) said.push({ key: 'refused', kind: 'bad', words: `Not done: ${refused}.` });
  for (const worker of model.stats?.workers ?? []) {
    if (worker.stalled) {
      said.push({ key: `worker ${worker.id}`, kind: 'bad', words: `Worker ${worker.id} has not polled for `
        + `${(worker.stalled.ms / 1000).toFixed(1)} s: ${worker.stalled.why}. ${worker.stalled.advice}` });
    }
  }
  for (const port of model.stats?.ports ?? []) {
    if (!port.link_up) said.push({ key: `port ${port.name}`, kind: 'bad', words: `The link of ${port.name} (${port.wire}, ${port.side}) is down.` });
  }
  const { count: have = 0, max = 0 } = model.stats?.flows ?? {};
  if (max > 0 && have >= 0.9 * max) {
    said.push({ key: 'flows', kind: 'warn', words: `The flow table is nearly full: ${count(have)} of ${many(max, 'flow')}.` });
  }
  if (app.history?.trouble) said.push({ key: 'trouble', kind: 'warn', words: `History: ${app.history.trouble}` });
  keyed(byId('alerts'), said, ({ key, actions }) => `${key} ${Boolean(actions)}`, ({ kind, actions }) => {
    const words = el('span', { class: 'grow' });
    const button = (name, target, body) => el('button', { type: 'button', on: { click: () => app.change(target, body) } }, name);
    const buttons = actions ? [button('Keep it', '/v1/confirm', {}), button('Take it back now', '/v1/rollback', {})] : [];
    return { node: el('p', { class: `alert ${kind}` }, words, buttons), update: (item) => text(words, item.words) };
  });
}

function say(kind, words) {
  const pill = byId('live');
  attr(pill, 'class', `pill ${kind}`);
  text(pill, words);
  document.body.classList.toggle('stale', kind === 'bad');
}

async function look() {
  const stats = await get('/v1/stats');
  model.take(stats);
  if (lostSince !== null) {
    lostSince = null;
    askedHistory = 0;
  }
  if (Date.now() - askedHistory >= HISTORY_EVERY_MS) {
    askedHistory = Date.now();
    app.history = { ...await get('/v1/history'), taken: Date.now() };
  }
}

/** Asks once a second, as long as somebody looks. */
async function run() {
  for (;;) {
    if (isPaused) say('warn', 'paused');
    else if (!document.hidden) {
      try {
        await look();
        say('good', 'live');
      } catch (error) {
        if (error.isLost) lostSince ??= Date.now();
        say('bad', error.isLost ? 'no answer' : 'refused');
        if (!error.isLost) console.warn(error.message);
        alerts();
      }
      update();
    }
    await new Promise((resolve) => { setTimeout(resolve, lostSince === null ? EVERY_MS : EVERY_MS_WHEN_LOST); });
  }
}

function pause() {
  isPaused = !isPaused;
  const button = byId('pause');
  attr(button, 'aria-pressed', String(isPaused));
  text(button, isPaused ? 'Go on' : 'Pause');
  say(isPaused ? 'warn' : '', isPaused ? 'paused' : 'connecting');
}

/** Keys of a terminal program, while nobody is typing. */
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, select, textarea')) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const name = Object.keys(VIEWS)[Number(event.key) - 1];
  if (name) app.go(name);
  else if (event.key === 'p') pause();
  else if (event.key === '/') {
    const field = document.querySelector('main > section:not([hidden]) [data-first]');
    if (!field) return;
    field.focus();
    field.select?.();
    event.preventDefault();
  }
}

byId('pause').addEventListener('click', pause);
document.addEventListener('keydown', keys);
window.addEventListener('hashchange', show);
get('/v1/web').then(({ write }) => { app.write = write; }, () => {});
get('/v1/version').then(({ version }) => text(byId('version'), version), () => {});
show();
run();
