// Numbers and reasons as people read them.
const minus = (text) => text.replace("-", "\u2212");
export const fixed = (value, digits) => minus(Math.abs(value) < 0.5 * 10 ** -digits ? (0).toFixed(digits) : value.toFixed(digits));
export const percent = (value, digits = 1) => (value === null || value === undefined ? "\u2013" : `${fixed(100 * value, digits)}\u00a0%`);
export const count = (value) => Math.round(value).toLocaleString("en-US");
export const plural = (value, one) => `${count(value)}\u00a0${one}${value === 1 ? "" : "s"}`;

export function bits(value) {
  if (value === null || value === undefined) return "\u2013";
  if (value === 0 || Math.abs(value) >= 0.1) return minus(value.toFixed(3));
  if (Math.abs(value) < 1e-4) return minus(value.toPrecision(2));
  return minus(Math.abs(value) < 1e-3 ? value.toPrecision(3) : value.toFixed(4));
}

// Each shade begins at so many bits; the first is none.
export const SHADES = [0.05, 0.15, 0.35, 0.7, 1.1, 1.6];
export const shade = (value) => (value === null ? 0 : SHADES.filter((limit) => value >= limit).length);

const REASONS = {
  confident: "its entropy is at or below τ",
  uncertain: "its entropy is above τ",
  not_decisive: "only the first step decides, and it was not sure",
  too_few_tokens: "sure, but with fewer tokens than the calibration wants",
  patience: "sure, but not yet in as many steps in a row as the calibration wants",
  no_threshold: "there is no threshold, so nothing is stopped",
  no_signal: "its tokens came without log-probabilities, so nothing is decided on them",
  low_coverage: "too many of its tokens came without log-probabilities",
  max_steps: "it was the last step allowed",
  budget: "the token budget is spent",
  answer_now: "the client wanted the answer",
  rule: "the stopping rule decides so",
  no_step: "no step of the thought was finished",
  no_thought: "there was no thought that could be cut short",
  unknown_tags: "the tags of the model's thought are not known",
  temperature: "its temperature is not the calibration’s, so it is only measured",
  temperature_unknown: "the server’s own temperature is not known, so it is only measured",
  drift: "the entropies have drifted from the calibration’s, so nothing is stopped any more",
  cannot_continue: "the server cannot go on from a thought that was cut, so it is only measured",
  off: "the gate is off",
  model: "it is not the model that was calibrated",
  no_logprobs: "the model gives no log-probabilities",
  shape: "the calibration is for whole chats",
  error: "the server answered with an error",
  not_streamed: "the server did not stream",
  tools: "tools are left to the model",
  unreadable: "the gateway could not read the request",
  missing_logprobs: "some tokens came without log-probabilities",
  short_logprobs: "some tokens came with fewer log-probabilities than calibrated",
  misaligned_logprobs: "some log-probabilities did not belong to the text",
  unreadable_chunk: "a chunk could not be understood",
  probe_failed: "no answer could be elicited, so the rule decides nothing",
};
export const reason = (code) => REASONS[code] ?? String(code).replaceAll("_", " ");

const MENDING = {
  invalid_api_key: "This gateway wants a key: type it under “More”.",
  upstream_key: "The server behind wants a key: type it under “More”, or start the gateway with JUSTENOUGH_UPSTREAM_KEY.",
  upstream_unreachable: "The gateway runs, but the server behind it does not answer. Is it started, and at the address that was given as --upstream?",
  upstream_timeout: "The server behind has been silent for too long.",
  upstream_broken: "The server behind broke off. What stands here is not a whole answer.",
  upstream_malformed: "The server behind sent something that is no answer. What stands here is not a whole one.",
  continuation_failed: "The thought was cut, but the server did not finish the answer to it.",
  overloaded: "Too many requests are under way; try again in a moment.",
  shutting_down: "The gateway is shutting down.",
  foreign_origin: "Open the page at the gateway’s own address.",
  foreign_host: "Open the page at the gateway’s own address.",
};

// An error’s headline, its own words, and what may mend it.
export function failure(status, body) {
  const error = body?.error ?? body ?? {};
  const own = typeof error === "string" ? error : (error.message ?? error.detail ?? "");
  // Some servers give the status as the code; the type says more then.
  const number = typeof error.code === "number" ? error.code : null;
  const code = (number === null ? error.code : null) ?? error.type ?? number;
  const mend = MENDING[code] ?? (status === 401 || status === 403 ? MENDING.invalid_api_key : "");
  return { head: [status ?? number, code].filter((part) => part !== null && part !== undefined).join(" · "), own: String(own), mend };
}
