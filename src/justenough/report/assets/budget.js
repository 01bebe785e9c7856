// The budget: the accuracy of each policy at the same totals, and the steps of each group at the chosen total.
const DASH = { "first-come": "thin", "knapsack": "dash", "oracle": "dash faint", "greedy": "strong", "uniform": "plain", "entropy-proportional": "blue" };

function budgetChart(width) {
  const { totals, policies, rows, stopping } = data.budget;
  const narrow = width < 620;
  const height = narrow ? 320 : 400;
  const svg = canvas(width, height, "Share right against total tokens, one line for each policy, with 95 % intervals of the change against uniform; the table below holds the figures.");
  const box = { left: SIDE.left, right: width - SIDE.right, top: 34, bottom: height - 48 };
  const even = policies.indexOf("uniform");
  // The paired change starts at uniform's accuracy at the same total. A bar that does not cross uniform's mark excludes 0.
  const reaches = rows.flatMap((row, number) =>
    row.flatMap((entry, policy) => {
      if (!entry || policy === even || entry.change[1] === null || entry.change[1] === entry.change[2]) return [];
      const [low, high] = entry.change.slice(1).map((change) => row[even].accuracy + change);
      return [{ number, policy, low, high }];
    }),
  );
  const values = [...rows.flat().filter(Boolean).map((row) => row.accuracy), ...reaches.flatMap(({ low, high }) => [low, high])];
  const pad = Math.max(0.01, (Math.max(...values) - Math.min(...values)) * 0.06);
  const span = Math.max(1, totals.at(-1) - totals[0]);
  const { x, y } = axes(
    svg,
    box,
    { low: totals[0] - span * 0.02, high: totals.at(-1) + span * 0.02, name: "total tokens", format: (v) => (v >= 10000 ? `${fixed(v / 1000, 0)}k` : count(v)), ticks: narrow ? 3 : 7 },
    { low: Math.min(...values) - pad, high: Math.min(1, Math.max(...values) + pad), name: "share of right answers", format: (v) => `${fixed(100 * v, 0)} %`, ticks: 5 },
  );
  const at = line(0, box.top, 0, box.bottom, "tau");
  svg.append(at);
  const hold = (value) => Math.min(box.bottom, Math.max(box.top, value));
  const apart = narrow ? 2 : 4;
  const wide = (policies.length / 2) * apart;
  for (const number of new Set(reaches.map((reach) => reach.number))) {
    const level = y(rows[number][even].accuracy);
    const mark = line(x(totals[number]) - wide, level, x(totals[number]) + wide, level, "even");
    mark.dataset.total = String(totals[number]);
    svg.append(mark);
  }
  for (const { number, policy, low, high } of reaches) {
    const aside = (policy - (policies.length - 1) / 2) * apart;
    const where = x(totals[number]) + aside;
    const bar = line(where, hold(y(high)), where, hold(y(low)), `reach ${DASH[policies[policy]] || "plain"}`);
    bar.dataset.policy = policies[policy];
    bar.dataset.total = String(totals[number]);
    svg.append(bar);
  }
  policies.forEach((name, number) => {
    if (number === stopping) return;
    const points = totals.map((total, row) => [total, rows[row][number]]).filter(([, row]) => row);
    svg.append(path(points.map(([total, row]) => [x(total), y(row.accuracy)]), `policy ${DASH[name] || "plain"}`));
  });
  if (stopping !== null)
    rows.forEach((row, number) => {
      if (row[stopping]) svg.append(draw("circle", { cx: x(totals[number]), cy: y(row[stopping].accuracy), r: 5, class: "point hollow" }));
    });
  const keys = make("ul", { class: "policy-keys" });
  policies.forEach((name, number) => {
    const swatch = canvas(26, 12, `Line of ${name}`);
    swatch.setAttribute("aria-hidden", "true");
    swatch.append(number === stopping ? draw("circle", { cx: 13, cy: 6, r: 5, class: "point hollow" }) : line(1, 6, 25, 6, `policy ${DASH[name] || "plain"}`));
    keys.append(make("li", {}, swatch, name));
  });
  return {
    svg,
    keys,
    moveTotal: (number) => at.setAttribute("transform", `translate(${x(totals[number]).toFixed(2)} 0)`),
  };
}

function budgetPart() {
  const home = document.getElementById("budget-part");
  if (!data.budget || !home) return;
  const { totals, policies, rows, groupings, shown } = data.budget;
  const input = document.getElementById("total");
  const spoken = document.getElementById("budget-spoken");
  const shares = document.getElementById("budget-shares");
  let grouping = 0;
  input.max = String(totals.length - 1);
  input.value = String(shown);
  const choices = make("fieldset", { class: "filters" }, make("legend", { class: "unseen" }, "Group the problems by"));
  groupings.forEach((entry, number) => {
    const radio = make("input", { type: "radio", name: "grouping", value: String(number) });
    radio.checked = !number;
    radio.addEventListener("change", () => {
      grouping = number;
      show();
    });
    choices.append(make("label", {}, radio, make("span", {}, `by ${entry.name}`)));
  });
  if (groupings.length > 1) shares.before(choices);

  function show() {
    const number = Number(input.value);
    const total = totals[number];
    const there = policies.map((name, at) => [name, rows[number][at]]).filter(([, row]) => row);
    input.setAttribute("aria-valuetext", `${count(total)} tokens`);
    const head = make("tr", {}, make("th", { scope: "col" }, groupings[grouping].name), make("th", { scope: "col" }, "problems"));
    for (const [name] of there) head.append(make("th", { scope: "col" }, name));
    const body = groupings[grouping].groups.map((group, at) => {
      const line = make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, group)), make("td", {}, count(there[0][1].groups[grouping][at][0])));
      for (const [name, row] of there) {
        const [, steps, cost, right] = row.groups[grouping][at];
        const level = Math.max(0, Math.min(6, Math.round((6 * (steps - 1)) / Math.max(1, data.steps - 1))));
        line.append(make("td", { class: `s${level}`, "data-policy": name, "data-steps": String(steps), title: `${count(cost)} tokens per problem, ${percent(right)} right` }, fixed(steps, 2)));
      }
      return line;
    });
    const foot = [
      ["right", (row) => percent(row.accuracy)],
      ["change against uniform, points", (row) => (row.change[1] === row.change[2] ? fixed(100 * row.change[0], 1) : `${signed(100 * row.change[0])} [${signed(100 * row.change[1])} to ${signed(100 * row.change[2])}]`)],
      ["tokens spent", (row) => count(row.spent)],
    ].map(([what, content]) => {
      const line = make("tr", { class: "sum" }, make("th", { scope: "row" }, what), make("td", {}, what === "right" ? count(data.budget.problems) : ""));
      for (const [name, row] of there) {
        const [value, limits] = name === "uniform" && what.startsWith("change") ? ["–"] : content(row).split(" [");
        line.append(make("td", {}, value, limits ? make("span", { class: "limits" }, ` [${limits}`) : ""));
      }
      return line;
    });
    shares.replaceChildren(make("table", { class: "sheet" }, make("caption", {}, `Mean steps per problem at a total of ${count(total)} tokens`), make("thead", {}, head), make("tbody", {}, ...body), make("tfoot", {}, ...foot)));
    document.getElementById("budget-total").textContent = `${count(total)} tokens`;
    moving.get("chart-budget")?.moveTotal?.(number);
    spoken.textContent = `At ${count(total)} tokens: ${there.map(([name, row]) => `${name} ${percent(row.accuracy)}`).join(", ")}.`;
  }
  input.addEventListener("input", show);
  return show;
}
