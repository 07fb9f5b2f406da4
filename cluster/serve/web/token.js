/** The endpoint's token: asked for once, kept by this tab. */

import { find } from "./dom.js";
import { read, write } from "./store.js";
import { sentence } from "./words.js";

const KEY = "shardline-token";
let token = read(KEY);
let asking = null;

/** Return the headers of a request. */
export const headers = () => (token ? { authorization: `Bearer ${token}` } : {});

/** Ask for the token; return whether one was given. Requests that wait for it share one question. */
export function askForToken(detail) {
  asking ??= question(detail).finally(() => (asking = null));
  return asking;
}

export function forget() {
  keep(null);
}

function keep(given) {
  token = given;
  write(KEY, given);
  find("forget").hidden = !given;
}

function question(detail) {
  const dialog = find("token");
  const field = find("token-field");
  find("token-detail").textContent = sentence(detail);
  field.value = "";
  return new Promise((resolve) => {
    let given = null;
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      given = field.value.trim();
      dialog.close();
    };
    find("token-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      if (given) keep(given);
      resolve(Boolean(given));
    };
    dialog.showModal();
    field.focus();
  });
}

find("forget").hidden = !token;
