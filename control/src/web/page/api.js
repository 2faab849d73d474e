// The daemon's API, the one that fwctl uses. Same origin only.

/** A "no" of the daemon, or of the way to it. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.message ?? (status ? `the daemon answered ${status}` : 'the daemon does not answer'));
    this.status = status;
    this.diagnostics = body?.diagnostics ?? [];
  }

  /** Whether nobody answered at all. */
  get isLost() { return this.status === 0; }
}

const ANSWER_TIMEOUT_MS = 15000;

/** Very many rules take a while to compile. */
const CHANGE_TIMEOUT_MS = 300000;

async function ask(target, options = {}) {
  const { signal, wait = ANSWER_TIMEOUT_MS, ...rest } = options;
  const timeout = AbortSignal.timeout(wait);
  let answer;
  try {
    answer = await fetch(target, {
      cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer',
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      ...rest,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, null);
  }
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => null));
}

/** Data at an address. */
export async function get(target, signal) {
  const answer = await ask(target, { signal });
  // The body may break off as well.
  return answer.json().catch((error) => { throw signal?.aborted ? error : new Refused(0, null); });
}

/** The answer to a question that needs a body. */
export async function post(target, body, options = {}) {
  const answer = await ask(target, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...options,
  });
  return answer.json();
}

/** Changes something. Without an answer it may be done all the same. */
export async function change(target, body) {
  try {
    return await post(target, body, { wait: CHANGE_TIMEOUT_MS });
  } catch (error) {
    if (!error.isLost) throw error;
    throw new Refused(0, { message: 'no answer in time; look at the history' });
  }
}

/**
 * The first rows of an answer of lines, at most `most`; whether there are more. What is not wanted any more is not
 * fetched: the daemon ends its walk when we hang up.
 */
export async function rows(target, most, signal) {
  const stop = new AbortController();
  const answer = await ask(target, { signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const found = [];
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { found, more: false };
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (!line) continue;
        if (found.length === most) return { found, more: true };
        found.push(JSON.parse(line));
      }
    }
  } catch (error) {
    throw signal?.aborted ? error : new Refused(0, { message: 'the answer was cut short; what is shown is not all' });
  } finally {
    stop.abort();
  }
}

/** A query string of what is given. */
export function query(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== '');
  const words = new URLSearchParams(given).toString();
  return words ? `?${words}` : '';
}
