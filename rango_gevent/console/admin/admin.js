// The administrators' page: asks for the state every two seconds, shows it, and acts on request.

import { Link } from "./link.js";
import { byId, make, paint, say } from "./paint.js";
import { Table, twice } from "./tables.js";

const LOOK_EVERY = 2_000;
const LINES = 300;

const about = await (await fetch(new URL("admin/about.json", document.baseURI))).json();
const address = new URL("admin/ws", document.baseURI);
address.protocol = address.protocol.replace("http", "ws");
const link = new Link(address.href);

// -- who is logged in ---------------------------------------------------------------------------

const offered = about.demo ? `Log in as ${about.demo.uid}` : "Log in";
let expiring = false;
say(byId("login"), offered);

link.addEventListener("state", ({ state, words }) => {
  say(byId("state"), words);
  byId("state").parentElement.dataset.state = state;
  const inside = state === "connected";
  byId("welcome").hidden = inside;
  byId("rooms").hidden = !inside && state !== "connecting";
  byId("token").hidden = inside && !expiring;
  say(byId("login"), inside && !expiring ? "Log out" : offered);
  if (state === "disconnected") {
    byId("rooms").hidden = true;
    forgetAll();
  }
  if (!inside) endTail("the connection to the gateway was lost");
  trouble("");
});

link.addEventListener("login", () => {
  expiring = false;
  byId("token").hidden = true;
  say(byId("login"), "Log out");
  trouble("");
  look();
});

link.addEventListener("auth_expiring", ({ detail }) => {
  expiring = true;
  byId("token").hidden = false;
  say(byId("login"), "Renew");
  trouble(`Your token ends in ${detail.in} s: paste a new one to stay.`);
});

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (link.state !== "disconnected" && !expiring) return link.logOut();
  const token = byId("token").value.trim() || about.demo?.token || "";
  byId("token").value = "";
  if (!token) return trouble("A token is needed.");
  return attempt(() => link.logIn(token));
});

function trouble(words) {
  byId("trouble").hidden = !words;
  say(byId("trouble"), words);
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    trouble(error.message);
    return null;
  }
}

// -- the state of all workers -------------------------------------------------------------------

let before = null; // the state of the last look
let first = null; // of the first one
let timer = 0;
let looking = false;

async function look() {
  clearTimeout(timer);
  if (looking) return;
  looking = true;
  try {
    if (link.state === "connected" && document.visibilityState === "visible") {
      draw(await link.ask("overview"));
    }
  } catch (error) {
    if (link.state === "connected") trouble(error.message);
  } finally {
    looking = false;
    timer = setTimeout(look, LOOK_EVERY);
  }
}

document.addEventListener("visibilitychange", look);

function forgetAll() {
  before = first = null;
  [workers, streams, rates, slow, books, ends, users, connections].forEach((table) => table.show([]));
  say(byId("broker"), "");
  say(byId("found"), "");
  byId("tail").replaceChildren();
}

function draw(state) {
  const last = new Map((before?.workers ?? []).map((worker) => [worker.pid, worker]));
  workers.show(state.workers.map((worker) => ({ key: worker.pid, ...worker, last: last.get(worker.pid) })));
  streams.show(state.streams.map((row) => ({ key: `${row.kind} ${row.name}`, ...row })));
  rates.show(state.rates.map((row) => ({ key: `${row.kind} ${row.name}`, ...row })));
  slow.show(state.slow.map((row) => ({ key: row.conn, ...row })));
  books.show(state.books.map((row) => ({ key: row.name, ...row })));
  first ??= state;
  ends.show([...counted(state, "closed"), ...counted(state, "refused"), ...counted(state, "dropped")]);
  users.show([
    ...state.users.map(({ uid, connections: n }) => ({ key: `uid ${uid}`, uid, who: `uid ${uid}`, n })),
    ...state.addresses.map(({ address: from, connections: n }) => ({ key: `address ${from}`, from, who: `address ${from}`, n })),
  ]);
  say(byId("broker"), brokers(state.workers));
  before = state;
  document.documentElement.dataset.looks = String(Number(document.documentElement.dataset.looks ?? 0) + 1);
}

const WORDS = { closed: "ended", refused: "refused", dropped: "dropped message" };
const counted = (state, what) =>
  Object.entries(state[what]).map(([word, n]) => ({ key: `${what} ${word}`, what: WORDS[what], word, n, more: Math.max(0, n - (first[what][word] ?? 0)) }));

/** What each worker says of its broker, told once where all say the same. */
function brokers(rows) {
  const told = rows.filter(({ answers }) => answers);
  const words = told.map(({ pid, broker: { connected, problem, connects, failures, away_s: away }, books: n, stale }) => [
    pid,
    `${connected ? "connected" : problem || "not connected"} · connects: ${connects}, failures: ${failures}, away for ${span(away)} · books: ${n}, stale: ${stale}`,
  ]);
  return words.map(([pid, text]) => (words.length > 1 ? `${pid}: ${text}` : text)).join(" — ");
}

// -- how figures look ---------------------------------------------------------------------------

const NAMES = new Intl.NumberFormat("en");
const number = (n) => NAMES.format(n);
const kb = (bytes) => (bytes < 100_000 ? (bytes / 1000).toFixed(1) : number(Math.round(bytes / 1000)));
const short = (n) => (n < 10 ? n.toFixed(1) : number(Math.round(n)));

function span(seconds) {
  if (seconds === null) return null;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A counter's growth a second between two looks. */
function perSecond(worker, count, scale = 1) {
  const { last } = worker;
  if (!last?.answers || !worker.answers || worker.at <= last.at) return null;
  return short(Math.max(0, worker.counts[count] - last.counts[count]) / (worker.at - last.at) / scale);
}

const figure = (name) => ({ text: (worker) => (worker.answers ? number(worker[name]) : null) });
const rate = (count, scale) => ({ text: (worker) => perSecond(worker, count, scale) });
const userOf = ({ uid }) => uid ?? "anonymous";

// -- tables -------------------------------------------------------------------------------------

const workers = new Table(byId("workers"), [
  { text: ({ pid }) => pid },
  {
    text: ({ answers, problem }) => (answers ? problem || "ready" : "does not answer"),
    kind: ({ answers, problem }) => (answers && !problem ? "" : "bad words"),
  },
  figure("connections"),
  figure("authenticated"),
  figure("users"),
  figure("anonymous"),
  rate("opened"),
  rate("requests"),
  rate("received"),
  rate("frames"),
  rate("bytes", 1000),
  figure("lagging"),
  { text: ({ answers, late_s: late }) => (answers ? `${(late * 1000).toFixed(0)} ms` : null) },
]);

const streams = new Table(
  byId("streams"),
  [{ text: ({ name }) => name, kind: "name" }, { text: ({ kind }) => kind }, { text: ({ subscribers }) => number(subscribers) }, { text: (row) => short(row.rate) }],
  { empty: "nobody is subscribed" },
);

const rates = new Table(
  byId("rates"),
  [{ text: ({ name }) => name, kind: "name" }, { text: (row) => short(row.rate) }, { text: ({ bytes }) => kb(bytes) }, { text: ({ subscribers }) => number(subscribers) }],
  { empty: "counted while you look: a moment" },
);

const onConnection = ({ conn, uid }) => [
  { text: "Tail", label: `Tail connection ${conn} of ${userOf({ uid })}`, run: () => tail(conn) },
  { text: "Disconnect", label: `Disconnect connection ${conn} of ${userOf({ uid })}`, run: () => disconnect({ conn }), sure: true },
];

const slow = new Table(
  byId("slow"),
  [{ text: ({ conn }) => conn }, { text: userOf, kind: "name" }, { text: ({ bytes }) => kb(bytes) }, { text: (row) => span(row.waits_s) }],
  { actions: onConnection, empty: "everybody keeps up" },
);

const books = new Table(
  byId("books"),
  [
    { text: ({ name }) => name, kind: "name" },
    {
      text: ({ stale_s: stale }) => (stale === null ? "good" : `stale for ${span(stale)}`),
      kind: ({ stale_s: stale }) => (stale === null ? "" : "bad"),
    },
    { text: ({ age_s: age }) => (age === null ? null : `${span(age)} ago`) },
    { text: ({ events }) => number(events) },
    { text: ({ bytes }) => kb(bytes) },
  ],
  { empty: "there are no books" },
);

const ends = new Table(
  byId("closed"),
  [{ text: ({ what }) => what }, { text: ({ word }) => word }, { text: ({ n }) => number(n) }, { text: ({ more }) => number(more) }],
  { empty: "no connection has ended yet" },
);

const users = new Table(
  byId("users"),
  [{ text: ({ who }) => who, kind: "name" }, { text: ({ n }) => number(n) }],
  {
    actions: ({ uid, from, who }) => [
      { text: "Show", label: `Show connections of ${who}`, run: () => find(uid === undefined ? "address" : "uid", uid ?? from) },
    ],
    empty: "nobody is connected",
  },
);

const connections = new Table(
  byId("connections"),
  [
    { text: ({ conn }) => conn },
    { text: userOf, kind: "name" },
    { text: ({ role }) => role || null, kind: "name" },
    { text: (row) => row.address },
    { text: (row) => span(row.age_s) },
    { text: (row) => number(row.streams) },
    { text: ({ bytes }) => kb(bytes) },
  ],
  { actions: onConnection, empty: "none" },
);

// -- finding and ending -------------------------------------------------------------------------

let shown = false; // what was looked for last

async function find(field, value) {
  byId("field").value = field;
  byId("value").value = value;
  await search();
}

async function search(told = "") {
  const [field, value] = [byId("field").value, byId("value").value];
  const answer = await attempt(() => link.ask("connections", value ? { [field]: value } : {}));
  if (!answer) return;
  shown = true;
  connections.show(answer.connections.map((row) => ({ key: row.conn, ...row })));
  const missing = answer.unanswered.length ? ` Not answered: ${answer.unanswered.join(", ")}.` : "";
  const some = answer.total > answer.connections.length ? `, the newest ${answer.connections.length} are shown` : "";
  say(byId("found"), `${told}${number(answer.total)} found${some}.${missing}`);
}

async function disconnect(whom) {
  const answer = await attempt(() => link.ask("disconnect", whom));
  if (!answer) return;
  const missing = answer.unanswered.length ? ` Not answered: ${answer.unanswered.join(", ")}.` : "";
  const told = `${number(answer.closed)} disconnected.${missing} `;
  say(byId("found"), told);
  if (shown) await search(told);
}

byId("find-form").addEventListener("submit", (event) => {
  event.preventDefault();
  trouble("");
  search();
});

twice(byId("disconnect-uid"), () => {
  const uid = byId("value").value;
  if (byId("field").value !== "uid" || !uid) trouble("Choose uid and say which.");
  else disconnect({ uid });
});

// -- a live tail --------------------------------------------------------------------------------

let tailed = "";
let paused = false;
let skipped = 0;
let fresh = []; // records not shown yet, the newest last

async function tail(conn) {
  endTail("");
  const answer = await attempt(() => link.ask("tail", { conn }));
  if (!answer) return;
  tailed = conn;
  skipped = 0;
  fresh = [];
  byId("tail").replaceChildren();
  const { uid, address: from } = answer.connection;
  say(byId("tailed"), `${conn} of ${userOf({ uid })} from ${from}`);
  byId("untail").hidden = byId("pause").hidden = false;
  byId("tail").parentElement.focus({ preventScroll: true });
  byId("tail").closest("section").scrollIntoView({ block: "nearest" });
}

function endTail(why) {
  if (!tailed) return;
  say(byId("tailed"), why ? `${tailed}: ${why}` : "Choose Tail at a connection.");
  tailed = "";
  byId("untail").hidden = byId("pause").hidden = true;
  hold(false);
}

function hold(on) {
  paused = on;
  byId("pause").setAttribute("aria-pressed", String(on));
  say(byId("pause"), on ? "Go on" : "Pause");
  if (!on) paint(drawTail);
}

byId("untail").addEventListener("click", () => {
  endTail("ended");
  attempt(() => link.ask("untail"));
});
byId("pause").addEventListener("click", () => hold(!paused));

link.addEventListener("tail", ({ detail }) => {
  if (detail.conn !== tailed) return;
  if (detail.lost) return void endTail("its worker is gone");
  skipped += detail.skipped;
  fresh = fresh.concat(detail.records).slice(-LINES);
  if (detail.records.some(({ kind }) => kind === "end")) endTail("closed");
  paint(drawTail);
});

function drawTail() {
  say(byId("skipped"), skipped ? `${number(skipped)} more than the rate, not shown` : "");
  if (paused) return;
  const list = byId("tail");
  list.prepend(...fresh.reverse().map(line));
  fresh = [];
  while (list.children.length > LINES) list.lastElementChild.remove();
}

function line({ at, way, kind, size, text }) {
  const item = make("li");
  const when = new Date(at * 1000);
  const clock = `${when.toTimeString().slice(0, 8)}.${String(when.getMilliseconds()).padStart(3, "0")}`;
  const arrow = make("span", `way ${way === "in" ? "in" : "out"}`, way === "in" ? "→ in" : "← out");
  const what = make("span", "what", kind === "text" ? text : `${kind} ${text}`);
  item.append(make("time", "when", clock), arrow, what, make("span", "figure", `${number(size)} B`));
  return item;
}

document.documentElement.dataset.ready = "yes";
