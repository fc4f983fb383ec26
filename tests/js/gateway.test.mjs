// rango.js against the real gateway and broker. STAGE is the test's own end: see test_rango_js.py.

import assert from "node:assert/strict";
import test from "node:test";

import { client, planned, until } from "./server.mjs";

const { STAGE, GATEWAY } = process.env;
const stage = async (what) => (await fetch(`${STAGE}/${what}`)).json();
const pairs = (levels) => Object.fromEntries(levels.map(([price, amount]) => [Number(price), Number(amount)]));

/** Advance the market, and compare its book with ours. */
async function follow(book, depth) {
  const theirs = await stage("tick");
  await until(() => book.state === "synced" && book.sequence === theirs.sequence, `event ${theirs.sequence}`);
  assert.deepEqual(pairs(book.asks), pairs(theirs.asks.slice(0, depth)));
  assert.deepEqual(pairs(book.bids), pairs(theirs.bids.slice(0, depth)));
}

/** Advance the market until a snapshot has put the book right. */
async function recovered(book) {
  await until(async () => (await stage("tick")) && book.state === "synced", "a book in order");
}

test("the book is the publisher's, over cuts, a restart and a gap", async () => {
  const rango = client(GATEWAY, { minReconnectDelay: 20, maxReconnectDelay: 100 });
  const [book, top] = [rango.book("btcusd", { snapshotLevels: 1e9 }), rango.book("btcusd", { depth: 10 })];
  rango.connect();
  try {
    for (const trouble of ["nothing", "cut", "reset", "restart", "lose"]) {
      await stage(trouble);
      if (trouble === "lose") await until(async () => (await stage("tick")) && book.state === "invalid", "a gap");
      await recovered(book);
      for (let n = 0; n < 10; n += 1) await follow(book);
      await follow(top, 10);
    }
  } finally {
    rango.close();
  }
});

test("nothing is missed over cuts, and each event comes once; a restart is told", async () => {
  const rango = client(GATEWAY, { minReconnectDelay: 20, maxReconnectDelay: 100, getToken: async () => (await stage("long")).token });
  const [numbers, order] = [rango.subscribe("n.numbers"), rango.subscribe("order")];
  const [heard, reports, own] = [[], [], []];
  numbers.on("publication", ({ data, raw }) => (heard.push(data), assert.equal(raw, `{"n.numbers":${data}}`)));
  numbers.on("subscribed", ({ wasRecovering, recovered, reason }) => reports.push(wasRecovering && (recovered ? "recovered" : reason)));
  order.on("publication", ({ data }) => own.push(data));
  rango.connect();
  const publish = async () => (await stage("number")).number;
  try {
    await until(() => reports.length === 1 && order.state === "subscribed", "the streams");
    for (const [n, trouble] of ["cut", "reset", "refuse", "black_hole"].entries()) {
      for (let each = 0; each < 20; each += 1) await publish();
      const cut = stage(trouble);
      for (let each = 0; each < 20; each += 1) await publish();
      await cut;
      await stage("order");
      if (trouble === "black_hole") await Promise.allSettled([rango.ping()]); // nothing comes
      if (trouble === "refuse" || trouble === "black_hole") await stage("reset");
      await stage("heal");
      await until(() => reports.length === n + 2, `coming back from ${trouble}`);
    }
    const last = await publish();
    await until(() => heard.at(-1) === last && own.length === 4, "the last number");
    assert.deepEqual(heard, Array.from({ length: last }, (_, n) => n + 1));
    assert.deepEqual(reports, [false, ...Array(4).fill("recovered")]);
    await stage("restart");
    await until(() => reports.length === 6, "coming back from a restart");
    assert.equal(reports.at(-1), "other_history");
  } finally {
    rango.close();
  }
});

test("a book that missed nothing goes on without a snapshot", async () => {
  const rango = client(GATEWAY, { minReconnectDelay: 20, maxReconnectDelay: 100 });
  const book = rango.book("btcusd", { snapshotLevels: 1e9 });
  const told = [];
  rango.subscribe("btcusd.ob-inc").on("publication", ({ stream }) => stream.endsWith("-snap") && told.push("snapshot"));
  for (const type of ["sync", "invalid"]) book.on(type, () => told.push(type));
  rango.connect();
  try {
    await recovered(book);
    for (const trouble of ["cut", "reset"]) {
      told.length = 0;
      await stage(trouble);
      for (let n = 0; n < 5; n += 1) await stage("tick");
      await until(() => told.at(-1) === "sync", "the book").catch((e) => { throw new Error(`${e.message}: ${told} ${book.state} ${book.reason} ${book.sequence}`); });
      await follow(book);
      assert.deepEqual(told, ["invalid", "sync"], "no snapshot");
    }
    told.length = 0;
    await stage("restart");
    await recovered(book);
    await follow(book);
    assert.ok(told.includes("snapshot"), "another history");
  } finally {
    rango.close();
  }
});

test("a thousand connections leave no timer here, and no client there", async () => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const before = timers();
  const rango = client(GATEWAY, { getToken: async () => token });
  const { token } = await stage("long");
  const [trades, order] = [rango.subscribe("btcusd.trades"), rango.subscribe("order")];
  rango.book("btcusd");
  const told = [];
  for (const sub of [trades, order]) sub.on("subscribed", () => told.push(sub.stream));
  for (let n = 1; n <= 1000; n += 1) {
    rango.connect();
    await until(() => told.length === 2 * n, `connection ${n}`);
    rango.close();
  }
  assert.equal(told.length, 2000, "one listener each");
  await until(() => timers() <= before, "no timer");
  await until(async () => (await stage("clients")).clients === 0, "no client");
});

test("a thousand streams, one of them bad", async () => {
  const rango = client(GATEWAY);
  const good = Array.from({ length: 900 }, (_, n) => rango.subscribe(`market${n}.trades`));
  const bad = rango.subscribe(`${"x".repeat(300)}.trades`);
  rango.connect();
  try {
    await until(() => good.every(({ state }) => state === "subscribed"), "all of them");
    await until(() => bad.state === "refused", "the refusal");
    assert.match(bad.lastError, /too long/);
  } finally {
    rango.close();
  }
});

test("a token of five seconds is renewed before its end, again and again", async () => {
  const timers = planned();
  try {
    await Promise.all([true, false].map((isIn) => renewed(timers, isIn)));
  } finally {
    timers.stop();
  }
});

/** Have a client renew its token three times; the first goes with the handshake, or by a message. */
async function renewed(timers, isIn) {
  let fetched = 0;
  const [waits, lives] = [[], []];
  const getToken = async () => {
    if (!isIn) return null;
    fetched += 1;
    waits.push(timers.wait);
    return (await stage("token")).token;
  };
  const rango = client(GATEWAY, { getToken });
  const order = rango.subscribe("order");
  const [lost, complaints] = [[], []];
  rango.on("error", ({ message }) => complaints.push(message));
  rango.on("auth", ({ ttl }) => lives.push(ttl * 1000));
  rango.connect();
  try {
    await until(() => rango.state === "connected", "a connection");
    if (!isIn) {
      isIn = true;
      await rango.authenticate();
    }
    await until(() => rango.uid === "ID7" && order.state === "subscribed", "the user");
    assert.equal(fetched, 1, "known by the first token");
    order.on("unsubscribed", (event) => lost.push(event));
    await until(() => fetched === 4, "three renewals", 60);
    await rango.ping();
    assert.deepEqual([lost, complaints], [[], []]);
    assert.equal(waits.length, 4);
    waits.slice(1).forEach((wait, n) => assert.ok(wait && wait < lives[n] && lives[n] <= 5_000, `${wait} of ${lives[n]} ms`));
    assert.deepEqual([rango.uid, order.state], ["ID7", "subscribed"]);
  } finally {
    rango.close();
  }
}

test("private streams come with a token", async () => {
  const rango = client(GATEWAY, { getToken: async () => (await stage("token")).token });
  const order = rango.subscribe("order");
  const heard = [];
  order.on("publication", ({ data }) => heard.push(data));
  rango.connect();
  try {
    await until(() => order.state === "subscribed", "the stream");
    await stage("order");
    await until(() => heard.length, "an order");
    assert.deepEqual(heard, [{ id: 1 }]);
  } finally {
    rango.close();
  }
});
