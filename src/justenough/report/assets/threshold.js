// One threshold, set by the slider, a chart or a method, and all figures that depend on it.
const slider = document.getElementById("tau");
const TOP = Number(slider.max);
const curve = [null, ...Array.from({ length: 240 }, (_, at) => valueAt((at + 1) / 240))].map(figuresAt);
const listeners = [];
let current = null;
let speaking;

const limitsText = ([low, high]) => `${fixed(100 * low, 1)} to ${fixed(100 * high, 1)}`;

const READOUT = [
  ["threshold", "τ", (f) => thresholdText(f.threshold), () => ""],
  ["saving", "tokens saved", (f) => percent(f.saving), (f) => `${count(f.tokens)} tokens`],
  ["change", "change, points", (f) => signed(100 * f.change), (f) => `${signed(100 * f.changeLimits[0])} to ${signed(100 * f.changeLimits[1])}`],
  ["accuracy", "accuracy", (f) => percent(f.accuracy), (f) => `${percent(f.stopped)} stopped`],
  ["harm", "harm", (f) => percent(f.harm), (f) => limitsText(f.harmLimits)],
  ["rescue", "rescue", (f) => percent(f.rescue), (f) => limitsText(f.rescueLimits)],
];

const cells = READOUT.map(([key, name, value, beside]) => {
  const shown = make("dd", { id: `now-${key}`, "data-figure": key });
  const small = make("dd", { class: "limits" });
  document.getElementById("readout").append(make("div", { class: key }, make("dt", {}, name), shown, small));
  return { key, value, beside, shown, small };
});

function choose(threshold) {
  const figures = figuresAt(threshold);
  current = figures;
  slider.value = String(threshold === null ? 0 : Math.max(1, Math.round(position(threshold) * TOP)));
  slider.setAttribute("aria-valuetext", thresholdText(threshold));
  for (const { key, value, beside, shown, small } of cells) {
    shown.textContent = value(figures);
    shown.setAttribute("data-value", String(figures[key]));
    small.textContent = beside(figures);
  }
  const readout = document.getElementById("readout");
  for (const key of ["tokens", "stopped"]) readout.setAttribute(`data-${key}`, String(figures[key]));
  readout.setAttribute("data-change-low", String(figures.changeLimits[0]));
  readout.setAttribute("data-change-high", String(figures.changeLimits[1]));
  for (const chip of document.querySelectorAll("#methods button")) chip.setAttribute("aria-pressed", String(chip.dataset.threshold === String(threshold)));
  for (const listener of listeners) listener(figures);
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    document.getElementById("spoken").textContent =
      `At τ ${thresholdText(threshold)}: ${percent(figures.saving)} of the tokens saved, accuracy ${signed(100 * figures.change)} points, ` +
      `${percent(figures.accuracy)} right, harm ${percent(figures.harm)}, rescue ${percent(figures.rescue)}.`;
  }, 400);
}

slider.addEventListener("input", () => choose(slider.value === "0" ? null : valueAt(Number(slider.value) / TOP)));

// The threshold can be dragged anywhere in the chart.
for (const id of ["chart-threshold", "chart-sweep"]) {
  const area = document.getElementById(id);
  const take = (event) => {
    const box = area.getBoundingClientRect();
    const share = (event.clientX - box.left - SIDE.left) / plotWidth(box.width);
    choose(share <= 0 ? null : valueAt(Math.min(1, share)));
  };
  area.addEventListener("pointerdown", (event) => {
    area.setPointerCapture(event.pointerId);
    take(event);
  });
  area.addEventListener("pointermove", (event) => {
    if (area.hasPointerCapture(event.pointerId)) take(event);
  });
}

for (const method of data.methods) {
  const never = method.threshold === null;
  const chip = make(
    "button",
    { type: "button", "data-threshold": String(method.threshold), "data-method": method.name, class: method.chosen ? "chosen" : "" },
    make("span", { class: "method" }, method.label),
    make("span", { class: "value" }, never ? "no threshold" : bitsText(method.threshold)),
    make("span", { class: "outcome" }, method.outcome),
  );
  chip.addEventListener("click", () => choose(method.threshold));
  document.getElementById("methods").append(chip);
}
