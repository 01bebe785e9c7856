// The live status: what the gateway has done, and what its audit has measured.
import { byId, canvas, draw, line, make, terms, text, ticks } from "./draw.js";
import { bits, count, failure, fixed, percent, plural, reason } from "./words.js";

const EVERY = 2000;
const OUTCOMES = { stopped: "stopped early", answer_now: "ended by the client", finished: "thought to the end", audited: "audited", observed: "only observed", relayed: "relayed" };
const MEANS = { continue_final_message: "continuing the message", prefill: "an assistant’s prefill", template: "the rendered prompt" };

export class Status {
  constructor({ headers, headline, heard }) {
    this.headers = headers;
    this.headline = headline;
    this.heard = heard;
    this.shown = false;
    this.paused = false;
    this.last = null;
    byId("pause").addEventListener("click", () => {
      this.paused = !this.paused;
      byId("pause").setAttribute("aria-pressed", String(this.paused));
      byId("pause").textContent = this.paused ? "Go on" : "Pause";
      if (this.paused) this.#next();
      else this.refresh();
    });
    document.addEventListener("visibilitychange", () => this.#next());
    let width = 0;
    new ResizeObserver(() => {
      if (this.last && byId("figures").clientWidth !== width) this.#show(this.last);
      width = byId("figures").clientWidth;
    }).observe(byId("figures"));
  }

  show(shown) {
    this.shown = shown;
    if (shown) this.refresh();
  }

  async refresh() {
    clearTimeout(this.timer);
    try {
      const answer = await fetch("/v1/justenough/status", { headers: this.headers(), cache: "no-store" });
      if (!answer.ok) throw failure(answer.status, await answer.json().catch(() => ({})));
      this.last = await answer.json();
      byId("status-failure").hidden = true;
      byId("updated").textContent = `as of ${new Date().toLocaleTimeString("en-GB")}`;
      this.heard(this.last);
      if (this.shown) this.#show(this.last);
    } catch (error) {
      const { head, own, mend } = error instanceof Error ? { head: "", own: "The gateway does not answer; the figures below are old.", mend: "" } : error;
      byId("status-failure").replaceChildren(make("strong", {}, head || "No answer"), make("p", {}, [own, mend].filter(Boolean).join(" ")));
      byId("status-failure").hidden = false;
    }
    this.#next();
  }

  #next() {
    clearTimeout(this.timer);
    if (this.shown && !this.paused && document.visibilityState === "visible") this.timer = setTimeout(() => this.refresh(), EVERY);
  }

  #show(status) {
    const home = byId("figures");
    // What is open stays open, and what is focused stays focused, through each renewal.
    const open = new Set([...home.querySelectorAll("details[open]")].map((details) => details.id));
    const focused = document.activeElement?.closest?.("#figures details")?.id;
    const { outcomes = {}, audit = {} } = status;
    const gated = (outcomes.stopped ?? 0) + (outcomes.finished ?? 0);
    this.headline(sentence(status, gated));
    home.replaceChildren(
      ...cautions(status),
      make("div", { class: "cards" }, ...cards(status, gated)),
      make("section", { "aria-labelledby": "requests" }, make("h2", { id: "requests" }, "Requests"), ...requests(status)),
      ...budgets(status.budget),
      make("section", { "aria-labelledby": "drift" }, make("h2", { id: "drift" }, "Drift"), ...drift(status, home.clientWidth)),
      make("div", { class: "demo-parts" }, part("Calibration", calibration(status)), part("Server behind", upstream(status)), ...more(status)),
      make("details", { class: "alternative", id: "all-figures" }, make("summary", {}, "All that the gateway says"), make("pre", { class: "raw" }, JSON.stringify(status, null, 2))),
    );
    for (const details of home.querySelectorAll("details")) details.open = open.has(details.id);
    if (focused) byId(focused)?.querySelector("summary")?.focus({ preventScroll: true });
    home.dataset.requests = gated;
    home.dataset.audited = audit.requests ?? 0;
  }
}

function sentence(status, gated) {
  if (status.draining) return "Shutting down: open answers end, new ones are refused.";
  if (status.drift?.drifted) return "The model has drifted: nothing is stopped at present.";
  if (status.mode === "off") return "The gate is off: everything is relayed.";
  if (status.mode === "observe") return "Observing: everything is measured, nothing is stopped.";
  if (!gated) return "Ready to gate; nothing has been asked yet.";
  return `${count(status.outcomes.stopped ?? 0)} of ${plural(gated, "gated request")} stopped early.`;
}

function cautions(status) {
  const said = [...(status.calibration?.warnings ?? [])];
  if (!status.calibration) said.push("There is no calibration: thoughts are measured, none is stopped.");
  if (!status.upstream) said.push("The server behind has not answered yet.");
  else if (!status.upstream.continues_by && (status.calibration?.shape ?? "streaming") === "streaming") said.push("The server behind cannot go on from a thought that was cut: chats are only observed.");
  for (const [model, how] of Object.entries(status.without_logprobs ?? {})) said.push(`${model || "A model without a name"} gives no log-probabilities (${how}): it is relayed.`);
  return said.length ? [make("ul", { class: "cautions" }, ...said.map((one) => make("li", {}, String(one))))] : [];
}

function cards(status, gated) {
  const { outcomes = {}, audit = {}, active = 0 } = status;
  const n = audit.requests ?? 0;
  const none = audit.share ? `None of the audited share (${percent(audit.share)}) has come by yet.` : "Nothing is audited: --audit-share is 0.";
  const live = gated ? percent((outcomes.stopped ?? 0) / gated, 0) : "\u2013";
  return [
    card("Tokens saved, audited", percent(audit.saving?.value), audit.saving, n ? `of what audited requests generated to their end, answers after the stop counted in; ${audit.saving_is}` : none, { lead: true, id: "saving" }),
    card("Same answer, audited", percent(audit.agreement?.value), audit.agreement, n ? `as the whole thought gave${audit.unread ? `; ${count(audit.unread)} could not be read` : ""}` : none, { id: "agreement" }),
    card("Would be stopped, audited", percent(audit.stop_rate?.value), audit.stop_rate, n ? `of ${plural(n, "audited request")}` : none, { id: "stop_rate" }),
    card("Stopped, live", live, null, gated ? `${count(outcomes.stopped ?? 0)} of ${plural(gated, "gated request")}; ${count(active)} under way` : `no gated request yet; ${count(active)} under way`, { id: "live" }),
  ];
}

function card(name, value, estimate, gloss, { lead = false, id }) {
  const known = estimate && estimate.low !== null && estimate.low !== undefined;
  return make(
    "section",
    { class: lead ? "card lead" : "card", id: `card-${id}`, "data-value": estimate?.value ?? undefined },
    make("h3", {}, name),
    make("p", { class: "value" }, value, ...(known ? [make("span", { class: "limits" }, `${fixed(100 * estimate.low, 1)} to ${percent(estimate.high)}`)] : [])),
    ...(known ? [strip(estimate)] : []),
    make("p", { class: "gloss" }, gloss),
  );
}

// An estimate and its interval on the whole range that it could have.
function strip({ value, low, high }) {
  const from = Math.min(0, low);
  const x = (at) => 4 + (192 * (at - from)) / (1 - from);
  const svg = draw("svg", { viewBox: "0 0 200 16", class: "strip", "aria-hidden": "true", preserveAspectRatio: "none" });
  svg.append(line(x(from), 8, x(1), 8, "axis"), draw("rect", { class: "range", x: x(low), y: 4, width: Math.max(1.5, x(high) - x(low)), height: 8 }), draw("rect", { class: "mid", x: x(value) - 1, y: 1, width: 2, height: 14 }));
  return svg;
}

function requests({ outcomes = {}, observed = {}, relayed = {} }) {
  const rows = Object.entries(outcomes).filter(([, n]) => n > 0);
  if (!rows.length) return [make("p", { class: "note" }, "None yet.")];
  const order = Object.keys(OUTCOMES);
  rows.sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
  const all = rows.reduce((sum, [, n]) => sum + n, 0);
  const bar = make("div", { class: "spent-bar", "aria-hidden": "true" });
  for (const [name, n] of rows) {
    const piece = make("span", { class: `outcome-${name}` });
    piece.style.flexGrow = n;
    bar.append(piece);
  }
  const list = make("dl", { class: "readout outcomes" }, ...rows.map(([name, n]) => make("div", { class: `outcome-${name}` }, make("dt", {}, OUTCOMES[name] ?? name), make("dd", { "data-outcome": name }, count(n)), make("dd", { class: "limits" }, percent(n / all, 0)))));
  return [bar, list, ...because("Only observed", observed), ...because("Relayed", relayed)];
}

function because(what, reasons) {
  const why = Object.entries(reasons).map(([code, n]) => `${reason(code)} (${count(n)})`);
  return why.length ? [make("p", { class: "note" }, `${what} because: ${why.join("; ")}.`)] : [];
}

// What each account has spent, holds for requests under way, and has left.
function budgets(budget) {
  if (!budget) return [];
  const resets = budget.resets_in_s === null ? "" : ` The present ${budget.per} ends in ${plural(Math.ceil(budget.resets_in_s), "second")}.`;
  const lost = budget.unseen_tokens ? ` ${plural(budget.unseen_tokens, "token")} counted in full, for nobody saw the answer.` : "";
  const note = make("p", { class: "note" }, `${plural(budget.tokens, "token")} a ${budget.per} ${budget.scope === "key" ? "for each key" : "for all clients together"}.${resets}${lost}`);
  const rows = Object.entries(budget.accounts ?? {});
  const head = ["account", "spent", "held", "left"];
  const table = make(
    "table",
    { class: "sheet figures accounts" },
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(([name, { spent, reserved, remaining }]) => make("tr", { "data-account": name }, make("th", { scope: "row" }, name), ...[spent, reserved, remaining].map((tokens) => make("td", {}, count(tokens)))))),
  );
  return [make("section", { "aria-labelledby": "budgets" }, make("h2", { id: "budgets" }, "Budget"), note, ...(rows.length ? [make("div", { class: "scroll" }, table)] : []))];
}

function drift({ drift: seen = {} }, width) {
  if (!seen.watched) return [make("p", { class: "note" }, "Not watched: without a calibration there is nothing to drift from.")];
  const progress = `${count(seen.in_window)} of ${count(seen.window)} requests of the next window have come.`;
  const calibrated = `Calibrated at ${bits(seen.calibrated_mean)} bits on average over the first step, standard deviation ${bits(seen.calibrated_sd)}, ${count(seen.calibrated_n)} examples.`;
  if (seen.live_mean === null) return [make("p", { class: "note" }, `${calibrated} ${progress} Until then nothing is known.`)];
  const signed = Math.sign(seen.live_mean - seen.calibrated_mean) * seen.deviation;
  const coming = seen.drifted ? "" : ` ${progress}`;
  const verdict = seen.drifted ? "That is drift: nothing is stopped until the entropy comes back to the calibration, or until you calibrate again." : "That is within the limit.";
  return [make("p", { class: "note" }, `${calibrated} The last ${count(seen.window)} requests: ${bits(seen.live_mean)} bits, ${fixed(seen.deviation, 1)} standard errors away. ${verdict}${coming}`), make("figure", {}, make("div", { class: "chart", id: "drift-chart", "data-deviation": signed }, driftChart(Math.max(240, Math.min(width, 760)), signed, seen)))];
}

function driftChart(width, signed, { limit, drifted }) {
  const most = Math.max(1.5 * limit, 1.15 * Math.abs(signed));
  const x = (at) => 16 + ((at + most) / (2 * most)) * (width - 32);
  const svg = canvas(width, 74, `Live mean ${fixed(signed, 1)} standard errors from the calibrated one; the limit is ${limit}.`);
  svg.append(draw("rect", { class: "zone", x: x(-limit), y: 14, width: x(limit) - x(-limit), height: 26 }), line(x(-most), 40, x(most), 40, "axis"), line(x(0), 10, x(0), 40, "stem"));
  for (const at of ticks(-most, most, width < 500 ? 4 : 8)) svg.append(line(x(at), 40, x(at), 44, "axis"), text(x(at), 58, fixed(at, 0), "tick", "middle"));
  svg.append(text(x(most), 72, "standard errors", "tick", "end"), draw("circle", { cx: x(signed), cy: 27, r: 6, class: drifted ? "point off-limit" : "point sure" }));
  return svg;
}

function calibration({ calibration: made, extends_by: extend }) {
  if (!made) return [["", "none"]];
  const { signal = {} } = made;
  return [
    ["Model", made.model],
    ["Threshold", `${bits(made.threshold)} bits`],
    ["Shape", `${made.shape}; decides ${made.decide === "first" ? "after the first step" : "after every step"}`],
    ["Step ends at", signal.splitter],
    ["Goes on by", extend],
    ["Signal", `top ${signal.top_k}, ${signal.tail}, ${signal.pooling}`],
    ["Temperature", signal.temperature],
    ["Examples", made.n],
    ["Verdict", made.verdict],
    ["Guarantee", made.guarantee ?? "none"],
  ];
}

function upstream({ upstream: known, version, overshoot }) {
  if (!known) return [["", "not reached yet"]];
  return [
    ["Engine", known.engine],
    ["Models", (known.models ?? []).join(", ")],
    ["Goes on after a cut by", known.continues_by ? (MEANS[known.continues_by] ?? known.continues_by) : "nothing: chats are not cut"],
    ["Own temperature", Number(known.default_temperature?.toPrecision(4)) || (known.default_temperature ?? "not told")],
    ["Tokens to find out", known.probe_tokens],
    ["Overshoot", typeof overshoot === "number" ? plural(overshoot, "token") : null],
    ["Gateway", version],
  ];
}

// Whatever else a gateway says of itself, in its own words.
const SHOWN = new Set(["version", "extends_by", "mode", "configured_mode", "upstream", "without_logprobs", "calibration", "active", "draining", "outcomes", "observed", "relayed", "audit", "drift", "budget"]);

function more(status) {
  return Object.entries(status)
    .filter(([name, value]) => !SHOWN.has(name) && value !== null && typeof value === "object" && Object.keys(value).length)
    .filter(([name, value]) => name !== "feedback" || value.labels)
    .map(([name, value]) => part(titled(name), flat(value)));
}

const titled = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

function flat(value, before = "") {
  return Object.entries(value).flatMap(([name, one]) => {
    const said = before ? `${before}, ${name.replaceAll("_", " ")}` : titled(name);
    if (one !== null && typeof one === "object") return flat(one, said);
    return [[said, one === null ? "\u2013" : typeof one === "number" && !Number.isInteger(one) ? bits(one) : String(one)]];
  });
}

function part(name, rows) {
  return make("section", { class: "part" }, make("h3", {}, name), make("dl", { class: "provenance" }, ...terms(rows)));
}
