// The answer as it comes: the thought step by step, each token coloured by its bits, the stop, and the answer.
import { make } from "./draw.js";
import { bits, plural, reason, shade } from "./words.js";

export class Transcript {
  constructor(home) {
    this.home = home;
    this.list = make("ol", { class: "thought" });
    this.answer = make("div", { class: "tokens said", role: "group", "aria-label": "Answer" });
    this.last = make("div", { class: "last" }, make("h3", {}, "Answer"), this.answer);
    this.step = null;
    this.told = 0;
    home.replaceChildren(this.list);
  }

  // Tokens that have come; `follower` knows their places.
  add(tokens, follower) {
    for (const token of tokens) {
      const piece = make("span", { class: token.again ? "t again" : token.bits === null ? "t none" : `t s${shade(token.bits)}`, "data-bits": token.bits ?? undefined, title: token.again ? undefined : token.bits === null ? "no log-probabilities" : `${bits(token.bits)} bits` }, token.text);
      token.node = piece;
      if (token.part === "answer") {
        // Blank lines between a thought and its answer belong to neither.
        if (!this.answer.isConnected) {
          if (!token.text.trim()) continue;
          this.home.append(this.last);
        }
        this.answer.append(piece);
      } else this.#place(token, piece);
    }
    this.#settle(follower);
  }

  #place(token, piece) {
    if (!this.step) this.#begin(this.told + 1);
    this.step.body.append(piece);
  }

  #begin(number) {
    const head = make("div", { class: "side" });
    const body = make("div", { class: "tokens" });
    this.step = { node: make("li", {}, head, body), head, body, number };
    this.list.append(this.step.node);
  }

  // Steps that have been decided since are closed and told.
  #settle(follower) {
    while (this.told < follower.steps.length) {
      const { decision, tokens, bits: value } = follower.steps[this.told++];
      const current = this.step;
      if (!current) return;
      const over = decision?.action === "stop";
      const last = tokens.at(-1);
      // What came after the boundary within one event belongs to the next step.
      const rest = last?.node?.parentNode === current.body ? [...current.body.childNodes].slice([...current.body.childNodes].indexOf(last.node) + 1) : [];
      this.#name(current, { value, tokens: tokens.length, decision, unit: follower.unit });
      this.step = null;
      if (over) this.list.append(this.#stop(decision, follower));
      if (rest.length) {
        this.#begin(this.told + 1);
        this.step.body.append(...rest);
      }
    }
    if (this.step) {
      const word = follower.stopped ? "ran on" : "thinking";
      this.#name(this.step, { value: follower.running, tokens: follower.open.length, word, unit: follower.unit });
    }
  }

  #name(step, { value, tokens, decision = null, word = "", unit }) {
    const sure = decision !== null && value !== null && decision.threshold !== null && value <= decision.threshold;
    const said = decision ? (decision.action === "stop" ? "sure" : decision.reason === "uncertain" ? "thinks on" : reason(decision.reason)) : word;
    const name = make("b", {}, word === "ran on" ? "then" : `step ${step.number}`);
    const measured = [value !== null && tokens ? `${bits(value)} ${unit}` : "", said].filter(Boolean).join(", ");
    step.head.replaceChildren(
      make("span", {}, name, tokens ? ` ${plural(tokens, "token")}` : ""),
      ...(measured ? [make("span", { class: sure ? "sure" : "" }, measured)] : []),
    );
  }

  #stop(decision, follower) {
    const head = follower.gated ? `Stopped: ${bits(decision.entropy)} ≤ ${bits(decision.threshold)} ${follower.unit}.` : `Here it would have been stopped: ${bits(decision.entropy)} ≤ ${bits(decision.threshold)} ${follower.unit}.`;
    const rest = follower.gated ? (follower.stepwise ? " No further step was asked for." : " The server was told to stop; the rest of this thought was never generated.") : " This request ran on.";
    return make("li", { class: follower.gated ? "stop" : "stop would" }, make("strong", {}, head), rest);
  }

  // All has come, or no more will.
  end(follower, { broken = false } = {}) {
    this.#settle(follower);
    if (this.step && !follower.stopped) {
      const word = broken ? "broken off" : follower.steps.length || follower.report ? "not decided" : "";
      this.#name(this.step, { value: follower.running, tokens: this.step.body.childNodes.length, word, unit: follower.unit });
    }
    const { report } = follower;
    if (report?.decision === "stopped" && report.reason === "budget") {
      this.list.append(make("li", { class: "stop" }, make("strong", {}, `Cut: the budget of ${plural(report.budget, "token")} was spent.`), " What was left of it went into the answer."));
    }
    if (!this.list.children.length) this.list.remove();
  }
}
