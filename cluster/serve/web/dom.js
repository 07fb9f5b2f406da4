/** Elements of a page. Data becomes text, never markup. */

export const find = (id) => document.getElementById(id);

/** Return an element with these properties and children; a child is an element or text. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return text that somebody else wrote, in the direction of its own script. */
export const name = (text, tag = "span") => make(tag, { dir: "auto", textContent: text, className: "name" });

/** Return a share as a percentage that is never rounded to none or all. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1%";
  if (share < 1 && share > 0.999) return ">99.9%";
  return `${(share * 100).toFixed(1)}%`;
}

export const short = (fingerprint) => fingerprint.slice(0, 12);
