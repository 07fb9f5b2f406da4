/** Requests to the endpoint. Addresses are relative, so that it may lie under any path of a proxy. */

import { askForToken, headers } from "./token.js";

const TRIES = 5;

/** A request without an answer: its title, and one sentence. */
export class Refusal extends Error {
  constructor(title, detail) {
    super(detail);
    this.title = title;
  }
}

export const readModel = () => send("v1/model");

/** Return the answer for a picture. */
export function predict(picture, explain) {
  const address = explain ? "v1/predict?explain=true" : "v1/predict";
  return send(address, { method: "POST", body: picture }, { "content-type": "application/octet-stream" });
}

async function send(address, options = {}, more = {}) {
  for (let tried = 1; ; ) {
    const used = headers();
    const response = await reach(address, { ...options, headers: { ...used, ...more } });
    if (response.ok) return response.json();
    const refusal = await explain(response);
    if (response.status === 401) {
      const isOld = used.authorization !== headers().authorization;
      if (!isOld && !(await askForToken(refusal.message))) throw refusal;
    } else if (response.status === 503 && tried < TRIES) {
      tried += 1;
      await pause(Number(response.headers.get("retry-after")) || 1);
    } else {
      throw refusal;
    }
  }
}

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch {
    throw new Refusal(
      "No answer",
      "The picture cannot be read, or the endpoint cannot be reached; look at the connection and try again.",
    );
  }
}

async function explain(response) {
  const said = `The endpoint answered with status ${response.status}`;
  try {
    const page = await response.json();
    return new Refusal(page.title ?? said, page.detail ?? `${said}.`);
  } catch {
    return new Refusal(said, `${said} and no explanation; try again later.`);
  }
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
