// Bits from log-probabilities, exactly the signal of the calibration; a test holds them equal to Python's.
const ROUNDING = 1e-3;
const WINDOW = 16;

// Entropy in bits of one token's natural log-probabilities; null where the signal cannot be taken of them.
export function tokenBits(logprobs, { topK = 20, tail = "renormalise" } = {}) {
  if (!logprobs || logprobs.length < topK) return null;
  const values = logprobs.map((value) => (value === null ? -Infinity : value));
  if (values.some((value) => !(value <= ROUNDING))) return null;
  const kept = values.sort((a, b) => b - a).slice(0, topK);
  let mass = 0;
  let weighted = 0;
  for (const value of kept) {
    const weight = Math.exp(value);
    mass += weight;
    if (weight > 0) weighted += weight * value;
  }
  if (!(mass > 0)) return null;
  let bits = (Math.log(mass) - weighted / mass) / Math.LN2;
  if (tail === "bucket") {
    // What is missing counts as one symbol more.
    const seen = Math.min(mass, 1);
    const missing = 1 - seen;
    bits = seen * bits - (seen * Math.log2(seen) + (missing > 0 ? missing * Math.log2(missing) : 0));
  } else if (tail === "full" && Math.abs(mass - 1) > ROUNDING) return null;
  return Math.max(bits, 0);
}

const RUNNING = new Set(["mean", "sum", "last-quarter", "worst-window", "90th-percentile", "maximum", "surprisal"]);

// One number for a step from its tokens so far, by the calibration's pooling. Other poolings need the whole step, and
// only the gateway knows them: their value here is null.
export class Pool {
  constructor(pooling = "mean") {
    this.pooling = pooling;
    this.sums = [0];
    this.sorted = [];
    this.worst = null;
  }

  get count() {
    return this.sums.length - 1;
  }

  add(bits, logprob = null) {
    if (this.pooling === "surprisal") {
      // One token without makes the whole unknown.
      this.sums.push(logprob === null ? NaN : this.sums[this.count] - logprob / Math.LN2);
      return;
    }
    this.sums.push(this.sums[this.count] + bits);
    if (this.pooling === "worst-window") {
      const window = this.#mean(this.count - Math.min(WINDOW, this.count));
      if (this.count <= WINDOW || window > this.worst) this.worst = window;
    } else if (this.pooling === "90th-percentile" || this.pooling === "maximum") {
      let at = this.sorted.length;
      while (at && this.sorted[at - 1] > bits) at--;
      this.sorted.splice(at, 0, bits);
    }
  }

  get value() {
    const n = this.count;
    if (!n || !RUNNING.has(this.pooling)) return null;
    if (this.pooling === "mean") return this.#mean(0);
    if (this.pooling === "surprisal") return Number.isFinite(this.sums[n]) ? Math.max(0, this.#mean(0)) : null;
    if (this.pooling === "sum") return this.sums[n];
    if (this.pooling === "last-quarter") return this.#mean(n - Math.max(1, Math.ceil(n / 4)));
    if (this.pooling === "worst-window") return this.worst;
    if (this.pooling === "maximum") return this.sorted[n - 1];
    const place = 0.9 * (n - 1);
    const below = Math.floor(place);
    const next = this.sorted[Math.min(below + 1, n - 1)];
    return this.sorted[below] + (place - below) * (next - this.sorted[below]);
  }

  #mean(from) {
    return (this.sums[this.count] - this.sums[from]) / (this.count - from);
  }
}
