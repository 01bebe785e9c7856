// The figures of the gate on all problems at one threshold. A test compares them with the library's.
const data = JSON.parse(document.getElementById("data").textContent);
const Z = 1.959963984540054;
const scale = data.scale;

// The place of a signal value on the axis, 0 to 1.
function position(value) {
  if (value <= scale.low) return 0;
  const share =
    scale.kind === "log"
      ? Math.log(value / scale.low) / Math.log(scale.high / scale.low)
      : (value - scale.low) / (scale.high - scale.low);
  return Math.min(1, share);
}

function valueAt(share) {
  return scale.kind === "log"
    ? scale.low * Math.pow(scale.high / scale.low, share)
    : scale.low + share * (scale.high - scale.low);
}

// The column at which a problem stops. A gate with the threshold null never stops.
function stopOf(row, threshold) {
  const { decide, patience, minTokens, maxSteps } = data.gate;
  const bits = data.bits[row];
  const end = Math.min(maxSteps, data.steps) - 1;
  if (threshold === null) return end;
  const last = decide === "first" ? 1 : data.steps;
  let inARow = 0;
  for (let step = 0; step < last; step++) {
    inARow = bits[step] !== null && (bits[step] <= threshold || data.hopeless?.[row][step] === "1") ? inARow + 1 : 0;
    const enough = !minTokens || data.generated[row][step] >= minTokens;
    if (enough && inARow >= (decide === "first" ? 1 : patience)) return Math.min(step, end);
  }
  return end;
}

function wilson(successes, n) {
  const share = successes / n;
  const middle = (share + (Z * Z) / (2 * n)) / (1 + (Z * Z) / n);
  const half = (Z * Math.sqrt((share * (1 - share)) / n + (Z * Z) / (4 * n * n))) / (1 + (Z * Z) / n);
  return [successes ? middle - half : 0, successes < n ? middle + half : 1];
}

// Tango 1998: the score of a paired difference of proportions.
function tangoScore(gained, lost, n, change) {
  const a = 2 * n;
  const b = -gained - lost + (2 * n - gained + lost) * change;
  const c = -lost * change * (1 - change);
  const pLost = (Math.sqrt(Math.max(0, b * b - 4 * a * c)) - b) / (2 * a);
  const variance = n * (2 * pLost + change * (1 - change));
  const distance = gained - lost - n * change;
  if (variance <= 0) return distance === 0 ? 0 : Math.sign(distance) * Infinity;
  return distance / Math.sqrt(variance);
}

function tango(gained, lost, n) {
  const observed = (gained - lost) / n;
  const limit = (outside, sign) => {
    let inside = observed;
    for (let turn = 0; turn < 60; turn++) {
      const middle = (inside + outside) / 2;
      if (sign * tangoScore(gained, lost, n, middle) < Z) inside = middle;
      else outside = middle;
    }
    return (inside + outside) / 2;
  };
  const edge = 1 - 1e-9;
  return [observed <= -edge ? -1 : limit(-edge, 1), observed >= edge ? 1 : limit(edge, -1)];
}

function figuresAt(threshold) {
  const n = data.bits.length;
  const last = data.steps - 1;
  let right = 0, final = 0, tokens = 0, full = 0, stopped = 0, harm = 0, rescue = 0, caught = 0, idle = 0;
  let firstRight = 0, firstKnown = 0;
  for (let row = 0; row < n; row++) {
    const stop = stopOf(row, threshold);
    const here = data.correct[row][stop] === "1";
    const there = data.correct[row][last] === "1";
    right += here;
    final += there;
    tokens += data.spent[row][stop];
    if (data.probes && threshold !== null) tokens += data.probes[row][data.gate.decide === "first" ? Math.min(stop, 1) : stop];
    full += data.spent[row][last];
    stopped += data.spent[row][stop] < data.spent[row][last];
    harm += !here && there;
    rescue += here && !there;
    const first = data.bits[row][0];
    if (first === null) continue;
    firstKnown += 1;
    const above = threshold === null || first > threshold;
    if (data.correct[row][0] === "1") {
      firstRight += 1;
      idle += above;
    } else caught += above;
  }
  const firstWrong = firstKnown - firstRight;
  return {
    threshold,
    n,
    accuracy: right / n,
    change: (right - final) / n,
    changeLimits: tango(rescue, harm, n),
    tokens,
    saving: full > 0 ? 1 - tokens / full : null,
    stopped: stopped / n,
    harm: harm / n,
    harmLimits: wilson(harm, n),
    rescue: rescue / n,
    rescueLimits: wilson(rescue, n),
    caught: firstWrong ? caught / firstWrong : null,
    idle: firstRight ? idle / firstRight : null,
  };
}

// Numbers as text.
const minus = (text) => text.replace("-", "\u2212");
const fixed = (value, digits) => minus(Math.abs(value) < 0.5 * 10 ** -digits ? (0).toFixed(digits) : value.toFixed(digits));
const percent = (value, digits = 1) => (value === null ? "\u2013" : `${fixed(100 * value, digits)}\u00a0%`);
const signed = (value, digits = 1) => {
  const text = fixed(value, digits);
  return Number(value.toFixed(digits)) > 0 ? `+${text}` : text;
};
const count = (value) => Math.round(value).toLocaleString("en-US");
function bitsText(value) {
  if (value === null) return "\u2013";
  if (value === 0 || Math.abs(value) >= 0.1) return value.toFixed(3);
  if (Math.abs(value) < 1e-4) return value.toPrecision(2);
  return Math.abs(value) < 1e-3 ? value.toPrecision(3) : value.toFixed(4);
}
const thresholdText = (value) => (value === null ? "never stops" : `${bitsText(value)}\u00a0${data.unit}`);
