// One thought of a stream from left to right: its entropy, the answers elicited on the way, and where each rule stops.
function thoughtChart(width, problem) {
  const lane = 19;
  const [top, tall] = [22, 110];
  const base = top + tall;
  const rules = base + 58;
  const bottom = rules + problem.stops.length * lane;
  const ends = [];
  for (const step of problem.steps) ends.push((ends.at(-1) || 0) + step.own);
  const total = ends.at(-1) || 1;
  const x = (tokens) => SIDE.left + (tokens / total) * plotWidth(width);
  const y = (bits) => base - position(bits) * tall;
  const said = problem.stops.map((stop) => `${stop[0]} after ${count(stop[2])} tokens`).join(", ");
  const svg = canvas(width, bottom + 30, `Thought of ${count(total)} tokens in ${problem.steps.length} steps. Stops: ${said}.`);
  for (const value of [scale.low, valueAt(0.5), scale.high]) {
    svg.append(line(SIDE.left, y(value), width - SIDE.right, y(value), "grid"));
    svg.append(text(SIDE.left - 6, y(value) + 4, value ? value.toPrecision(1) : "0", "tick", "end"));
  }
  svg.append(text(SIDE.left, 12, `${data.quantity} of each step, ${data.unit}`, "tick"));
  problem.steps.forEach((step, at) => {
    const [from, to] = [x(at ? ends[at - 1] : 0), x(ends[at])];
    if (step.bits === null) return;
    const kind = step.right === null ? "unanswered" : step.right ? "right" : "wrong";
    svg.append(draw("rect", { class: kind, x: from + 0.5, y: y(step.bits) - 2, width: Math.max(1, to - from - 1), height: base - y(step.bits) + 2 }));
  });
  svg.append(line(SIDE.left, base, width - SIDE.right, base, "axis"));
  if (data.gate.threshold !== null) {
    svg.append(line(SIDE.left, y(data.gate.threshold), width - SIDE.right, y(data.gate.threshold), "tau"));
    svg.append(text(width - SIDE.right, 12, `τ ${thresholdText(data.gate.threshold)}`, "tau-text", "end"));
  }
  // Equal answers in a row share a label.
  for (let at = 0; at < problem.steps.length; ) {
    let next = at + 1;
    while (next < problem.steps.length && problem.steps[next].answer === problem.steps[at].answer) next++;
    const [from, to] = [x(at ? ends[at - 1] : 0), x(ends[next - 1])];
    const { answer, right } = problem.steps[at];
    svg.append(line(from + 1, base + 10, to - 1, base + 10, `run ${right === null ? "unanswered" : right ? "right" : "wrong"}`));
    const words = answer ?? "none";
    if (words.length * 6.6 < to - from) svg.append(text((from + to) / 2, base + 27, words, right ? "right-text" : "wrong-text", "middle"));
    at = next;
  }
  svg.append(text(SIDE.left, base + 46, "answers above; below, where each rule stops", "tick"));
  problem.stops.forEach(([rule, step, tokens, right], number) => {
    const [at, middle] = [x(ends[step - 1]), rules + number * lane + 8];
    // The label is on the side with more room, and says as much as fits there in the reader's font.
    const before = at > width / 2;
    const room = (before ? at : width - at) - 9;
    const short = `${rule}: ${count(tokens)}`;
    const words = [`${short} tokens, ${right ? "right" : "wrong"}`, short, rule].find((one) => widthOf(one, 13) < room) ?? rule;
    svg.append(line(SIDE.left, middle, width - SIDE.right, middle, "grid"));
    svg.append(draw("circle", { class: right ? "right" : "wrong", cx: at, cy: middle, r: 4.5 }));
    const label = text(at + (before ? -9 : 9), middle + 4, words, number ? "label halo" : "label halo gate", before ? "end" : "start");
    if (widthOf(words, 13) >= room) label.setAttribute("textLength", room);
    svg.append(label);
  });
  svg.append(text(SIDE.left, bottom + 20, "0", "tick"));
  svg.append(text(width - SIDE.right, bottom + 20, `${count(total)} tokens`, "tick", "end"));
  return { svg };
}
