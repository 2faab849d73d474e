// What the daemon counts, over the last two minutes: rates are differences of two answers, divided by the daemon's own
// clock, so that a late answer is no dent.

/** How much is kept and drawn. */
export const SPAN_MS = 120000;

const RATE_MIN_MS = 200;

/** The last answers to `GET /v1/stats`, as rates. */
export class Model {
  stats = null;
  #before = null;
  #series = new Map();

  /** Takes an answer in. */
  take(stats) {
    if (this.stats && stats.uptime_ms < this.stats.uptime_ms) {
      // Another daemon: nothing of the old one can be compared.
      this.#series.clear();
      this.stats = null;
    }
    this.#before = this.stats;
    this.stats = stats;
    if (!this.#before || this.#elapsed() < RATE_MIN_MS) return;
    for (const [name, value] of this.#counters()) this.#push(name, value);
    this.#push('flows', stats.flows.count);
  }

  /** The daemon's clock at the last answer, in milliseconds. */
  get now() { return this.stats?.uptime_ms ?? 0; }

  /** What happened to a number: `[ms, per second]`, oldest first. */
  points(name) { return this.#series.get(name) ?? []; }

  /** The last rate of a number. */
  rate(name) {
    const points = this.points(name);
    return points.length ? points[points.length - 1][1] : 0;
  }

  #elapsed() { return this.stats.uptime_ms - this.#before.uptime_ms; }

  #push(name, value) {
    const points = this.#series.get(name) ?? [];
    points.push([this.now, value]);
    while (points.length && points[0][0] < this.now - SPAN_MS - 2000) points.shift();
    this.#series.set(name, points);
  }

  /** Every number of which a rate is kept, by name. */
  * #counters() {
    const seconds = this.#elapsed() / 1000;
    const [now, before] = [this.stats, this.#before];
    const grown = (is, was) => Math.max(0, is - (was ?? 0)) / seconds;
    const sums = { packets: 0, bytes: 0 };
    for (const wire of now.wires) {
      const old = before.wires.find(({ name }) => name === wire.name);
      if (!old) continue;
      for (const way of ['left_to_right', 'right_to_left']) {
        for (const unit of ['packets', 'bytes']) {
          const rate = grown(wire[way][unit], old[way][unit]);
          sums[unit] += rate;
          yield [`wire ${wire.name} ${way} ${unit}`, rate];
        }
      }
    }
    yield ['forwarded packets', sums.packets];
    yield ['forwarded bytes', sums.bytes];
    for (const port of now.ports) {
      const old = before.ports.find(({ name }) => name === port.name);
      if (!old) continue;
      for (const way of ['rx', 'tx']) {
        for (const unit of ['packets', 'bytes']) yield [`port ${port.name} ${way} ${unit}`, grown(port[way][unit], old[way][unit])];
      }
      for (const queue of port.queues) {
        const was = old.queues.find((one) => one.queue === queue.queue);
        if (!was) continue;
        for (const counter of ['rx_dropped', 'rx_ring_full', 'fill_ring_empty', 'invalid_descs', 'kicks', 'rx_descs', 'tx_descs']) {
          yield [`queue ${port.name} ${queue.queue} ${counter}`, grown(queue[counter], was[counter])];
        }
      }
    }
    let dropped = 0;
    for (const drop of now.drops) {
      const was = before.drops.find(({ reason }) => reason === drop.reason);
      const rate = grown(drop.packets, was?.packets);
      dropped += rate;
      if (drop.packets > 0) yield [`drop ${drop.reason}`, rate];
    }
    yield ['dropped', dropped];
    for (const [cause, packets] of Object.entries(now.invalid)) {
      if (packets > 0) yield [`invalid ${cause}`, grown(packets, before.invalid[cause])];
    }
    for (const worker of now.workers) {
      const old = before.workers.find(({ id }) => id === worker.id);
      if (!old) continue;
      yield [`worker ${worker.id} rx`, grown(worker.rx.packets, old.rx.packets)];
      for (const counter of ['bursts', 'idle_polls', 'sleeps', 'handed_off', 'taken_over', 'dropped']) {
        yield [`worker ${worker.id} ${counter}`, grown(worker[counter], old[counter])];
      }
    }
    for (const counter of ['inserted', 'expired', 'evicted', 'closed', 'refused']) {
      yield [`flows ${counter}`, grown(now.flows[counter], before.flows[counter])];
    }
  }
}
