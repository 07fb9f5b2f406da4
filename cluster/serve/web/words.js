/** What an answer and a model mean, in words. */

import { percent } from "./dom.js";

export const LOOK = "A person should look at this picture";

/** Return the name that people read for a class. */
export const display = (model, label) => model?.display_names?.[model.classes.indexOf(label)] ?? label;

/** Return a text that begins and ends as a sentence does. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export function list(words, last = "and") {
  const apart = words.map(isolate);
  return apart.length < 2 ? apart.join("") : `${apart.slice(0, -1).join(", ")} ${last} ${apart.at(-1)}`;
}

/** Return a word that does not turn its neighbours round if it is written from right to left. */
const isolate = (word) => (/\p{Script=Arabic}|\p{Script=Hebrew}/u.test(word) ? `\u2068${word}\u2069` : word);

/** Return the decided class or classes. */
export function decided(answer, model) {
  if (!isMulti(model)) return display(model, answer.label);
  return answer.labels.length ? list(answer.labels.map((each) => display(model, each))) : "None of the classes";
}

export const isMulti = (model) => model?.task === "multi-label";

/** Return how it was decided. */
export function rule(answer, model) {
  const decision = model?.decision ?? {};
  if (isMulti(model)) return "Each class is decided by itself.";
  if (answer.decision === undefined) return "The most probable class; no rule of decision was fitted to this model.";
  if (!decision.point) return "Decided: the most probable class.";
  const positive = display(model, decision.point.positive);
  return `Decided: ${positive} from a probability of ${percent(decision.point.threshold)}, otherwise the most probable other class.`;
}

/** Return why a person should look, a sentence for each reason. */
export function reasons(answer, model) {
  const { ood, abstain_below: least } = model?.decision ?? {};
  const said = [];
  if (ood && answer.ood_score > ood.threshold) {
    said.push("It is unlike the pictures that the model was made with.");
  }
  if (answer.set?.length === 0) said.push("No class is likely enough.");
  if (answer.set?.length > 1) said.push("More than one class is likely.");
  const most = Math.max(...Object.values(answer.probabilities ?? {}));
  if (least && most < least) said.push(`No class reaches a probability of ${percent(least)}.`);
  return said;
}

/** Return the facts of an answer, [what, text]. */
export function facts(answer, model) {
  const said = [];
  if (answer.set) {
    const level = model?.decision?.conformal?.level;
    const names = answer.set.map((each) => display(model, each));
    const sure = level ? ` (the true class is among them for ${Number((level * 100).toPrecision(3))}% of pictures)` : "";
    said.push(["Possible classes", (list(names, "or") || "none") + sure]);
  }
  if (answer.ood_score !== undefined) {
    const most = model?.decision?.ood?.threshold;
    const bound = most === undefined ? "" : ` (a person looks above ${Number(most.toPrecision(4))})`;
    said.push(["How unusual", `${Number(answer.ood_score.toPrecision(4))}${bound}`]);
  }
  return said;
}

/** Return what the model is for. */
export function purpose(model) {
  const names = model.display_names;
  const some = names.length > 6 ? [...names.slice(0, 5), `${names.length - 5} more`] : names;
  if (isMulti(model)) return `The model finds ${list(some)} in a picture; any number of them may be there.`;
  return `The model tells apart ${names.length} classes: ${list(some)}.`;
}

/** Return what becomes of a picture before the model sees it. */
export function sight(spec) {
  const how = {
    stretch: "the whole picture, stretched to a square",
    crop: "the centre of a picture",
    letterbox: "the whole picture, padded to a square",
  };
  const gray = spec.channels === 1 ? " in gray" : "";
  return `${spec.size} × ${spec.size} pixels${gray}: ${how[spec.policy] ?? spec.policy}`;
}
