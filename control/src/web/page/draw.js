// Lines over time, drawn in SVG. A line breaks where nothing was looked at (page in the background, pause).

import { attr, svg, text } from './dom.js';

const GAP_MS = 5000;

/** Path of `points` ([ms, value], ascending) in a box; with `closed` the area below it. */
function path(points, from, to, top, width, height, closed) {
  const x = (at) => (((at - from) / (to - from)) * width).toFixed(1);
  const y = (value) => (height - (top > 0 ? Math.min(1, value / top) : 0) * height).toFixed(1);
  let drawn = '';
  let start = null;
  let last = null;
  const close = () => { if (closed && start !== null) drawn += `L${x(last)} ${height}L${x(start)} ${height}Z`; };
  for (const [at, value] of points) {
    if (at < from) continue;
    if (last === null || at - last > GAP_MS) {
      close();
      drawn += `M${x(at)} ${y(value)}`;
      start = at;
    } else drawn += `L${x(at)} ${y(value)}`;
    last = at;
  }
  close();
  return drawn;
}

/** A small line without axes. `update(points, now, top)`. */
export function sparkline(width, height, kind = '') {
  const area = svg('path', { class: 'area' });
  const stroke = svg('path', { class: 'stroke' });
  const group = svg('g', { class: kind }, area, stroke);
  const node = svg('svg', {
    class: 'line', width, height, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true',
  }, group);
  return {
    node,
    update(points, now, spanMs, top = 0) {
      const most = top || Math.max(0, ...points.map(([, value]) => value));
      // Half a pixel of room, so that the stroke is not cut at the top.
      attr(area, 'd', path(points, now - spanMs, now, most * 1.04, width, height, true));
      attr(stroke, 'd', path(points, now - spanMs, now, most * 1.04, width, height, false));
    },
  };
}

/** A round number at or above the largest value: 1, 2 or 5 times a power of ten. */
function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** A chart with an axis: `update(series, now, spanMs, format)`; `series` are `{points, kind}`. */
export function chart(label) {
  const [width, height, left, bottom] = [1000, 180, 0, 16];
  const inner = height - bottom - 12;
  const root = svg('svg', { class: 'chart', role: 'img', 'aria-label': label });
  const lines = svg('g');
  const plot = svg('svg', { preserveAspectRatio: 'none', viewBox: `0 0 ${width} ${inner}`, overflow: 'visible' });
  root.append(lines, plot);
  const marks = [0, 0.5, 1].map((share) => ({
    share,
    line: lines.appendChild(svg('line', { class: 'grid-line' })),
    label: lines.appendChild(svg('text', { 'text-anchor': 'end' })),
  }));
  const times = [0, 0.5, 1].map((share) => ({
    share,
    label: lines.appendChild(svg('text', { 'text-anchor': share === 0 ? 'start' : share === 1 ? 'end' : 'middle' })),
  }));
  // The axis keeps its scale for a while after a peak, so that it does not jump about.
  let top = 1;
  const axis = 78;
  return {
    node: root,
    update(series, now, spanMs, format) {
      const box = root.getBoundingClientRect();
      if (box.width === 0) return;
      const [w, h] = [Math.round(box.width), Math.round(box.height)];
      attr(root, 'viewBox', `0 0 ${w} ${h}`);
      const most = Math.max(0, ...series.flatMap(({ points }) => points.filter(([at]) => at >= now - spanMs).map(([, value]) => value)));
      const wanted = roundUp(most);
      if (wanted > top || wanted < top / 2.1) top = wanted;
      const plotHeight = h - bottom - 8;
      for (const [name, value] of Object.entries({ x: left + axis, y: 8, width: Math.max(1, w - axis - left), height: plotHeight })) attr(plot, name, value);
      for (const { share, line, label: words } of marks) {
        const y = Math.round(8 + plotHeight * (1 - share)) + 0.5;
        for (const [name, value] of Object.entries({ x1: axis, x2: w, y1: y, y2: y })) attr(line, name, value);
        attr(words, 'x', axis - 8);
        attr(words, 'y', y + 4);
        text(words, share === 0 ? '0' : format(top * share));
      }
      for (const { share, label: words } of times) {
        attr(words, 'x', axis + (w - axis) * share);
        attr(words, 'y', h - 1);
        const seconds = Math.round((spanMs / 1000) * (1 - share));
        text(words, seconds === 0 ? 'now' : `−${seconds} s`);
      }
      while (plot.childNodes.length < series.length) {
        plot.append(svg('g', {}, svg('path', { class: 'area' }), svg('path', { class: 'stroke' })));
      }
      [...plot.childNodes].forEach((group, at) => {
        const { points = [], kind = '' } = series[at] ?? {};
        attr(group, 'class', kind);
        attr(group.childNodes[0], 'd', path(points, now - spanMs, now, top, width, inner, true));
        attr(group.childNodes[1], 'd', path(points, now - spanMs, now, top, width, inner, false));
      });
    },
  };
}

/** A bar of a share from 0 to 1. */
export function bar(width = 100, kind = '') {
  const full = svg('rect', { class: `fill ${kind}`, height: 6, rx: 1 });
  const node = svg('svg', { width, height: 6, viewBox: `0 0 ${width} 6`, 'aria-hidden': 'true' },
    svg('rect', { class: 'track', width, height: 6, rx: 1 }), full);
  return {
    node,
    update(share) {
      const length = share > 0 ? Math.max(1, Math.min(1, share) * width) : 0;
      attr(full, 'width', length.toFixed(1));
    },
  };
}
