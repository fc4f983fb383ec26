// Tables whose rows stay where they are: what changes is text, so that focus is not lost.
// Everything that comes from outside is set as text, never as markup.

import { make, say } from "./paint.js";

const SURE_FOR = 4_000;

export class Table {
  #body;
  #columns;
  #rows = new Map(); // by key
  #empty;

  /**
   * columns: of each its text by a row, and perhaps its class by a row.
   * actions: of a row, buttons as {text, label, run, sure}; they are made once for each key.
   */
  constructor(body, columns, { actions = null, empty = "nothing" } = {}) {
    this.#body = body;
    this.#columns = columns;
    this.actions = actions;
    const cell = make("td", "empty", empty);
    cell.colSpan = columns.length + (actions ? 1 : 0);
    this.#empty = make("tr");
    this.#empty.append(cell);
  }

  /** Show rows in this order; each has a key. */
  show(rows) {
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    let at = null;
    for (const row of rows) {
      const shown = this.#rows.get(row.key) ?? this.#make(row);
      this.#fill(shown, row);
      const next = at ? at.nextElementSibling : this.#body.firstElementChild;
      if (next !== shown) this.#body.insertBefore(shown, next);
      at = shown;
    }
    if (rows.length) this.#empty.remove();
    else this.#body.append(this.#empty);
  }

  #make(row) {
    const shown = make("tr");
    shown.append(...this.#columns.map(() => make("td")));
    if (this.actions) {
      const line = make("div", "line");
      line.append(...this.actions(row).map(button));
      const cell = make("td");
      cell.append(line);
      shown.append(cell);
    }
    this.#rows.set(row.key, shown);
    return shown;
  }

  #fill(shown, row) {
    this.#columns.forEach(({ text, kind }, n) => {
      const cell = shown.cells[n];
      const words = String(text(row) ?? "–");
      say(cell, words);
      const name = typeof kind === "function" ? kind(row) : (kind ?? "");
      if (cell.className !== name) cell.className = name;
      if (name.includes("name") && cell.title !== words) cell.title = words;
    });
  }
}

function button({ text, label, run, sure }) {
  const made = make("button", "", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  if (sure) twice(made, run);
  else made.addEventListener("click", run);
  return made;
}

/** Have a button ask back: it acts when it is pressed a second time. */
export function twice(made, run) {
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    say(made, made.dataset.words);
    delete made.dataset.sure;
    if (made.dataset.label) made.setAttribute("aria-label", made.dataset.label);
  };
  made.addEventListener("click", () => {
    if (made.dataset.sure) {
      calm();
      run();
      return;
    }
    made.dataset.words = made.textContent;
    made.dataset.label = made.getAttribute("aria-label") ?? "";
    made.dataset.sure = "yes";
    if (made.dataset.label) made.setAttribute("aria-label", `Sure? ${made.dataset.label}`);
    say(made, "Sure?");
    timer = setTimeout(calm, SURE_FOR);
  });
  made.addEventListener("blur", () => made.dataset.sure && calm());
}
