// The playground: one request, streamed, measured and told.
import { liveChart } from "./chart.js";
import { byId, make, terms } from "./draw.js";
import { Follower } from "./follow.js";
import { events } from "./stream.js";
import { Transcript } from "./transcript.js";
import { SHADES, bits, count, failure, plural, reason } from "./words.js";

const MODES = ["off", "observe", "gate"];
const DEFAULT = { shape: "streaming", signal: { top_k: 20, tail: "renormalise", pooling: "mean", splitter: "paragraph" } };
// Until the status is known.
const THOUGHT = { open: "<think>", close: "</think>", opened: false, cue: false };

export class Playground {
  constructor({ headline, speak }) {
    this.headline = headline;
    this.speak = speak;
    this.known = null;
    this.abort = null;
    this.drawn = 0;
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    byId("problem").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.halt();
    });
    byId("halt").addEventListener("click", () => this.halt());
    byId("now").addEventListener("click", () => this.answerNow());
    byId("tau").addEventListener("input", () => this.#tau());
    byId("modes").addEventListener("change", () => this.#tau());
    byId("model").addEventListener("change", () => this.#model());
    byId("keys").addEventListener("submit", (event) => event.preventDefault());
    // Only a way up is someone's own: more text than was seen may have come since a way down.
    byId("transcript").addEventListener("scroll", ({ target }) => {
      if (target.scrollTop < this.top) this.following = false;
      else if (target.scrollTop + target.clientHeight > target.scrollHeight - 60) this.following = true;
      this.top = target.scrollTop;
    });
    byId("key").addEventListener("change", () => this.models());
    // A page that is left keeps no key, not even for the way back.
    window.addEventListener("pagehide", () => (byId("key").value = ""));
    new ResizeObserver(() => this.#draw(true)).observe(byId("chart"));
    byId("ramp").append(" ", ...[0, ...SHADES].map((from, number) => make("span", { class: `s${number}` }, number ? `${from}${number === SHADES.length ? "+" : ""}` : "0")));
  }

  get headers() {
    const key = byId("key").value;
    return key ? { authorization: `Bearer ${key}` } : {};
  }

  // What the operator allows, from the status.
  allow(status) {
    const first = this.known === null;
    this.known = status;
    const most = MODES.indexOf(status.mode);
    for (const input of byId("modes").querySelectorAll("input")) {
      const at = MODES.indexOf(input.value);
      input.disabled = at > most;
      input.parentNode.title = at > most ? "more than the operator allows" : "";
      if (first ? input.value === status.mode : input.checked && at > most) byId("modes").querySelector(`[value=${status.mode}]`).checked = true;
    }
    if (first) {
      const temperature = status.calibration?.signal?.temperature;
      if (temperature !== null && temperature !== undefined) byId("temperature").value = temperature;
    }
    this.#tau();
  }

  get limit() {
    return this.known?.calibration?.threshold ?? null;
  }

  get mode() {
    return byId("modes").querySelector("input:checked")?.value ?? "observe";
  }

  get threshold() {
    return this.limit === null ? null : (this.limit * Number(byId("tau").value)) / 1000;
  }

  #tau() {
    const free = this.limit !== null && this.mode !== "off";
    byId("tau").disabled = !free;
    byId("tau-knob").classList.toggle("idle", !free);
    const said = `${bits(this.threshold)} bits`;
    byId("tau-value").textContent = this.limit === null ? "none" : said;
    byId("tau").setAttribute("aria-valuetext", this.limit === null ? "no threshold" : said);
    byId("tau-note").textContent = this.limit === null ? "No calibration: nothing is stopped." : `Up to the calibrated ${bits(this.limit)}; lower is stricter.`;
  }

  // The models that the server behind names.
  async models() {
    const home = byId("model");
    let names = this.known?.upstream?.models ?? [];
    try {
      const answer = await fetch("/v1/models", { headers: this.headers });
      const body = await answer.json();
      if (answer.ok) names = (body.data ?? []).map((model) => String(model.id));
      else if (answer.status === 401) {
        byId("more").open = true;
        byId("key-note").textContent = `${failure(answer.status, body).mend} It stays in this field and is sent to this gateway only.`;
      }
    } catch {
      // What the status named has to do; asking will tell what is wrong.
    }
    const calibrated = this.known?.calibration?.model;
    if (!names.length && calibrated) names = [calibrated];
    const before = home.value;
    home.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    home.value = names.includes(before) ? before : names.includes(calibrated) ? calibrated : (names[0] ?? "");
    this.#model();
  }

  #model() {
    const calibrated = this.known?.calibration?.model;
    const only = byId("model").options.length < 2;
    byId("model-note").textContent = !calibrated || only ? "" : byId("model").value === calibrated ? "The calibrated one." : `Calibrated is ${calibrated}.`;
  }

  halt() {
    this.abort?.abort();
  }

  // The thought ends with its step; the answer comes in the same stream.
  async answerNow() {
    byId("now").disabled = true;
    try {
      const answer = await fetch(`/v1/justenough/requests/${this.id}/answer`, { method: "POST", headers: this.headers });
      if (answer.ok) this.speak("The thought ends with this step.");
      else byId("why").textContent += ` ${failure(answer.status, parsed(await answer.text())).own}.`;
    } catch {
      // The stream's own error says more.
    }
  }

  async ask() {
    this.halt();
    const abort = (this.abort = new AbortController());
    this.#begin();
    try {
      await this.#run(abort.signal);
    } catch (error) {
      if (this.abort !== abort) return;
      if (this.follower) this.transcript.end(this.follower, { broken: true });
      if (abort.signal.aborted) this.#told("You stopped it.", "The gateway has closed the server’s stream.");
      else this.#failed({ head: "", own: this.started ? "The connection to the gateway broke. What stands here is not a whole answer." : "The gateway cannot be reached.", mend: "" });
    }
    if (this.abort === abort) this.#ended();
  }

  #begin() {
    byId("run").hidden = false;
    byId("guide").hidden = true;
    byId("failure").hidden = byId("spent").hidden = byId("steps-part").hidden = byId("raw-part").hidden = true;
    byId("why").textContent = "";
    byId("halt").hidden = false;
    byId("run").setAttribute("aria-busy", "true");
    byId("run").dataset.state = "running";
    this.threshold_asked = this.threshold;
    this.follower = null;
    this.following = true;
    this.top = 0;
    this.started = false;
    this.since = performance.now();
    this.took = null;
    this.transcript = new Transcript(byId("transcript"));
    byId("chart").replaceChildren();
    this.#readout();
    this.headline("Asking …");
    this.speak("Asked.");
  }

  body({ logprobs = true } = {}) {
    const number = (id) => (byId(id).value === "" ? undefined : Number(byId(id).value));
    const top = Math.min(20, this.known?.calibration?.signal?.top_k ?? 20);
    const stricter = this.mode !== "off" && this.limit !== null && this.threshold < this.limit;
    return {
      model: byId("model").value || undefined,
      messages: [{ role: "user", content: byId("problem").value }],
      stream: true,
      stream_options: { include_usage: true },
      ...(logprobs ? { logprobs: true, top_logprobs: top } : {}),
      temperature: number("temperature"),
      max_tokens: number("longest"),
      seed: number("seed"),
      justenough: { mode: this.mode, decisions: true, budget: number("budget"), ...(stricter ? { threshold: this.threshold } : {}) },
    };
  }

  async #run(signal) {
    let answer = await this.#post(this.body(), signal);
    let bare = false;
    if (answer.status === 400 || answer.status === 422) {
      const said = await answer.text();
      if (said.toLowerCase().includes("logprob")) {
        // The model gives none: then there is nothing to colour, but still an answer.
        bare = true;
        answer = await this.#post(this.body({ logprobs: false }), signal);
      } else return this.#failed(failure(answer.status, parsed(said)));
    }
    if (!answer.ok) return this.#failed(failure(answer.status, parsed(await answer.text())));
    const said = answer.headers.get("x-justenough") ?? "";
    const course = said.split(";")[0].trim() || "relayed";
    const relayed = /reason=([\w.]+)/.exec(said)?.[1] ?? null;
    const { shape, signal: measured } = this.known?.calibration ?? DEFAULT;
    this.follower = new Follower({ signal: measured, shape, course, thought: this.known?.thought ?? THOUGHT });
    this.started = true;
    this.id = answer.headers.get("x-justenough-request");
    byId("now").hidden = course === "relayed" || !this.id;
    byId("now").disabled = false;
    byId("why").textContent = { auditing: "This request belongs to the audited share: it runs to its end, so that savings can be measured.", observing: relayed ? `Only observed: ${reason(relayed)}.` : "Only observed: nothing is stopped.", relayed: `Relayed as it comes${relayed ? `: ${reason(relayed)}` : ""}.${bare ? " The model gives no log-probabilities, so that nothing is coloured." : ""}` }[course] ?? "";
    const kind = answer.headers.get("content-type") ?? "";
    if (!kind.startsWith("text/event-stream")) return this.#failed({ head: "", own: "The server answered with something that is no stream.", mend: "" });
    let whole = false;
    for await (const data of events(answer.body)) {
      if (data === "[DONE]") {
        whole = true;
        continue;
      }
      const chunk = parsed(data);
      if (chunk?.error) return this.#failed(failure(null, chunk));
      if (chunk && typeof chunk === "object") this.#take(chunk);
    }
    this.#add(this.follower.end());
    if (!whole) return this.#failed({ head: "", own: "The stream ended without an end.", mend: "What stands here is not a whole answer." });
    this.#done();
  }

  #post(body, signal) {
    return fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json", ...this.headers }, body: JSON.stringify(body), signal, redirect: "error" });
  }

  #take(chunk) {
    const before = this.follower.steps.length;
    this.#add(this.follower.take(chunk));
    const fresh = this.follower.steps.slice(before).filter((step) => step.decision);
    if (fresh.length) {
      const { step, entropy, action, reason } = fresh.at(-1).decision;
      this.speak(`Step ${step}: ${bits(entropy)} bits${action === "stop" ? `, stopped: ${reason}` : ""}.`);
    }
    this.#draw();
  }

  #add(tokens) {
    const { follower } = this;
    this.transcript.add(tokens, follower);
    if (follower.answering) byId("now").hidden = true;
    this.headline(follower.answering || !follower.measured ? "Answering …" : `Thinking, step ${follower.steps.length + 1} …`);
  }

  // Ten pictures a second are enough, and leave time for the rest.
  #draw(now = false) {
    if (!this.follower) return;
    const wait = 100 - (performance.now() - this.drawn);
    if (!now && wait > 0) {
      this.later ??= setTimeout(() => this.#draw(true), wait);
      return;
    }
    clearTimeout(this.later);
    this.later = null;
    this.drawn = performance.now();
    const home = byId("chart");
    const width = Math.floor(home.clientWidth);
    const running = byId("run").dataset.state === "running";
    if (width) home.replaceChildren(liveChart(width, this.follower, this.shown, { running }));
    // Whoever has scrolled up to read is left there.
    const words = byId("transcript");
    if (words.scrollTop < this.top) this.following = false;
    if (this.following) words.scrollTop = words.scrollHeight;
    this.top = words.scrollTop;
    this.#readout();
  }

  // The threshold that this request is held to.
  get shown() {
    const told = this.follower?.report ?? this.follower?.steps.at(-1)?.decision;
    if (told) return told.threshold;
    return this.follower?.measured ? this.threshold_asked : null;
  }

  #readout() {
    const { follower } = this;
    const unit = follower?.unit ?? "bits";
    const report = follower?.report;
    const entropy = report ? report.entropy : (follower?.running ?? follower?.steps.at(-1)?.decision?.entropy ?? null);
    const threshold = this.shown;
    const sure = entropy !== null && threshold !== null && entropy <= threshold;
    const seconds = ((this.took ?? performance.now()) - this.since) / 1000;
    const rows = [
      ["step", "Step", report ? (report.step ? String(report.step) : "–") : follower?.measured ? String(follower.steps.length + (follower.open.length ? 1 : 0) || "–") : "–", ""],
      ["entropy", "Entropy of the step", bits(entropy), entropy === null ? "" : sure ? `${unit}, at or below τ` : unit],
      ["threshold", "Threshold τ", bits(threshold), threshold === null ? "nothing is stopped" : unit],
      ["tokens", "Tokens", count(report ? report.tokens : (follower?.tokens.length ?? 0)), `in ${seconds.toFixed(1)} s`],
    ];
    byId("readout").replaceChildren(...rows.map(([name, label, value, more]) => make("div", { class: `now-${name}${name === "entropy" && sure ? " sure" : ""}` }, make("dt", {}, label), make("dd", { id: `now-${name}` }, value), make("dd", { class: "limits" }, more))));
  }

  #done() {
    this.took = performance.now();
    const { follower } = this;
    const { report } = follower;
    this.transcript.end(follower);
    if (!report) {
      this.#told("Relayed as it came.", "");
    } else if (report.decision === "stopped" && report.reason === "budget") {
      this.#told(`Cut after ${plural(report.thought_tokens, "token")} of thought: the budget was spent.`, "");
    } else if (report.reason === "answer_now") {
      this.#told(`You ended the thought after ${plural(report.thought_tokens, "token")}.`, "");
    } else if (report.decision === "stopped") {
      this.#told(`Sure after step ${report.step}: ${bits(report.entropy)} ${follower.unit}, at or below ${bits(report.threshold)}.`, "");
    } else {
      const heads = { finished: "It thought to its end.", observed: "It thought to its end, watched.", audited: "It thought to its end, for the audit." };
      const would = report.would_stop_at ? ` The gate would have stopped it after ${plural(report.would_stop_at, "token")}.` : "";
      this.#told(heads[report.decision] ?? "Done.", would ? "" : report.reason === "confident" ? "" : `Not stopped: ${reason(report.reason)}.`);
      if (would) byId("why").textContent += would;
    }
    if (report?.notes) byId("why").textContent += ` Noted: ${report.notes.map(reason).join("; ")}.`;
    this.#spent();
    this.#table();
    if (report) {
      byId("raw").textContent = JSON.stringify(report, null, 2);
      byId("raw-part").hidden = false;
    }
    const answer = byId("transcript").querySelector(".said")?.textContent.trim() ?? "";
    this.speak(`${byId("headline").textContent} Answer: ${answer.slice(0, 400)}`);
  }

  #told(head, why) {
    this.headline(head);
    if (why) byId("why").textContent += ` ${why}`;
    this.speak(head);
  }

  #failed({ head, own, mend }) {
    const home = byId("failure");
    if (this.follower) this.transcript.end(this.follower, { broken: true });
    home.replaceChildren(make("strong", {}, head || "Error"), ...(own ? [make("p", { class: "own" }, own)] : []), ...(mend ? [make("p", {}, mend)] : []));
    home.hidden = false;
    this.headline("That did not work.");
    if (mend.includes("“More”")) byId("more").open = true;
  }

  #ended() {
    this.took ??= performance.now();
    byId("halt").hidden = byId("now").hidden = true;
    byId("run").removeAttribute("aria-busy");
    byId("run").dataset.state = "done";
    byId("run").classList.toggle("empty", !this.follower?.tokens.length);
    this.abort = null;
    this.#draw(true);
  }

  // What the gateway counted: nothing of it is estimated, and nothing is called a saving.
  #spent() {
    const { report, usage } = this.follower;
    const total = report?.tokens ?? usage?.completion_tokens;
    if (total === undefined) return;
    const thought = report?.thought_tokens ?? 0;
    const probe = report?.probe_tokens ?? 0;
    const rest = Math.max(0, total - thought - probe);
    const parts = [
      ["thought", report && "steps" in report ? "Earlier steps" : "Thought", thought],
      ["probe", "Answer after the stop", probe],
      ["answer", "Answer", rest],
    ].filter(([, , tokens]) => tokens > 0);
    byId("spent-bar").replaceChildren(...parts.map(([name, , tokens]) => {
      const piece = make("span", { class: `of-${name}` });
      piece.style.flexGrow = tokens;
      return piece;
    }));
    // Tokens of different models are not added up.
    const apart = report?.tokens_by_model ?? [];
    const each = new Map();
    for (const { model, tokens } of apart) each.set(model, (each.get(model) ?? 0) + tokens);
    const rows = each.size > 1 ? [...each].map(([model, tokens], at) => [`model-${at}`, `By ${model}`, tokens]) : [...parts, ["total", "In all", total]];
    byId("spent-bar").hidden = each.size > 1;
    byId("spent-list").replaceChildren(...rows.map(([name, label, tokens]) => make("div", { class: `of-${name}` }, make("dt", {}, label), make("dd", { id: `spent-${name}`, "data-value": tokens }, count(tokens)), make("dd", { class: "limits" }, "tokens"))));
    const source = { received: "Counted as they were received; what the server still made before it noticed the cut is not among them.", upstream: "Counted by the server itself." }[report?.usage_source] ?? "Counted by the server itself.";
    const prompt = usage?.prompt_tokens ? ` The prompt was ${plural(usage.prompt_tokens, "token")}.` : "";
    const saved = report?.decision === "stopped" && !this.follower.stepwise ? " How long the thought would have become nobody knows: the audit on the status page measures what stopping saves." : "";
    byId("spent-note").textContent = source + prompt + saved;
    byId("spent-note").dataset.source = report?.usage_source ?? "upstream";
    byId("spent").hidden = false;
  }

  #table() {
    const rows = this.follower.steps.filter((step) => step.decision);
    if (!rows.length) return;
    const head = ["step", `entropy, ${this.follower.unit}`, "computed here", `threshold, ${this.follower.unit}`, "tokens", "decision"];
    byId("steps").replaceChildren(
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...rows.map(({ decision, own }) => make("tr", { "data-entropy": decision.entropy, "data-own": own ?? undefined }, make("th", { scope: "row" }, String(decision.step)), ...[bits(decision.entropy), bits(own), bits(decision.threshold), count(decision.tokens), `${decision.action}: ${reason(decision.reason)}`].map((said) => make("td", {}, said))))),
    );
    byId("steps-part").hidden = false;
  }
}

function parsed(said) {
  try {
    return JSON.parse(said);
  } catch {
    return said;
  }
}
