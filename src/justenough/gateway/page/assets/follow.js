// Follows one answer: which token belongs to the thought, to which step, and how unsure the model was of it.
import { Pool, tokenBits } from "./signal.js";

export class Follower {
  // `signal` is the calibration's, `thought` the model's tags; `shape` and `course` say how the gateway treats this request.
  constructor({ signal, shape, course, thought }) {
    this.thought = thought;
    this.signal = { topK: signal.top_k ?? 20, tail: signal.tail ?? "renormalise" };
    const kind = signal.kind ?? "entropy";
    this.unit = kind === "entropy" ? "bits" : kind;
    this.pooling = kind === "entropy" ? (signal.pooling ?? "mean") : kind;
    this.whole = shape === "sequential";
    this.stepwise = this.whole && (course === "gating" || course === "auditing");
    this.measured = course !== "relayed";
    this.gated = course === "gating";
    this.tokens = [];
    this.steps = [];
    this.open = [];
    this.pool = new Pool(this.pooling);
    this.seen = 0;
    this.phase = thought.opened ? "thinking" : "unknown";
    this.separate = false;
    this.tail = "";
    this.held = [];
    this.stopped = null;
    this.answering = false;
    this.closed = false;
    this.report = null;
    this.usage = null;
    this.finish = null;
  }

  // Take one chunk; the tokens whose place is known now.
  take(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    this.fresh = [];
    if (choice) {
      const delta = choice.delta ?? {};
      const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
      const content = delta.content ?? choice.text ?? "";
      if (choice.finish_reason) this.finish = choice.finish_reason;
      for (const token of tokensOf(reasoning + content, choice.logprobs, choice.finish_reason)) {
        const bits = tokenBits(token.logprobs, this.signal);
        this.#place({ text: token.text, bits, logprob: token.logprob ?? null, mean: null, part: null, step: null }, Boolean(reasoning));
      }
    }
    const told = chunk.justenough;
    if (told?.decisions) this.#decide(told.decisions, Boolean(told.decision));
    if (told?.decision) this.report = told;
    this.#measure();
    return this.fresh;
  }

  // Nothing more comes: what was held back is what it looks like.
  end() {
    this.fresh = [];
    for (const token of this.held.splice(0)) this.#add(token, "answer", false);
    return this.fresh;
  }

  #place(token, reasoning) {
    const { open, close, cue } = this.thought;
    if (this.stepwise) {
      if (reasoning) return this.#add(token, "thought", true);
      // The accepted step's answer is said once more: these are no new tokens.
      return void this.fresh.push({ ...token, part: "answer", again: true });
    }
    if (this.stopped && this.gated) {
      // The gateway closes the thought itself: that is no token of the model's.
      if (!this.closed && token.text.includes(close)) this.closed = true;
      else this.#add(token, "answer", false);
      return;
    }
    if (reasoning) {
      this.separate = true;
      this.phase = "thinking";
      return this.#add(token, "thought", true);
    }
    if (this.separate) this.phase = "answering";
    if (this.phase === "answering") return this.#add(token, "answer", this.whole);
    this.tail = this.phase === "thinking" ? (this.tail + token.text).slice(-close.length - token.text.length) : this.tail + token.text;
    if (this.phase === "unknown") {
      const begun = this.tail.trimStart();
      if (!begun.startsWith(open) && open.startsWith(begun)) return void this.held.push(token);
      this.phase = begun.startsWith(open) ? "thinking" : "answering";
      for (const earlier of this.held.splice(0)) this.#add(earlier, this.phase === "thinking" ? "thought" : "answer", this.whole || this.phase === "thinking");
      if (this.phase === "answering") return this.#add(token, "answer", this.whole);
    }
    const closes = this.tail.includes(close);
    if (closes) this.phase = "answering";
    // A cue is the beginning of the answer, not a tag.
    return this.#add(token, closes ? (cue ? "answer" : "closing") : "thought", this.whole || !closes);
  }

  #add(token, part, counted) {
    token.part = part;
    token.at = this.tokens.length;
    this.tokens.push(token);
    this.fresh.push(token);
    if (part === "answer") this.answering = true;
    if (counted && this.measured && !this.stopped) this.open.push(token);
  }

  // The gateway says where a step ended, and what it made of it.
  #decide(decisions, last) {
    for (const decision of decisions) {
      if (decision.step <= this.steps.length) continue;
      const length = this.stepwise ? this.open.length : Math.min(decision.tokens, this.open.length);
      this.#close(length, decision);
      if (decision.action === "stop") {
        this.stopped = decision;
        this.open = [];
      }
    }
    // A step that is audited goes on after the stop; its end is marked without a decision.
    if (!decisions.length && !last && this.open.length) this.#close(this.open.length, null);
  }

  #close(length, decision) {
    this.#measure(length);
    const tokens = this.open.splice(0, length);
    // What the gate decided on is the step's value; `own` is what this page makes of the same tokens.
    this.steps.push({ decision, tokens, bits: decision ? decision.entropy : this.pool.value, own: this.pool.value });
    this.pool = new Pool(this.pooling);
    this.seen = 0;
  }

  // The running value of the step for tokens that have none yet.
  #measure(length = this.open.length) {
    for (const token of this.open.slice(this.seen, length)) {
      if (token.bits !== null) this.pool.add(token.bits, token.logprob);
      token.mean = this.pool.value;
      token.step = this.steps.length + 1;
    }
    this.seen = Math.max(this.seen, length);
  }

  get running() {
    return this.pool.value;
  }
}

// The tokens of a piece of text, each with its log-probabilities, as the gateway counts them.
function tokensOf(text, logprobs, finish) {
  const entries = (logprobs?.content ?? []).map((entry) => ({
    text: entry.token ?? "",
    logprob: entry.logprob ?? null,
    logprobs: entry.top_logprobs?.length ? entry.top_logprobs.map((top) => top.logprob) : null,
  }));
  if (!entries.length) return text ? [{ text, logprobs: null }] : [];
  if (entries.length === 1 && entries[0].text === text && (text || !finish)) return entries;
  if (entries.length > 1 && entries.map((entry) => entry.text).join("") === text) return entries;
  const out = [];
  let rest = text;
  for (const [number, entry] of entries.entries()) {
    const last = number === entries.length - 1;
    // The end of the turn is an entry without text, and no token.
    if (last && !rest && finish === "stop") break;
    const at = entry.text ? rest.indexOf(entry.text) : -1;
    const piece = last ? rest : at >= 0 ? rest.slice(0, at + entry.text.length) : "";
    rest = rest.slice(piece.length);
    out.push({ ...entry, text: piece });
  }
  return out;
}
