// The console: what a person sees of a gateway. All it knows comes by rango.js and one JSON file.

import { Rango } from "./rango.js";

import { Rates, candles, prices } from "./charts.js";
import { Events } from "./events.js";
import { Ladder, decimals } from "./ladder.js";
import { byId, make, paint, say } from "./paint.js";

const PERIODS = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "3d", "1w"];
const PING_EVERY = 5_000;
const ORDERS = 50;
const WHY = {
  too_old: "the connection was away for longer than the server remembers",
  other_history: "the server's history is another one than before",
  ahead: "this server has not come as far as the one before",
  gap: "the server's history has a gap there",
  too_many: "there were more than the server sends again",
  bad_position: "the server cannot read where we were",
  no_log: "the server keeps no history",
};

const ask = async () => (await fetch(new URL("console/about.json", document.baseURI))).json();
const about = await ask();
let token = "";
const rango = new Rango(new URL("public", document.baseURI).href, { getToken: () => token });

// -- the connection -----------------------------------------------------------------------------

let triedAgainAt = 0;
let complaint = false; // about something else than the connection
let stateEvent = { newState: "disconnected", code: 0, reason: "" };
let lastClose = ""; // in words; our own are not told
let recovery = ""; // what became of events while there was no connection, in words

rango.on("state", (event) => {
  stateEvent = event;
  if (event.code && event.code !== 1000) lastClose = `last close ${event.code}${event.reason ? `: ${event.reason}` : ""}`;
  if (event.newState !== "connected") {
    complaint = false;
    recovery = "";
  }
  triedAgainAt = event.retryIn === null ? 0 : Date.now() + event.retryIn;
  paint(drawState);
  if (event.newState === "connected") measure();
});
rango.on("error", () => {
  complaint = true;
  paint(drawState);
});

function drawState() {
  const { newState, code, reason } = stateEvent;
  const parts = [newState];
  if (!code && reason) parts.push(reason);
  if (lastClose) parts.push(lastClose);
  if (recovery) parts.push(recovery);
  if (triedAgainAt) parts.push(`next try in ${Math.max(0, (triedAgainAt - Date.now()) / 1000).toFixed(1)} s`);
  say(byId("state"), parts.join(" · "));
  byId("state").parentElement.dataset.state = newState;
  say(byId("connection"), newState === "disconnected" ? "Connect" : "Disconnect");
  byId("trouble").hidden = !rango.lastError || (newState === "connected" && !complaint);
  say(byId("trouble"), rango.lastError);
}

/** Some streams may have missed events where others have not: then that is said. */
function recovered({ wasRecovering, recovered, reason }) {
  if (!wasRecovering) return;
  if (!recovered) recovery = `events were missed: ${WHY[reason] ?? "the server does not say why"}`;
  else recovery ||= "nothing was missed";
  paint(drawState);
}

async function measure() {
  try {
    say(byId("latency"), String(await rango.ping()));
  } catch {
    say(byId("latency"), "–");
  }
}

byId("connection").addEventListener("click", () => (rango.state === "disconnected" ? rango.connect() : rango.close()));

// -- streams ------------------------------------------------------------------------------------

const events = new Events();
const rates = new Rates();
const watched = new Map(); // by stream: its subscription and its row
const listeners = new Map(); // by stream: what else wants its events

function watch(stream, listener) {
  if (listener) listeners.set(stream, listener);
  if (watched.has(stream)) return;
  const sub = rango.subscribe(stream);
  sub.on("publication", ({ stream: name, data, raw }) => {
    events.add(name, raw);
    rates.count(stream);
    listeners.get(stream)?.(data);
  });
  sub.on("subscribed", recovered);
  const item = rowOf(stream, rates.watch(stream));
  for (const type of ["subscribed", "unsubscribed", "error"]) sub.on(type, () => paint(drawStreams));
  watched.set(stream, { sub, ...item });
  paint(drawStreams);
}

function rowOf(stream, tint) {
  const row = make("li");
  const swatch = make("span", "tint");
  swatch.style.setProperty("--tint", tint);
  const rate = make("span", "figure", "–");
  const remove = make("button", "", "×");
  remove.type = "button";
  remove.setAttribute("aria-label", `Unsubscribe ${stream}`);
  remove.addEventListener("click", () => forget(stream));
  const name = make("span", "name", stream);
  row.append(swatch, name, rate, remove);
  byId("streams").append(row);
  return { row, rate, name };
}

function forget(stream) {
  const { sub, row } = watched.get(stream) ?? {};
  sub?.unsubscribe();
  row?.remove();
  watched.delete(stream);
  listeners.delete(stream);
  rates.forget(stream);
}

function drawStreams() {
  for (const [stream, { sub, name }] of watched) {
    name.classList.toggle("refused", sub.state === "refused");
    say(name, stream);
    name.title = sub.state === "refused" ? sub.lastError : "";
  }
  drawUser();
}

byId("subscribe-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("stream-input");
  input.value.split(/[\s,]+/).filter(Boolean).forEach((stream) => watch(stream));
  input.value = "";
});

// -- a market -----------------------------------------------------------------------------------

const ladder = new Ladder(rango);
const candleSeries = candles();
const priceSeries = prices();
let shown = []; // streams of the market that is shown
let unformatted = true; // how many decimals its prices have is not known yet

function drawMarket() {
  shown.forEach(forget);
  const [market, period] = [byId("market").value, byId("period").value];
  if (!market) return;
  unformatted = true;
  candleSeries.clear();
  priceSeries.clear();
  shown = [`${market}.trades`, `${market}.ob-inc`, `${market}.kline-${period}`];
  watch(shown[0], takeTrades);
  watch(shown[1]);
  watch(shown[2], ([time, open, high, low, close]) => candleSeries.add({ time, open: +open, high: +high, low: +low, close: +close }));
  ladder.show(market);
}

function takeTrades(data) {
  for (const { date, price, amount } of data?.trades ?? []) {
    if (unformatted) [candleSeries, priceSeries].forEach((series) => series.decimals(decimals(price)));
    unformatted = false;
    priceSeries.add({ time: date, value: Number(price) });
    say(byId("last"), `last ${price} × ${amount}`);
  }
}

/** Offer streams, and markets of those that have a book. */
function offer(streams) {
  byId("suggestions").replaceChildren(...streams.map((stream) => Object.assign(make("option"), { value: stream })));
  const select = byId("market");
  const known = new Set([...select.options].map(({ value }) => value));
  const markets = streams.filter((name) => name.endsWith(".ob-inc")).map((name) => name.split(".")[0]);
  if (about.demo) markets.unshift(about.demo.market);
  for (const market of new Set(markets)) if (!known.has(market)) select.append(make("option", "", market));
  if (!shown.length) drawMarket(); // the first one
}

byId("period").append(...PERIODS.map((period) => make("option", "", period)));
byId("market").addEventListener("change", drawMarket);
byId("period").addEventListener("change", drawMarket);
for (const name of ["stream-input", "market"]) {
  // new ones may flow by now; while the gateway is away the old ones do
  byId(name).addEventListener("focus", () => ask().then(({ streams }) => offer(streams), () => {}));
}

// -- who is logged in ---------------------------------------------------------------------------

const orders = new Map();
let uid = ""; // as the server says it

if (about.demo) say(byId("login"), `Log in as ${about.demo.uid}`);
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (token) return logOut();
  token = byId("token").value.trim() || about.demo?.token || "";
  byId("token").value = "";
  if (token) logIn();
  return undefined;
});

function logIn() {
  say(byId("login"), "Log out");
  uid = "";
  byId("token").hidden = true;
  byId("orders-panel").hidden = false;
  rango.close(); // so that the token goes with the handshake
  rango.connect();
  watch("order", takeOrder);
  watch("trade");
}

function logOut() {
  token = "";
  ["order", "trade"].forEach(forget);
  drawUser();
  orders.clear();
  say(byId("login"), about.demo ? `Log in as ${about.demo.uid}` : "Log in");
  byId("token").hidden = false;
  byId("orders-panel").hidden = true;
  rango.close();
  rango.connect();
}

rango.on("auth", (event) => {
  uid = event.uid ?? uid;
  paint(drawUser);
});

function drawUser() {
  const order = watched.get("order")?.sub;
  const words = { subscribed: `Logged in${uid ? ` as ${uid}` : ""}: private streams come too.`, subscribing: "Logging in …" };
  say(byId("user"), token ? (words[order?.state] ?? `Not logged in: ${order?.lastError ?? ""}`) : "Not logged in: public streams only.");
}

function takeOrder(order) {
  orders.delete(order.id);
  orders.set(order.id, order);
  if (orders.size > ORDERS) orders.delete(orders.keys().next().value);
  paint(drawOrders);
}

function drawOrders() {
  const rows = [...orders.values()].reverse().map(({ id, market, side, price, remaining_volume: left, state }) => {
    const row = make("tr");
    row.append(...[id, market, side, state, price ?? "market", left].map((text) => make("td", "", String(text ?? ""))));
    return row;
  });
  byId("orders").replaceChildren(...rows);
}

// -- the demo's form ----------------------------------------------------------------------------

if (about.demo) byId("publish-panel").hidden = false;
byId("publish-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [key, body] = [byId("key").value.trim(), byId("body").value];
  try {
    JSON.parse(body);
  } catch (error) {
    return say(byId("published"), `The body is not JSON: ${error.message}`);
  }
  const query = new URLSearchParams({ key, body });
  const answer = await fetch(new URL(`console/publish?${query}`, document.baseURI), {
    method: "POST",
    headers: { Authorization: `Bearer ${about.demo.token}` },
  });
  return say(byId("published"), await answer.text());
});

// -- time ---------------------------------------------------------------------------------------

let pingedAt = 0;
setInterval(() => {
  const now = Date.now();
  const last = rates.turn(Math.floor(now / 1000));
  for (const [stream, { rate }] of watched) say(rate, `${last.get(stream) ?? 0}/s`);
  if (rango.state === "connected" && now - pingedAt >= PING_EVERY && document.visibilityState === "visible") {
    pingedAt = now;
    measure();
  }
}, 1000);
setInterval(() => triedAgainAt && paint(drawState), 200);

offer(about.streams);
rango.connect();
document.documentElement.dataset.ready = "yes";
