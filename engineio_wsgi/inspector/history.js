// The last five minutes of all workers: what each has told, period by period, and their sums.

const KEPT = 150; // periods
export const PERIOD = 2; // seconds, as the workers take their samples
// the fields of a sample, as a worker sends them
const [SLOT, SESSIONS, OPENED, CLOSED, REFUSED, IN, OUT, LAG] = [0, 1, 2, 3, 4, 5, 6, 7];

export class History {
  constructor() {
    this.workers = new Map(); // by worker: its samples by period
  }

  add(worker, samples) {
    const known = this.workers.get(worker) ?? new Map();
    for (const sample of samples) known.set(sample[SLOT], sample);
    for (const slot of [...known.keys()].slice(0, -KEPT)) known.delete(slot);
    this.workers.set(worker, known);
  }

  /** By worker: the period up to which this page has its samples. */
  since() {
    return Object.fromEntries([...this.workers].map(([worker, known]) => [worker, last(known)]));
  }

  /** The periods to draw: up to the last one that all workers have told. One that is silent is not waited for. */
  #slots() {
    const ends = [...this.workers.values()].map(last);
    const latest = Math.max(0, ...ends);
    const end = Math.min(...ends.filter((slot) => slot >= latest - 2), latest);
    return Array.from({ length: KEPT }, (_, index) => end - KEPT + 1 + index);
  }

  /** For each period: what `combine` makes of the samples of all workers; null where there is none. */
  #series(combine) {
    return this.#slots().map((slot) => {
      const samples = [...this.workers.values()].map((known) => known.get(slot)).filter((sample) => sample);
      return samples.length ? combine(samples) : null;
    });
  }

  /** Null where no worker has counted. */
  #sum(field, factor) {
    return this.#series((samples) => {
      const counted = samples.map((sample) => sample[field]).filter((value) => value !== null);
      return counted.length ? counted.reduce((sum, value) => sum + value, 0) * factor : null;
    });
  }

  sessions() {
    return [this.#sum(SESSIONS, 1)];
  }

  messages() {
    return [this.#sum(IN, 1 / PERIOD), this.#sum(OUT, 1 / PERIOD)];
  }

  turnover() {
    return [OPENED, CLOSED, REFUSED].map((field) => this.#sum(field, 1 / PERIOD));
  }

  lag() {
    return [this.#series((samples) => Math.max(...samples.map((sample) => sample[LAG])))];
  }

  /** Refusals of the last minute. */
  refusedInMinute() {
    return this.#sum(REFUSED, 1).slice(-60 / PERIOD).reduce((sum, count) => sum + (count ?? 0), 0);
  }

  /** Messages per second of one worker, in its last period. */
  rateOf(worker) {
    const known = this.workers.get(worker);
    const sample = known?.get(last(known));
    return sample ? (sample[IN] + sample[OUT]) / PERIOD : 0;
  }
}

function last(known) {
  return known.size ? Math.max(...known.keys()) : 0;
}
