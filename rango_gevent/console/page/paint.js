// One paint per animation frame, whatever comes in: models change at once, pictures when shown.

const waiting = new Set();
let asked = false;

/** Have a painter called before the next frame, once. */
export function paint(painter) {
  waiting.add(painter);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const painters = [...waiting];
    waiting.clear();
    painters.forEach((each) => each());
  });
}

export const byId = (id) => document.getElementById(id);

/** Make an element: its name, its class, its text. */
export function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Set a text, but touch nothing when it is there already. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A colour of the page's style. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Call back now, and whenever the system turns dark or light. */
export function themed(callback) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", callback);
  callback();
}
