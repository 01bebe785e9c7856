// The table of problems: it can be sorted by each column and filtered, and each problem opens to show its steps.
const BATCH = 25;
const FILTERS = [
  ["all", () => true],
  ["right", (p) => p.right],
  ["wrong", (p) => !p.right],
  ["stopped", (p) => p.early],
  ["continued", (p) => !p.early],
  ["harmed", (p) => !p.right && p.last],
  ["rescued", (p) => p.right && !p.last],
];
const outcomeOf = (p) => (p.right === p.last ? (p.right ? "right" : "wrong") : p.right ? "rescued" : "harmed");
const COLUMNS = [
  ["problem", (p) => p.problem || p.id, (p) => p.problem || p.id, "words"],
  ["family", (p) => p.family || "", (p) => p.family || "–", "words wide"],
  ["level", (p) => p.group || "", (p) => p.group || "–", "words wide"],
  [`${data.quantity}, ${data.unit}`, (p) => p.bits, (p) => bitsText(p.bits), "number"],
  ["stops after", (p) => p.stop, (p) => `step ${p.stop}`, "number"],
  ["tokens", (p) => p.spent, (p) => count(p.spent), "number wide"],
  ["saved", (p) => (p.full ? 1 - p.spent / p.full : 0), (p) => percent(p.full ? 1 - p.spent / p.full : 0, 0), "number wide"],
  ["answer", (p) => p.answer || "", (p) => p.answer ?? "none", "words answer wide"],
  ["outcome", outcomeOf, outcomeOf, "words outcome"],
];

function compare(a, b) {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function shadeOf(bits) {
  const steps = [0.05, 0.15, 0.35, 0.7, 1.1, 1.6];
  return steps.filter((limit) => bits >= limit).length;
}

function stepNode(problem, step, number) {
  const ran = number < problem.stop;
  const graded = step.right === null ? "unanswered" : step.right ? "right" : "wrong";
  const head = make("h4", {}, `Step ${number + 1}`, make("span", { class: `badge ${graded}` }, graded));
  const facts = [step.bits === null ? "no signal" : `${bitsText(step.bits)} ${data.unit}`, `${count(step.tokens)} tokens`, `answer ${step.answer ?? "none"}`];
  const why = ran ? step.why : "The gate does not run this step. It is recorded to measure what the gate saves and loses.";
  const body = make("p", { class: "tokens" });
  if (step.texts)
    step.texts.forEach((piece, at) => {
      const bits = step.shades[at] / 100;
      body.append(make("span", { class: `s${shadeOf(bits)}`, title: `${bits.toFixed(2)} bits` }, piece));
    });
  else body.append(step.text || "");
  if (step.probe) body.append(make("span", { class: "probe" }, ` ${step.probe}`));
  return make("li", { class: ran ? "ran" : "spared" }, head, make("p", { class: "facts" }, facts.join(" · ")), body, make("p", { class: "why" }, why));
}

function detail(problem) {
  const about = [problem.id === problem.problem ? "" : problem.id, problem.target === null ? "" : `target ${problem.target}`].filter(Boolean).join(" · ");
  const steps = problem.steps
    ? make("ol", { class: "steps" }, ...problem.steps.map((step, number) => stepNode(problem, step, number)))
    : make("p", { class: "note" }, "The steps are left out to keep this file small.");
  return make("div", { class: "detail" }, about ? make("p", { class: "facts" }, about) : "", problem.problem ? make("p", { class: "question" }, problem.problem) : "", ...picture(problem), steps);
}

// The picture of a thought; the list is as wide as the page's text.
function picture(problem) {
  if (!problem.stops || !problem.steps) return [];
  const width = Math.max(280, Math.min(860, document.getElementById("problem-list").clientWidth - 48));
  return [thoughtChart(width, problem).svg];
}

function problemList(home) {
  let filter = FILTERS[0];
  let column = -1;
  let descending = false;
  let limit = BATCH;
  const body = make("tbody");
  const status = make("p", { class: "note", role: "status" });
  const more = make("button", { type: "button", class: "more" });
  const heads = COLUMNS.map(([name, , , kind], number) => {
    const button = make("button", { type: "button" }, name, make("span", { class: "arrow", "aria-hidden": "true" }));
    const head = make("th", { scope: "col", class: kind, "aria-sort": "none" }, button);
    button.addEventListener("click", () => {
      descending = column === number ? !descending : false;
      column = number;
      limit = BATCH;
      show();
    });
    return head;
  });
  const choices = make("fieldset", { class: "filters" }, make("legend", { class: "unseen" }, "Show"));
  FILTERS.forEach((entry, number) => {
    const matches = data.problems.filter(entry[1]).length;
    const radio = make("input", { type: "radio", name: "filter", value: entry[0] });
    radio.checked = !number;
    radio.disabled = !matches;
    radio.addEventListener("change", () => {
      filter = entry;
      limit = BATCH;
      show();
    });
    choices.append(make("label", {}, radio, make("span", {}, `${entry[0]} `, make("b", {}, String(matches)))));
  });
  const ramp = make("p", { class: "ramp", "aria-label": `Shade of a token: from sure to unsure, 0 to 1.6 bits and more` }, "sure ");
  for (let level = 0; level <= 6; level++) ramp.append(make("span", { class: `s${level}` }, ["0", ".05", ".15", ".35", ".7", "1.1", "1.6+"][level]));
  ramp.append(` unsure, bits per token`);

  function row(problem, number) {
    const open = make("button", { type: "button", class: "open", "aria-expanded": "false" });
    const cells = COLUMNS.map(([, , content, kind], at) => {
      if (at) return make("td", { class: kind === "words outcome" ? `${kind} ${outcomeOf(problem)}` : kind }, make("bdi", {}, content(problem)));
      open.append(make("bdi", {}, content(problem)));
      return make("th", { scope: "row", class: kind }, open);
    });
    const line = make("tr", { "data-id": problem.id }, ...cells);
    let below = null;
    open.addEventListener("click", () => {
      const opened = open.getAttribute("aria-expanded") === "true";
      open.setAttribute("aria-expanded", String(!opened));
      if (opened) below.remove();
      else {
        below = make("tr", { class: "below" }, make("td", { colspan: String(COLUMNS.length) }, detail(problem)));
        line.after(below);
      }
    });
    return line;
  }

  function show() {
    const matches = data.problems.filter(filter[1]);
    if (column >= 0) {
      const key = COLUMNS[column][1];
      matches.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        // A missing value is last in both directions.
        return x === null || y === null ? compare(x, y) : (descending ? -1 : 1) * compare(x, y);
      });
    }
    heads.forEach((head, number) => head.setAttribute("aria-sort", number !== column ? "none" : descending ? "descending" : "ascending"));
    body.replaceChildren(...matches.slice(0, limit).map(row));
    status.textContent = matches.length > limit ? `${limit} of ${matches.length} shown` : `${matches.length} shown`;
    more.hidden = matches.length <= limit;
    more.textContent = `Show ${Math.min(4 * BATCH, matches.length - limit)} more`;
  }

  more.addEventListener("click", () => {
    limit += 4 * BATCH;
    show();
  });
  const table = make("table", { class: "problems" }, make("caption", { class: "unseen" }, "Problems; select a column head to sort"), make("thead", {}, make("tr", {}, ...heads)), body);
  home.append(choices, ramp, make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Problems, table" }, table), status, more);
  show();
}
