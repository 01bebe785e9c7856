// Draw each chart for its width, and again when the width changes.
const charts = {
  "chart-threshold": (width) => thresholdChart(width, choose),
  "chart-sweep": (width) => sweepChart(width, curve),
  "chart-frontier": (width) => frontierChart(width, curve),
  "chart-draws": (width) => drawsChart(width),
  "chart-sizes": (width) => sizesChart(width),
  "chart-budget": (width) => budgetChart(width),
  "chart-roc": (width) => rocChart(width),
  "chart-reliability": (width) => reliabilityChart(width),
  "chart-families": (width) => familiesChart(width),
};
data.thoughts.forEach((at, number) => {
  if (data.problems[at].steps) charts[`chart-thought-${number}`] = (width) => thoughtChart(width, data.problems[at]);
});
const moving = new Map();
listeners.push((figures) => moving.forEach((chart) => chart.move?.(figures)));

const showBudget = budgetPart();

const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) render(target);
});

function render(home) {
  const width = Math.floor(home.clientWidth);
  if (!width || home.dataset.width === String(width)) return;
  home.dataset.width = String(width);
  const chart = charts[home.id](width);
  home.replaceChildren(chart.svg, ...(chart.keys ? [chart.keys] : []));
  moving.set(home.id, chart);
  if (current) chart.move?.(current);
  if (home.id === "chart-budget") showBudget?.();
  if (home.id === "chart-threshold") {
    // The middle of the thumb is on the line, so the track is half a thumb longer than the axis at each end.
    slider.style.marginLeft = `${SIDE.left - 11}px`;
    slider.style.width = `${plotWidth(width) + 22}px`;
  }
}

if (!data.roc.length) document.getElementById("chart-roc").closest("figure").remove();
if (data.draws.savings.length > 1) document.getElementById("luck-note").textContent = `Each dot is the result with one of ${data.draws.savings.length} other random choices of the labelled examples.`;
else document.getElementById("draws-part").remove();
choose(data.gate.threshold);
for (const id of Object.keys(charts)) {
  const home = document.getElementById(id);
  if (!home) continue;
  render(home);
  watch.observe(home);
}
problemList(document.getElementById("problem-list"));
