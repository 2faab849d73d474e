// Elements without markup: text goes in as text only, so nothing that came from a packet, a rule or a name can be more.

/** An element: `el('td', {class: 'r', on: {click: f}, data: {label: 'x'}}, 'text', other)`. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else if (name === 'data') Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Sets text, and touches the page only if it differs. */
export function text(node, value) {
  const next = String(value);
  if (node.textContent !== next) node.textContent = next;
}

/** Sets or takes an attribute, and touches the page only if it differs. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/**
 * Keeps the children of `parent` in step with `items`: elements of items that stay are kept (focus, selection and place
 * with them), new ones are made by `make(item)`, which gives `{node, update(item)}`.
 */
export function keyed(parent, items, keyOf, make) {
  const before = parent.palisadeRows ?? new Map();
  const now = new Map();
  const wanted = new Set(items.map(keyOf));
  // First, so that rows behind them need not move.
  for (const [key, row] of before) if (!wanted.has(key)) row.node.remove();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const row = before.get(key) ?? make(item);
    now.set(key, row);
    row.update?.(item);
    if (row.node === place) place = place.nextElementSibling;
    else parent.insertBefore(row.node, place);
  }
  parent.palisadeRows = now;
}

/** A panel with a heading; `extra` stands at the right of the heading. */
export function panel(title, props = {}, extra = null, ...children) {
  const { class: more = '', ...rest } = props;
  return el('section', { class: `panel ${more}`, ...rest }, el('header', {}, el('h2', {}, title), extra), ...children);
}

/** A table with these headings: texts, or `[text, class]`. */
export function table(headings, props = {}) {
  const cells = headings.map((heading) => {
    const [words, kind] = Array.isArray(heading) ? heading : [heading, null];
    return el('th', { class: kind, scope: 'col' }, words);
  });
  const body = el('tbody');
  const node = el('table', props, el('thead', {}, el('tr', {}, cells)), body);
  return { node, body };
}

/** Buttons of which one is pressed: `choices` are `[value, text]`. Gives `{node, value}`. */
export function choice(label, choices, first, changed) {
  const state = { value: first };
  const buttons = choices.map(([value, words]) => el('button', {
    type: 'button',
    'aria-pressed': String(value === first),
    on: {
      click: () => {
        state.value = value;
        buttons.forEach((button, at) => attr(button, 'aria-pressed', String(choices[at][0] === value)));
        changed(value);
      },
    },
  }, words));
  state.node = el('span', { class: 'seg', role: 'group', 'aria-label': label }, buttons);
  return state;
}
