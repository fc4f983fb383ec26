// The list of events as they come: pause, filter, expand, copy.

import { byId, make, paint, say } from "./paint.js";

const KEPT = 1000;
const KEPT_CHARACTERS = 8_000_000;
const SHOWN = 100;
const LINE = 300;

export class Events {
  #kept = []; // the newest last
  #size = 0; // characters of them
  #fresh = 0; // of them not shown yet
  #count = 0;
  #filter = "";
  #paused = false;
  #list = byId("events");

  constructor() {
    byId("filter").addEventListener("input", ({ target }) => {
      this.#filter = target.value.toLowerCase();
      this.#again();
    });
    byId("pause").addEventListener("click", ({ currentTarget }) => {
      this.#paused = !this.#paused;
      currentTarget.setAttribute("aria-pressed", String(this.#paused));
      say(currentTarget, this.#paused ? "Go on" : "Pause");
      if (!this.#paused) this.#again();
    });
    byId("clear").addEventListener("click", () => {
      this.#kept = [];
      this.#size = 0;
      this.#again();
    });
  }

  add(stream, raw) {
    this.#count += 1;
    this.#fresh += 1;
    this.#size += raw.length;
    this.#kept.push({ at: new Date(), stream, raw });
    if (this.#kept.length >= 2 * KEPT || this.#size > KEPT_CHARACTERS) {
      this.#kept.splice(0, Math.ceil(this.#kept.length / 2));
      this.#size = this.#kept.reduce((sum, each) => sum + each.raw.length, 0);
    }
    paint(this.#draw);
  }

  #again() {
    this.#list.replaceChildren();
    this.#fresh = this.#kept.length;
    paint(this.#draw);
  }

  #suits({ raw }) {
    return !this.#filter || raw.toLowerCase().includes(this.#filter);
  }

  #draw = () => {
    say(byId("count"), String(this.#count));
    if (this.#paused) return;
    const fresh = this.#fresh ? this.#kept.slice(-this.#fresh) : [];
    this.#fresh = 0;
    const rows = [];
    for (let n = fresh.length - 1; n >= 0 && rows.length < SHOWN; n -= 1) {
      if (this.#suits(fresh[n])) rows.push(row(fresh[n]));
    }
    this.#list.prepend(...rows);
    while (this.#list.children.length > SHOWN) this.#list.lastElementChild.remove();
  };
}

function row({ at, stream, raw }) {
  const item = make("li");
  const when = make("time", "when", `${at.toTimeString().slice(0, 8)}.${String(at.getMilliseconds()).padStart(3, "0")}`);
  const what = make("button", "what");
  what.type = "button";
  what.setAttribute("aria-expanded", "false");
  what.append(make("b", "", stream), ` ${body(raw, stream).slice(0, LINE)}`);
  what.addEventListener("click", () => expand(item, what, raw));
  item.append(when, what);
  if (!navigator.clipboard) return item; // a page without TLS has none
  const copy = make("button", "", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", `Copy the event of ${stream}`);
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(raw);
    say(copy, "Copied");
  });
  item.append(copy);
  return item;
}

/** The body as the publisher wrote it: what stands behind the name. */
const body = (raw, stream) => raw.slice(JSON.stringify(stream).length + 2, -1);

function expand(item, what, raw) {
  const open = item.querySelector("pre");
  what.setAttribute("aria-expanded", String(!open));
  if (open) return void open.remove();
  const pre = make("pre", "", JSON.stringify(JSON.parse(raw), null, 2));
  pre.tabIndex = 0;
  item.append(pre);
  return undefined;
}
