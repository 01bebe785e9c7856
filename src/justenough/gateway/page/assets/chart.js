// The live picture: the bits of each token, and below them the running entropy of each step against τ.
import { canvas, draw, line, path, text, ticks } from "./draw.js";
import { bits as said, count, shade } from "./words.js";

const SIDE = { left: 46, right: 16 };
const BARS = { top: 24, tall: 52 };
const MEANS = { top: 112, tall: 176 };
const bottom = MEANS.top + MEANS.tall;

export function liveChart(width, follower, threshold, { running = false } = {}) {
  const { tokens, steps } = follower;
  const shown = running ? Math.max(64, 32 * Math.ceil((1.04 * tokens.length) / 32)) : Math.max(16, tokens.length);
  const x = (at) => SIDE.left + (at / shown) * (width - SIDE.left - SIDE.right);
  const svg = canvas(width, bottom + 40, words(follower, threshold));
  svg.append(text(SIDE.left, 12, "each token, bits", "tick"), text(SIDE.left, MEANS.top - 12, `running entropy of the step, ${follower.unit}`, "tick"));
  bars(svg, width, x, tokens);
  means(svg, width, x, follower, threshold);
  for (const value of ticks(0, shown, width < 560 ? 4 : 8)) {
    svg.append(line(x(value), bottom, x(value), bottom + 4, "axis"), text(x(value), bottom + 18, count(value), "tick", "middle"));
  }
  svg.append(text(width - SIDE.right, bottom + 36, "tokens", "tick", "end"));
  const cut = follower.stopped ? lastOf(steps.at(-1).tokens) : null;
  const answer = tokens.find((token) => token.part === "answer" && (cut === null || token.at > cut));
  if (cut !== null) {
    const at = x(cut + 1);
    const named = follower.gated ? "stopped" : "would stop";
    const left = at + 70 > width;
    svg.append(line(at, BARS.top - 8, at, bottom, follower.gated ? "tau" : "tau would"), text(at + (left ? -6 : 6), BARS.top - 10, named, "tick accent-text strong halo", left ? "end" : "start"));
  }
  if (answer && x(tokens.length) - x(answer.at) > 50) {
    svg.append(line(x(answer.at), MEANS.top, x(answer.at), bottom, "stem"));
    svg.append(text((x(answer.at) + x(tokens.length)) / 2, MEANS.top + 8, "answer", "tick", "middle"));
  }
  return svg;
}

// Round numbers from 0 to `most` that do not crowd each other, powers of ten first.
function spread(unit, most, y) {
  const out = [0];
  for (const factor of [1, 5, 2])
    for (let power = Math.ceil(Math.log10(most)); power >= Math.floor(Math.log10(unit)) - 1; power--) {
      const value = Number((factor * 10 ** power).toPrecision(3));
      if (value <= most && out.every((other) => Math.abs(y(other) - y(value)) > 22)) out.push(value);
    }
  return out;
}

const lastOf = (tokens) => (tokens.length ? tokens.at(-1).at : null);

function bars(svg, width, x, tokens) {
  const most = Math.max(2, ...columns(tokens, x, (token) => token.bits).map(([, value]) => value));
  const base = BARS.top + BARS.tall;
  const tall = (value) => (BARS.tall * value) / most;
  svg.append(line(SIDE.left, base, width - SIDE.right, base, "axis"));
  for (const value of ticks(0, most, 3)) svg.append(text(SIDE.left - 8, base - tall(value) + 4, String(value), "tick", "end"));
  const wide = Math.max(1, Math.min(10, x(1) - x(0) - 1));
  for (const [at, value] of columns(tokens, x, (token) => token.bits)) {
    const height = Math.max(0.75, tall(value));
    svg.append(draw("rect", { class: `bits b${shade(value)}`, x: at.toFixed(1), y: (base - height).toFixed(1), width: wide.toFixed(1), height: height.toFixed(1) }));
  }
}

// A long thought has more tokens than the screen has columns: each shows the largest of its own.
function columns(tokens, x, of) {
  const out = [];
  for (const token of tokens) {
    const value = of(token);
    if (value === null) continue;
    const at = x(token.at);
    const last = out.at(-1);
    if (last && at - last[0] < 1) last[1] = Math.max(last[1], value);
    else out.push([at, value]);
  }
  return out;
}

function means(svg, width, x, follower, threshold) {
  const { tokens, steps, open } = follower;
  const ends = steps.map((step) => step.bits).filter((value) => value !== null);
  // The first tokens of a step swing; what matters is where they settle, and that near τ can be seen.
  const settled = [...steps.map((step) => step.tokens), open].flatMap((of) => of.slice(Math.min(4, of.length - 1)).map((token) => token.mean ?? 0));
  const wanted = threshold === null ? [] : [2.2 * threshold];
  const most = Math.max(1e-6, ...wanted, ...ends.map((value) => 1.2 * value), ends.length ? 0 : 1.1 * Math.max(0, ...settled)) || 1;
  // Steps can be hundreds of times less sure than τ: beyond it the scale is logarithmic, so that both can be seen.
  const grown = (value) => (threshold > 0 ? Math.log1p(value / threshold) : value);
  const y = (value) => bottom - (grown(Math.min(value, 1.04 * most)) / grown(most)) * MEANS.tall;
  if (threshold !== null) svg.append(draw("rect", { class: "zone", x: SIDE.left, y: y(threshold), width: width - SIDE.left - SIDE.right, height: bottom - y(threshold) }));
  for (const value of threshold > 0 ? spread(threshold, most, y) : ticks(0, most, 4)) {
    svg.append(line(SIDE.left, y(value), width - SIDE.right, y(value), value ? "grid" : "axis"), text(SIDE.left - 8, y(value) + 4, String(value), "tick", "end"));
  }
  for (const step of [...steps.map((one) => one.tokens), open]) {
    const points = step.filter((token) => token.mean !== null).map((token) => [x(token.at + 0.5), y(token.mean)]);
    if (points.length) svg.append(path(points, "running"));
  }
  // Hundreds of steps are a band of small points; only the last is named.
  const crowded = steps.length > 1 && (x(tokens.length) - SIDE.left) / steps.length < 14;
  let free = 0;
  for (const [number, step] of steps.entries()) {
    const end = lastOf(step.tokens);
    if (end === null) continue;
    const sure = threshold !== null && step.bits !== null && step.bits <= threshold;
    const last = number === steps.length - 1;
    if (!crowded) svg.append(line(x(end + 1), MEANS.top - 4, x(end + 1), bottom, "stem"));
    if (step.bits === null) continue;
    svg.append(draw("circle", { cx: x(end + 0.5), cy: y(step.bits), r: crowded && !last ? 2 : 4.5, class: `point ${sure ? "sure" : "unsure"}${crowded ? " small" : ""}` }));
    if (crowded && !last) continue;
    const label = said(step.bits);
    const wide = 6.4 * label.length;
    // Beside the boundary where there is room, else before it.
    const after = x(end + 1) + 5;
    const [from, anchor] = (!last || x(end) - wide < SIDE.left + 8) && after + wide < width - SIDE.right ? [after, "start"] : [x(end + 0.5) - 8, "end"];
    const left = anchor === "start" ? from : from - wide;
    if (left < free) continue;
    svg.append(text(from, Math.max(y(step.bits) - 8, MEANS.top + 2), label, sure ? "tick accent-text halo" : "tick halo", anchor));
    free = left + wide + 4;
  }
  if (threshold !== null) {
    svg.append(line(SIDE.left, y(threshold), width - SIDE.right, y(threshold), "tau level"));
    svg.append(text(width - SIDE.right + 5, y(threshold) + 4, "τ", "tau-text"));
  }
}

function words(follower, threshold) {
  const ended = follower.steps.map((step, number) => `step ${number + 1} ${said(step.bits)}`).join(", ");
  return `Entropy in bits of ${follower.tokens.length} tokens, and its running value in each step${threshold === null ? "" : ` against the threshold ${said(threshold)}`}${ended ? `: ${ended}` : ""}. The table of steps holds the figures.`;
}
