// The order book as a ladder: asks above, bids below, bars for what lies up to each level.

import { byId, make, paint, say } from "./paint.js";

const ROWS = 12;

export class Ladder {
  #rango;
  #book = null;
  #table = document.querySelector(".ladder");
  #sides = { asks: rows(byId("asks")).reverse(), bids: rows(byId("bids")) };
  #paint = () => this.#draw();

  constructor(rango) {
    this.#rango = rango;
  }

  /** Show another market's book. */
  show(market) {
    this.#book?.close();
    this.#book = this.#rango.book(market, { depth: ROWS });
    for (const type of ["sync", "update", "invalid"]) this.#book.on(type, () => paint(this.#paint));
    paint(this.#paint);
  }

  #draw() {
    const book = this.#book;
    this.#table.dataset.state = book.state;
    this.#table.dataset.sequence = book.sequence ?? "";
    say(byId("sequence"), words(book));
    const most = Math.max(...["asks", "bids"].map((side) => total(book[side])), Number.MIN_VALUE);
    for (const side of ["asks", "bids"]) drawSide(this.#sides[side], book[side], most);
    const [ask, bid] = [book.asks[0]?.[0], book.bids[0]?.[0]];
    say(byId("spread"), ask && bid ? (ask - bid).toFixed(decimals(ask)) : "–");
  }
}

function rows(body) {
  return Array.from({ length: ROWS }, () => {
    const row = body.appendChild(make("tr"));
    return { row, cells: [0, 1, 2].map(() => row.appendChild(make("td", "", "\u00a0"))) };
  });
}

function drawSide(rows, levels, most) {
  let sum = 0;
  rows.forEach(({ row, cells }, n) => {
    const [price, amount] = levels[n] ?? ["\u00a0", ""];
    sum += Number(amount);
    say(cells[0], String(price));
    say(cells[1], String(amount));
    say(cells[2], amount === "" ? "" : sum.toFixed(decimals(amount)));
    row.style.setProperty("--part", amount === "" ? "0%" : `${Math.round((100 * sum) / most)}%`);
  });
}

function words(book) {
  if (book.state === "waiting") return "waiting for a snapshot";
  if (book.state === "invalid") return `out of order: ${book.reason}`;
  return book.sequence === null ? "in order" : `in order at ${book.sequence}`;
}

const total = (levels) => levels.reduce((sum, [, amount]) => sum + Number(amount), 0);
export const decimals = (number) => (String(number).split(".")[1] ?? "").length;
