/** An answer, or the reason why there is none, as elements. */

import { make, name, percent, short } from "./dom.js";
import { decided, display, facts, LOOK, reasons, rule, sentence } from "./words.js";

const BARS = 10;

/** Return the elements of an entry of the history. */
export function drawEntry(entry, model) {
  const file = make("p", { className: "soft file" }, name(entry.name));
  if (entry.refusal) return [file, ...drawRefusal(entry.refusal)];
  const { answer } = entry;
  return [
    file,
    make(
      "h2",
      { className: "verdict" },
      name(decided(answer, model), "strong"),
      make("span", { className: "share", textContent: percent(answer.probability) }),
    ),
    drawLook(answer, model),
    drawBars(answer, model),
    make("p", { className: "soft", dir: "auto", textContent: rule(answer, model) }),
    drawFacts(facts(answer, model)),
    drawDetails(answer),
  ];
}

/** Return what a screen reader says of an entry. */
export function sayEntry(entry, model) {
  if (entry.refusal) return `${entry.name}: ${sentence(entry.refusal.detail)}`;
  const look = entry.answer.abstain ? ` ${LOOK}.` : "";
  return `${entry.name}: ${decided(entry.answer, model)}, ${percent(entry.answer.probability)}.${look}`;
}

function drawRefusal({ title, detail }) {
  const said = sentence(detail);
  const head = said.startsWith(title) ? null : make("strong", { textContent: title });
  return [make("div", { className: "notice error" }, head, name(said, "p"))];
}

function drawLook(answer, model) {
  if (answer.abstain === undefined) return null;
  if (!answer.abstain) return make("p", { className: "fine", textContent: "By the rules of this model, no person needs to look." });
  const why = reasons(answer, model).map((each) => make("li", { textContent: each }));
  return make(
    "div",
    { className: "notice" },
    make("strong", { textContent: LOOK }),
    why.length ? make("ul", {}, ...why) : null,
  );
}

function drawBars(answer, model) {
  const ranked = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  const bars = ranked
    .slice(0, BARS)
    .map(([label, share]) => drawBar(display(model, label), share, answer.labels.includes(label)));
  const rest = ranked.length - BARS;
  if (rest > 0) bars.push(make("li", { className: "soft", textContent: `and ${rest} less probable` }));
  const drawn = make("ol", { className: "bars" }, ...bars);
  drawn.setAttribute("aria-label", "Probabilities");
  return drawn;
}

function drawBar(label, share, isDecided) {
  const bar = make("span", { className: "bar" });
  bar.style.width = `${100 * share}%`;
  return make(
    "li",
    { className: isDecided ? "decided" : "" },
    name(label),
    make("span", { className: "share", textContent: percent(share) }),
    make("span", { className: "track" }, bar),
  );
}

function drawFacts(rows) {
  if (!rows.length) return null;
  const cells = rows.flatMap(([what, text]) => [make("dt", { textContent: what }), name(text, "dd")]);
  return make("dl", { className: "facts" }, ...cells);
}

function drawDetails(answer) {
  const { explanation, ...rest } = answer;
  const spent = Math.round(Object.values(answer.timings).reduce((sum, each) => sum + each, 0));
  return make(
    "details",
    {},
    make("summary", { textContent: `Answered in ${spent} ms by bundle ${short(answer.bundle)}` }),
    make("pre", { tabIndex: 0, textContent: JSON.stringify(rest, null, 2) }),
  );
}
