/** What is served: the model, its classes, how good it was, and what it was made of. */

import { make, name, short } from "./dom.js";
import { isMulti, sight } from "./words.js";

const CLASSES = 24;

/** Return the elements that describe a model. */
export function drawAbout(model) {
  const { metrics, fingerprints, decision } = model;
  const notes = (decision.fitted?.notes ?? []).map((each) => make("li", { dir: "auto", textContent: each }));
  return [
    make("h2", { textContent: "About this model" }),
    make("div", { className: "columns" }, make("div", {}, drawFacts(model), drawClasses(model)), drawMetrics(metrics)),
    notes.length ? make("h3", { textContent: "To keep in mind" }) : null,
    notes.length ? make("ul", {}, ...notes) : null,
    make("p", { className: "soft" }, "Bundle ", mark(fingerprints.bundle), ", dataset ", mark(fingerprints.dataset)),
  ];
}

function drawFacts(model) {
  const rows = [
    ["Model", model.model.name],
    ["Answer", isMulti(model) ? "any number of classes" : "one class per picture"],
    ["It sees", sight(model.preprocess)],
  ];
  const cells = rows.flatMap(([what, text]) => [make("dt", { textContent: what }), name(text, "dd")]);
  return make("dl", { className: "facts" }, ...cells);
}

function drawClasses(model) {
  const chips = model.display_names.map((each) => name(each, "li"));
  const classes = make("ul", { className: "chips" }, ...chips);
  if (chips.length <= CLASSES) return classes;
  return make("details", {}, make("summary", { textContent: `All ${chips.length} classes` }), classes);
}

function drawMetrics(metrics) {
  const rows = Object.entries(metrics ?? {});
  if (!rows.length) return make("p", { className: "soft", textContent: "No metrics are recorded in this bundle." });
  const drawn = rows.map(([what, value]) => {
    const head = make("th", { scope: "row", dir: "auto", textContent: what });
    return make("tr", {}, head, make("td", { textContent: number(value) }));
  });
  return make(
    "table",
    {},
    make("caption", { textContent: "How good it was on validation pictures" }),
    make("tbody", {}, ...drawn),
  );
}

const number = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : "not defined");

const mark = (whole) => make("code", { title: whole, textContent: short(whole) });
