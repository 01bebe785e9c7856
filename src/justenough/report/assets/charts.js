// The charts as SVG. Text from models is only ever inserted as text nodes.
const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function canvas(width, height, label) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
}

const text = (x, y, content, kind = "", anchor = "start") => draw("text", { x, y, class: kind, "text-anchor": anchor }, content);
const line = (x1, y1, x2, y2, kind) => draw("line", { x1, y1, x2, y2, class: kind });
const path = (points, kind) => draw("path", { d: points.map((p, at) => (at ? "L" : "M") + p.map((v) => v.toFixed(1)).join(" ")).join(""), class: kind });

const pen = document.createElement("canvas").getContext("2d");

// The width of a text in the charts' font, in pixels.
function widthOf(words, size) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(words).width;
}

// Round numbers for a linear axis.
function ticks(low, high, number) {
  const rough = (high - low) / number || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const out = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) out.push(Number((at * step).toPrecision(12)));
  return out;
}

function signalTicks(width) {
  if (scale.kind !== "log") return ticks(scale.low, scale.high, width < 500 ? 4 : 8).map((value) => [value, String(value)]);
  const out = [];
  for (let power = Math.floor(Math.log10(scale.low)); power <= Math.ceil(Math.log10(scale.high)); power++)
    for (const factor of [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(3));
      if (value < scale.low || value > scale.high) continue;
      out.push([value, factor === 1 || (width >= 700 && power > -4) ? String(value) : ""]);
    }
  return out;
}

const SIDE = { left: 46, right: 18 };
const plotWidth = (width) => width - SIDE.left - SIDE.right;
const signalX = (width) => (value) => SIDE.left + position(value) * plotWidth(width);

function signalAxis(svg, width, y, { label = true } = {}) {
  const x = signalX(width);
  svg.append(line(SIDE.left, y, width - SIDE.right, y, "axis"));
  for (const [value, content] of signalTicks(width)) {
    svg.append(line(x(value), y, x(value), y + (content ? 5 : 3), "axis"));
    if (content) svg.append(text(x(value), y + 18, content, "tick", "middle"));
  }
  if (label) svg.append(text(width - SIDE.right, y + 34, `${data.quantity} of step 1, ${data.unit}`, "tick", "end"));
}

// Methods with the same threshold share a flag.
function flags() {
  const grouped = new Map();
  for (const method of data.methods) {
    if (method.threshold === null) continue;
    const flag = grouped.get(method.threshold) || { threshold: method.threshold, names: [], chosen: false };
    flag.names.push(method.name);
    flag.chosen ||= method.chosen;
    grouped.set(method.threshold, flag);
  }
  return [...grouped.values()].sort((a, b) => a.threshold - b.threshold);
}

function thresholdChart(width, choose) {
  const narrow = width < 560;
  const tall = narrow ? 230 : 300;
  const lanes = [];
  const placed = flags().map((flag) => {
    const at = signalX(width)(flag.threshold);
    const room = flag.names.join(", ").length * 6.6 + 14;
    const left = at + room > width;
    const [from, to] = left ? [at - room, at] : [at, at + room];
    let lane = lanes.findIndex((end) => from > end + 4);
    if (lane < 0) lane = lanes.length;
    lanes[lane] = to;
    return { ...flag, at, lane, left };
  });
  const top = 14 + lanes.length * 18;
  const bottom = top + tall;
  const svg = canvas(width, bottom + 26, histogramWords());
  const x = signalX(width);
  const most = [2, 3].map((column) => Math.max(1, ...data.histogram.map((bin) => bin[column])));
  const unit = (tall - 8) / (most[0] + most[1]);
  const zero = top + 4 + most[0] * unit;
  const zone = draw("rect", { class: "zone", x: SIDE.left, y: top, width: 0, height: tall });
  svg.append(zone);
  for (const value of ticks(0, most[0], 3).slice(1)) {
    if (value * unit < 14) continue;
    svg.append(line(SIDE.left, zero - value * unit, width - SIDE.right, zero - value * unit, "grid"));
    svg.append(text(SIDE.left - 8, zero - value * unit + 4, String(value), "tick", "end"));
  }
  for (const value of ticks(0, most[1], 3).slice(1)) {
    if (value * unit < 14) continue;
    svg.append(line(SIDE.left, zero + value * unit, width - SIDE.right, zero + value * unit, "grid"));
    svg.append(text(SIDE.left - 8, zero + value * unit + 4, String(value), "tick", "end"));
  }
  for (const [low, high, right, wrong] of data.histogram) {
    const from = x(low) + 0.75;
    const wide = Math.max(1, x(high) - x(low) - 1.5);
    if (right) svg.append(draw("rect", { class: "right", x: from, y: zero - right * unit, width: wide, height: right * unit }));
    if (wrong) svg.append(draw("rect", { class: "wrong", x: from, y: zero, width: wide, height: wrong * unit }));
  }
  svg.append(line(SIDE.left, zero, width - SIDE.right, zero, "axis"));
  svg.append(text(SIDE.left - 8, zero + 4, "0", "tick", "end"));
  const totals = [2, 3].map((column) => data.histogram.reduce((sum, bin) => sum + bin[column], 0));
  // Each count is in the emptier corner of its half.
  const corner = (column, y, content, kind) => {
    const fifth = Math.ceil(data.histogram.length / 5);
    const load = (bins) => Math.max(...bins.map((bin) => bin[column]));
    const left = load(data.histogram.slice(0, fifth)) <= load(data.histogram.slice(-fifth));
    svg.append(text(left ? SIDE.left + 8 : width - SIDE.right - 8, y, content, `label halo ${kind}`, left ? "start" : "end"));
  };
  corner(2, top + 18, `${totals[0]} right`, "right-text");
  corner(3, bottom - 10, `${totals[1]} wrong`, "wrong-text");
  for (const flag of placed) svg.append(line(flag.at, 4 + (lanes.length - 1 - flag.lane) * 18, flag.at, bottom, "stem"));
  for (const flag of placed) {
    const y = 14 + (lanes.length - 1 - flag.lane) * 18;
    const mark = draw(
      "g",
      { class: flag.chosen ? "flag chosen" : "flag" },
      draw("rect", { class: "hit", x: flag.left ? flag.at - 60 : flag.at - 6, y: y - 13, width: 66, height: 18 }),
      text(flag.at + (flag.left ? -5 : 5), y, flag.names.join(", "), "flag-text halo", flag.left ? "end" : "start"),
    );
    mark.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      choose(flag.threshold);
    });
    svg.append(mark);
  }
  const cursor = draw("g", { class: "cursor" }, line(0, top - 2, 0, bottom, "tau"), draw("circle", { cx: 0, cy: bottom, r: 4, class: "tau-dot" }));
  svg.append(cursor);
  signalAxis(svg, width, bottom, { label: false });
  return {
    svg,
    move(figures) {
      const share = figures.threshold === null ? 0 : position(figures.threshold);
      const at = SIDE.left + share * plotWidth(width);
      cursor.setAttribute("transform", `translate(${at.toFixed(2)} 0)`);
      zone.setAttribute("width", Math.max(0, at - SIDE.left).toFixed(2));
    },
  };
}

function histogramWords() {
  const totals = [2, 3].map((column) => data.histogram.reduce((sum, bin) => sum + bin[column], 0));
  return `Histogram of ${data.quantity} at step 1: ${totals[0]} right answers drawn upwards, ${totals[1]} wrong ones downwards, with the threshold. The table below holds the counts.`;
}

// The saving and the change in accuracy at each threshold, on the same axis as the histogram.
function sweepChart(width, curve) {
  const each = 74;
  const gap = 30;
  const top = 40;
  const svg = canvas(width, top + 2 * each + gap + 14, "Tokens saved and change in accuracy as the threshold grows; the table below holds the figures.");
  svg.append(text(width - SIDE.right, 12, `${data.quantity} of step 1, ${data.unit}`, "tick", "end"));
  const panels = [
    { key: "saving", name: "tokens saved", low: 0, high: Math.max(0.05, ...curve.map((f) => f.saving ?? 0)), format: (v) => percent(v, 0) },
    {
      key: "change",
      name: "change in accuracy, points",
      low: Math.min(-0.01, ...curve.map((f) => f.change)),
      high: Math.max(0.01, ...curve.map((f) => f.change)),
      format: (v) => signed(100 * v, 0),
    },
  ];
  const dots = panels.map((panel, number) => {
    const begin = top + number * (each + gap);
    const y = (value) => begin + each - ((value - panel.low) / (panel.high - panel.low)) * each;
    // The value is beside the name above the plot, where no curve can be.
    const shown = text(SIDE.left, begin - 9, "", "label halo");
    svg.append(shown);
    for (const value of [...new Set([panel.low, 0, panel.high])]) {
      if (value !== 0 && Math.abs(y(value) - y(0)) < 13) continue;
      svg.append(line(SIDE.left, y(value), width - SIDE.right, y(value), value === 0 ? "axis" : "grid"));
      svg.append(text(SIDE.left - 8, y(value) + 4, panel.format(value), "tick", "end"));
    }
    svg.append(
      path(
        curve.map((f) => [SIDE.left + (f.threshold === null ? 0 : position(f.threshold)) * plotWidth(width), y(f[panel.key] ?? 0)]),
        "sweep",
      ),
    );
    const dot = draw("circle", { r: 4.5, class: "tau-dot" });
    const value = draw("tspan", { class: "label tau-text" });
    shown.append(`${panel.name}  `, value);
    svg.append(dot);
    return { panel, y, dot, value };
  });
  const tops = panels.map((_, number) => top + number * (each + gap) - 3);
  const cursor = draw("g", {}, ...tops.map((begin) => line(0, begin, 0, begin + each + 6, "tau")));
  svg.insertBefore(cursor, svg.firstChild);
  return {
    svg,
    move(figures) {
      const at = SIDE.left + (figures.threshold === null ? 0 : position(figures.threshold)) * plotWidth(width);
      cursor.setAttribute("transform", `translate(${at.toFixed(2)} 0)`);
      for (const { panel, y, dot, value } of dots) {
        dot.setAttribute("cx", at.toFixed(2));
        dot.setAttribute("cy", y(figures[panel.key] ?? 0).toFixed(2));
        value.textContent = panel.key === "saving" ? percent(figures.saving) : signed(100 * figures.change);
      }
    },
  };
}

// Axes of a scatter plot; returns its two scales.
function axes(svg, box, across, up) {
  const x = (value) => box.left + ((value - across.low) / (across.high - across.low)) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - up.low) / (up.high - up.low)) * (box.bottom - box.top);
  for (const value of ticks(up.low, up.high, up.ticks || 5)) {
    svg.append(line(box.left, y(value), box.right, y(value), value === 0 && up.zero ? "axis" : "grid"));
    svg.append(text(box.left - 8, y(value) + 4, up.format(value), "tick", "end"));
  }
  for (const value of ticks(across.low, across.high, across.ticks || 6)) svg.append(text(x(value), box.bottom + 18, across.format(value), "tick", "middle"));
  svg.append(line(box.left, box.bottom, box.right, box.bottom, "axis"));
  svg.append(text(box.right, box.bottom + 36, across.name, "tick", "end"));
  svg.append(text(box.left, box.top - 12, up.name, "tick"));
  return { x, y };
}

const overlap = (a, b) =>
  Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

// Put each label where it covers the least of the points, the bars, the curve and the other labels.
function label(svg, points, box, bars, curve) {
  const around = (half, weight) => ({ x, y }) => ({ left: x - half, right: x + half, top: y - half, bottom: y + half, weight });
  const taken = [...points.map(around(7, 4)), ...bars, ...curve.map(around(3, 8))];
  for (const point of points) {
    // The width in a wide font, so that no label leaves the picture.
    const wide = Math.max(...point.lines.map((name) => name.length)) * (point.kind === "recommended" ? 9.5 : 7) + 4;
    const tall = 8 * point.lines.length;
    let best = null;
    for (const far of [10, 22, 38, 56, 76, 100, 130])
      for (const [dx, dy] of [[1, 0], [-1, 0], [0.5, -1], [-0.5, -1], [0.5, 1], [-0.5, 1], [1, -0.6], [1, 0.6], [-1, -0.6], [-1, 0.6]]) {
        const ax = point.x + dx * far;
        const ay = point.y + dy * far * 0.8;
        const place = { left: dx < 0 ? ax - wide : ax, right: dx < 0 ? ax : ax + wide, top: ay - tall, bottom: ay + tall };
        const outside = place.left < box.left || place.right > box.right + 10 || place.top < box.top - 8 || place.bottom > box.bottom;
        const cost = taken.reduce((sum, other) => sum + (other.weight ?? 1) * overlap(place, other), 0) + (outside ? 5000 : 0) + far * 0.9;
        if (!best || cost < best.cost) best = { cost, place, ax, ay, anchor: dx < 0 ? "end" : "start", far };
      }
    taken.push({ ...best.place, weight: 6 });
    if (best.far > 12) svg.append(line(point.x, point.y, best.ax, best.ay, "leader"));
    point.lines.forEach((name, at) => svg.append(text(best.ax, best.place.top + 12 + 16 * at, name, `label halo ${point.kind}`, best.anchor)));
  }
}

// Points on a line, at most 4 pixels apart.
function dotted(points) {
  return points.slice(1).flatMap(([x, y], at) => {
    const [fromX, fromY] = points[at];
    const parts = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY) / 4));
    return Array.from({ length: parts }, (_, part) => ({ x: fromX + ((x - fromX) * part) / parts, y: fromY + ((y - fromY) * part) / parts }));
  });
}

const GLYPH = { gate: "point gate", recommended: "point recommended", oracle: "point oracle", baseline: "point baseline" };

// Rules far below the others are drawn at the lower edge, so that the other rules have enough room.
function floorOf(changes) {
  const sorted = [...changes].sort((a, b) => b - a);
  const most = sorted.slice(0, Math.max(1, Math.ceil(sorted.length * 0.7)));
  const low = Math.min(-1, ...most) * 1.15 - 0.5;
  return Math.min(...sorted) < 2.5 * low - 1 ? low : -Infinity;
}

function frontierChart(width, curve) {
  const narrow = width < 620;
  const shown = data.rules.filter((rule) => rule.saving);
  const floor = floorOf(shown.map((rule) => 100 * rule.change[0]));
  const pinned = (rule) => 100 * rule.change[0] < floor;
  const seen = shown.filter((rule) => !pinned(rule));
  const up = {
    low: Math.max(floor * 1.3, Math.min(-1, ...seen.map((rule) => 100 * (rule.change[1] ?? rule.change[0])))),
    high: Math.max(1, ...seen.map((rule) => 100 * (rule.change[2] ?? rule.change[0]))),
    zero: true,
    name: "change in accuracy, points",
    format: (v) => signed(v, 0),
  };
  const pad = (up.high - up.low) * 0.07;
  up.low -= pad * (shown.length > seen.length ? 2 : 1);
  up.high += pad;
  const savings = shown.flatMap((rule) => rule.saving.filter((v) => v !== null).map((v) => 100 * v));
  const across = { low: Math.min(0, ...savings) - 3, high: Math.max(10, ...savings) + 5, name: "tokens saved, compared with all steps", format: (v) => `${fixed(v, 0)} %`, ticks: narrow ? 4 : 8 };
  const height = narrow ? 400 : 540;
  const box = { left: SIDE.left, right: width - SIDE.right, top: 34, bottom: height - 48 };
  const svg = canvas(width, height, "Change in accuracy against tokens saved for every rule, with 95 % intervals; the table of rules holds the figures.");
  const { x, y } = axes(svg, box, across, up);
  const hold = (value) => Math.min(box.bottom, Math.max(box.top, value));
  const margin = y(-100 * data.margin);
  svg.append(line(box.left, margin, box.right, margin, "margin"), text(box.right - 4, margin + 14, `margin ${fixed(-100 * data.margin, 1)}`, "tick halo", "end"));
  const inside = curve.filter((f) => f.saving !== null && 100 * f.change >= up.low);
  const gates = inside.map((f) => [x(100 * f.saving), y(100 * f.change)]);
  if (gates.length > 1) svg.append(path(gates, "sweep soft"));
  const points = [];
  const bars = [];
  shown.forEach((rule, number) => {
    const low = pinned(rule);
    const at = { x: x(100 * rule.saving[0]), y: low ? box.bottom - 9 : y(100 * rule.change[0]) };
    const name = (narrow ? String(number + 1) : rule.name) + (low ? ` (${signed(100 * rule.change[0])})` : "");
    if (!low) {
      const [left, right] = rule.saving[1] === null ? [at.x, at.x] : [x(100 * rule.saving[1]), x(100 * rule.saving[2])];
      const [top, bottom] = rule.change[1] === null ? [at.y, at.y] : [hold(y(100 * rule.change[2])), hold(y(100 * rule.change[1]))];
      svg.append(line(at.x, top, at.x, bottom, `bar ${rule.kind}`), line(left, at.y, right, at.y, `bar ${rule.kind}`));
      bars.push({ left: at.x - 2, right: at.x + 2, top, bottom }, { left, right, top: at.y - 2, bottom: at.y + 2 });
    }
    // Rules that do the same share a label.
    const same = points.find((point) => point.low === low && point.kind === rule.kind && Math.hypot(point.x - at.x, point.y - at.y) < 2);
    if (same) same.names.push(name);
    else points.push({ ...at, kind: rule.kind, low, names: [name] });
  });
  for (const point of points) {
    // Rules that share a place at the lower edge show the figure only once.
    const names = point.names.map((name, at) => (point.low && at < point.names.length - 1 ? name.replace(/ \([^)]*\)$/, "") : name));
    point.lines = narrow ? [names.join(", ")] : names;
    const glyph = point.low
      ? draw("path", { d: `M${point.x - 6} ${point.y - 4}h12l-6 9z`, class: GLYPH[point.kind] })
      : draw("circle", { cx: point.x, cy: point.y, r: point.kind === "recommended" ? 6.5 : 5, class: GLYPH[point.kind] });
    glyph.append(draw("title", {}, point.names.join(", ")));
    svg.append(glyph);
  }
  label(svg, points, box, bars, dotted(gates));
  const ring = draw("circle", { r: 9, class: "ring" });
  svg.append(ring);
  const keys = narrow ? make("ol", { class: "keys" }, ...shown.map((rule) => make("li", { class: rule.kind }, rule.name))) : null;
  return {
    svg,
    keys,
    move(figures) {
      ring.setAttribute("cx", x(100 * (figures.saving ?? 0)).toFixed(2));
      ring.setAttribute("cy", y(Math.max(100 * figures.change, up.low)).toFixed(2));
    },
  };
}

function drawsChart(width) {
  const { savings, changes } = data.draws;
  const height = 300;
  const svg = canvas(width, height, "Saving and change in accuracy of every calibration draw; the table holds their spread.");
  const box = { left: SIDE.left, right: width - SIDE.right, top: 30, bottom: height - 48 };
  const s = savings.map((v) => 100 * v);
  const c = changes.map((v) => 100 * v);
  const spread = Math.max(1, Math.max(...c) - Math.min(...c)) * 0.1;
  const { x, y } = axes(
    svg,
    box,
    { low: Math.min(0, ...s) - 1, high: Math.max(10, ...s) + 3, name: "tokens saved", format: (v) => `${fixed(v, 0)} %`, ticks: width < 560 ? 4 : 8 },
    { low: Math.min(-1, ...c) - spread, high: Math.max(1, ...c) + 3 * spread, zero: true, name: "change in accuracy, points", format: (v) => signed(v, 0), ticks: 4 },
  );
  s.forEach((saving, number) => svg.append(draw("circle", { cx: x(saving).toFixed(1), cy: y(c[number]).toFixed(1), r: 3.5, class: "draw" })));
  const mark = (at, content, kind, below) => {
    const [px, py] = [x(100 * at[0]), y(100 * at[1])];
    svg.append(draw("circle", { cx: px, cy: py, r: kind === "ring" ? 8 : 4.5, class: kind }), line(px, py + (below ? 9 : -9), px, py + (below ? 30 : -18), "leader"));
    svg.append(text(px, py + (below ? 42 : -24), content, "label halo", "middle"));
  };
  mark(data.draws.mean, "mean", "point baseline", true);
  if (data.draws.shown) mark(data.draws.shown, "this report", "ring", Math.abs(data.draws.shown[0] - data.draws.mean[0]) * plotWidth(width) > 110);
  return { svg };
}

// One panel for each figure; each number of labels has its mean and the range of 90 % of the draws.
function sizesChart(width) {
  const narrow = width < 620;
  const panels = [
    { key: "tau", name: `τ, ${data.unit}`, format: String, chosen: data.gate.threshold },
    { key: "saving", name: "tokens saved", format: (v) => `${fixed(100 * v, 0)} %`, zero: true },
    { key: "change", name: "change in accuracy, points", format: (v) => signed(100 * v, 1), zero: true },
  ];
  const tall = 190;
  const gap = narrow ? 76 : 54;
  const wide = narrow ? width : (width - 2 * gap) / 3;
  const svg = canvas(width, narrow ? 3 * (tall + gap) - 24 : tall + 40, "Threshold, saving and change in accuracy against the number of labels; the table below holds the figures.");
  panels.forEach((panel, number) => {
    const left = (narrow ? 0 : number * (wide + gap)) + SIDE.left;
    const right = (narrow ? width : number * (wide + gap) + wide) - 8;
    const top = 34 + (narrow ? number * (tall + gap) : 0);
    const bottom = top + tall - 34;
    const rows = data.sizes.filter((row) => row[panel.key]);
    const values = rows.flatMap((row) => row[panel.key]);
    if (panel.chosen !== undefined && panel.chosen !== null) values.push(panel.chosen);
    let low = Math.min(...values, ...(panel.zero ? [0] : []));
    let high = Math.max(...values, ...(panel.zero ? [0] : []));
    if (panel.key === "tau") low = Math.min(low, 0);
    if (high - low < 1e-9) high = low + 1;
    const pad = (high - low) * 0.06;
    const y = (value) => bottom - ((value - low + pad) / (high - low + 2 * pad)) * (bottom - top);
    for (const value of ticks(low, high, 4)) {
      svg.append(line(left, y(value), right, y(value), value === 0 ? "axis" : "grid"), text(left - 8, y(value) + 4, panel.format(value), "tick", "end"));
    }
    svg.append(text(left, top - 14, panel.name, "label"));
    if (panel.chosen !== undefined && panel.chosen !== null) svg.append(line(left, y(panel.chosen), right, y(panel.chosen), "chosen-line"));
    const x = (index) => left + ((index + 0.5) / data.sizes.length) * (right - left);
    data.sizes.forEach((row, index) => {
      svg.append(text(x(index), bottom + 18, String(row.n), "tick", "middle"));
      const spread = row[panel.key];
      if (!spread) return;
      svg.append(line(x(index), y(spread[1]), x(index), y(spread[2]), "size-range"), draw("circle", { cx: x(index), cy: y(spread[0]), r: 4.5, class: "point gate" }));
    });
    svg.append(text(right, bottom + 36, "labels", "tick", "end"));
  });
  return { svg };
}

function rocChart(width) {
  const height = Math.min(width, 380);
  const svg = canvas(width, height, "Receiver operating characteristic: wrong answers above the threshold against right answers above it; the table holds the points.");
  const box = { left: SIDE.left, right: width - SIDE.right, top: 30, bottom: height - 48 };
  const whole = (v) => `${fixed(100 * v, 0)} %`;
  const { x, y } = axes(svg, box, { low: 0, high: 1, name: "right answers above τ", format: whole, ticks: 4 }, { low: 0, high: 1, name: "wrong answers above τ", format: whole, ticks: 4 });
  svg.append(line(x(0), y(0), x(1), y(1), "chance"));
  svg.append(path([[0, 0], ...data.roc].map(([a, b]) => [x(a), y(b)]), "roc"));
  const ring = draw("circle", { r: 6, class: "tau-dot" });
  svg.append(ring);
  return {
    svg,
    move(figures) {
      ring.setAttribute("cx", x(figures.idle ?? 0).toFixed(2));
      ring.setAttribute("cy", y(figures.caught ?? 0).toFixed(2));
    },
  };
}

function reliabilityChart(width) {
  const height = Math.min(width, 380);
  const svg = canvas(width, height, `Share of right first answers by ${data.quantity}, with 95 % intervals; the table holds the figures.`);
  const top = 30;
  const bottom = height - 48;
  const x = signalX(width);
  const y = (value) => bottom - value * (bottom - top);
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(line(SIDE.left, y(value), width - SIDE.right, y(value), value ? "grid" : "axis"), text(SIDE.left - 8, y(value) + 4, `${100 * value} %`, "tick", "end"));
  }
  svg.append(text(SIDE.left, top - 12, "right at step 1", "tick"));
  signalAxis(svg, width, bottom);
  svg.append(path(data.reliability.map((bin) => [x(bin.middle), y(bin.share.value)]), "roc thin"));
  for (const { low, high, middle, share } of data.reliability) {
    svg.append(line(x(low), y(share.value), x(high), y(share.value), "span"), line(x(middle), y(share.low), x(middle), y(share.high), "bar right-bar"));
    svg.append(draw("circle", { cx: x(middle), cy: y(share.value), r: 4.5, class: "point right" }));
  }
  const cursor = line(0, top, 0, bottom, "tau");
  svg.append(cursor);
  return {
    svg,
    move(figures) {
      cursor.setAttribute("transform", `translate(${x(figures.threshold ?? 0).toFixed(2)} 0)`);
    },
  };
}

function familiesChart(width) {
  const row = 46;
  const wide = Math.min(190, width * 0.3);
  const height = data.families.length * row + 46;
  const svg = canvas(width, height, "Share right at step 1, with the gate and after all steps, by family; the table holds the figures.");
  const low = Math.floor(10 * Math.min(...data.families.flatMap((f) => [f.first, f.gated, f.full]))) / 10;
  const from = Math.min(low, 0.9);
  const x = (value) => wide + ((value - from) / (1 - from)) * (width - wide - SIDE.right);
  const bottom = height - 34;
  for (const value of ticks(from, 1, width < 560 ? 3 : 6)) svg.append(line(x(value), 10, x(value), bottom, "grid"), text(x(value), bottom + 18, `${fixed(100 * value, 0)} %`, "tick", "middle"));
  data.families.forEach((family, number) => {
    const y = 30 + number * row;
    svg.append(text(0, y + 1, family.name, "label"), text(0, y + 16, `${family.problems} problems`, "tick"));
    svg.append(line(x(Math.min(family.first, family.full)), y, x(Math.max(family.first, family.full)), y, "span"));
    svg.append(draw("circle", { cx: x(family.first), cy: y, r: 5, class: "point hollow" }));
    svg.append(draw("circle", { cx: x(family.full), cy: y, r: 7.5, class: "point baseline" }));
    svg.append(draw("circle", { cx: x(family.gated), cy: y, r: 5, class: "point gate" }));
  });
  const keys = make("ul", { class: "policy-keys" });
  for (const [name, kind] of [["step 1", "point hollow"], ["gate", "point gate"], ["all steps", "point baseline"]]) {
    const swatch = canvas(12, 12, name);
    swatch.setAttribute("aria-hidden", "true");
    swatch.append(draw("circle", { cx: 6, cy: 6, r: 5, class: kind }));
    keys.append(make("li", {}, swatch, name));
  }
  return { svg, keys };
}
