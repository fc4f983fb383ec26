// Coming back by a position: what was missed comes first, and whether it did is told.

import assert from "node:assert/strict";
import test from "node:test";

import { scene, until } from "./server.mjs";

const SNAPSHOT = { asks: [["9001", "1"]], bids: [["8999", "1"]], sequence: 7 };
const asks = (peer) => peer.requests.filter(({ event }) => event === "subscribe");

/** A server that tells positions; `missed` and `report` are what a client with `since` is answered. */
function log({ missed = [], report = { recovered: true, events: missed.length } } = {}) {
  let at = 10;
  const script = {
    at: () => `${at}-aa`,
    /** Send an event, by default at the next position. */
    event(peer, name, body, position = `${(at += 1)}-aa`) {
      peer.send(`{${JSON.stringify(name)}:${JSON.stringify(body)},"at":"${position}"}`);
      return position;
    },
    opened(peer) {
      peer.send({ success: { message: "subscribed", streams: [], at: script.at() } });
      return true;
    },
    asked(peer, { event, streams, since, id }) {
      if (event !== "subscribe") return false;
      streams.forEach((name) => peer.held.add(name));
      if (since) missed.forEach(([name, body]) => script.event(peer, name, body));
      peer.send({ success: { message: "subscribed", streams: [...peer.held], at: script.at(), ...(since && report) }, id });
      return true;
    },
  };
  return script;
}

/** Note what a subscription or a book is told. */
function notes(source, ...types) {
  const heard = [];
  for (const type of types) source.on(type, (event) => heard.push([type, event]));
  return heard;
}

const lose = (server) => server.last.socket.terminate();
const connected = (server, number, streams = 1) => until(() => server.peers.length === number && server.last.held.size === streams, `connection ${number}`);

test("it asks for positions by itself, and they never reach a user", async () => {
  const script = log();
  await scene(script, {}, async (rango, server) => {
    const [trades, at] = [rango.subscribe("b.trades"), rango.subscribe("at")];
    const told = [];
    for (const sub of [trades, at]) sub.on("publication", (event) => told.push(event));
    rango.connect();
    await connected(server, 1, 2);
    assert.match(server.last.url, /[?&]resume=1(&|$)/);
    script.event(server.last, "b.trades", { price: 1, at: "mine" });
    script.event(server.last, "at", { x: [{ at: "too" }] });
    script.event(server.last, "b.trades", 'a text with ,"at":"1-a"}');
    server.last.send('{"b.trades":{"x":1,"at":"3-c"}}'); // the server has no position for it
    await until(() => told.length === 4, "four events");
    assert.deepEqual(told.map(({ data }) => data), [{ price: 1, at: "mine" }, { x: [{ at: "too" }] }, 'a text with ,"at":"1-a"}', { x: 1, at: "3-c" }]);
    for (const { stream, data, raw } of told) assert.equal(raw, JSON.stringify({ [stream]: data }));
  });
});

test("it comes back by the position of the last event, and tells that nothing was missed", async () => {
  const script = log({ missed: [["b.trades", 2], ["b.trades", 3]] });
  await scene(script, {}, async (rango, server) => {
    const heard = notes(rango.subscribe("b.trades"), "subscribed", "unsubscribed", "publication");
    rango.connect();
    await connected(server, 1);
    const last = script.event(server.last, "b.trades", 1);
    await until(() => heard.length === 2, "an event");
    lose(server);
    await until(() => heard.length === 6, "what was missed");
    assert.deepEqual(asks(server.last).map(({ since }) => since), [last]);
    assert.deepEqual(heard.map(([type, event]) => (type === "publication" ? event.data : type)), ["subscribed", 1, "unsubscribed", 2, 3, "subscribed"]);
    const report = ({ wasRecovering, recovered, reason, events }) => [wasRecovering, recovered, reason, events];
    assert.deepEqual(report(heard[0][1]), [false, false, "", 0]);
    assert.deepEqual(report(heard[5][1]), [true, true, "", 2]);
  });
});

test("that something was missed is told with the reason", async () => {
  const script = log({ report: { recovered: false, reason: "too_old" } });
  await scene(script, {}, async (rango, server) => {
    const heard = notes(rango.subscribe("b.trades"), "subscribed");
    rango.connect();
    await connected(server, 1);
    lose(server);
    await until(() => heard.length === 2, "the report");
    const [, { wasRecovering, recovered, reason }] = heard[1];
    assert.deepEqual([wasRecovering, recovered, reason], [true, false, "too_old"]);
  });
});

test("a server without positions is asked as before", async () => {
  await scene({}, {}, async (rango, server) => {
    const heard = notes(rango.subscribe("b.trades"), "subscribed");
    rango.connect();
    await connected(server, 1);
    server.last.send({ "b.trades": 1 });
    lose(server);
    await until(() => heard.length === 2, "coming back");
    assert.deepEqual(asks(server.last).map((request) => "since" in request), [false]);
    assert.equal(heard[1][1].wasRecovering, false);
  });
});

test("the option of the URL switches it off", async () => {
  const script = log();
  script.opened = undefined;
  await scene(script, {}, async (rango, server) => {
    rango.close();
    const other = new rango.constructor(`${server.url}/?resume=0`, { WebSocket: (await import("ws")).WebSocket });
    other.connect();
    await until(() => other.state === "connected", "a connection");
    assert.doesNotMatch(server.last.url, /resume=1/);
    other.close();
  });
});

test("quiet streams stand where the notice says; a broken history is not asked for", async () => {
  const script = log();
  await scene(script, {}, async (rango, server) => {
    rango.subscribe("b.trades");
    rango.connect();
    await connected(server, 1);
    server.last.send({ event: "position", at: "77-bb" });
    await rango.ping();
    lose(server);
    await connected(server, 2);
    assert.equal(asks(server.last)[0].since, "77-bb");
    await rango.ping();
    const told = notes(rango, "error");
    server.last.send({ event: "position", at: null, reason: "other_history" });
    await rango.ping();
    assert.deepEqual(told, [["error", { message: "Events may have been missed: other_history." }]]);
    lose(server);
    await connected(server, 3);
    assert.equal("since" in asks(server.last)[0], false);
  });
});

test("what was lost while it was being told is told from there on", async () => {
  const script = log();
  let losses = 0;
  const { asked } = script;
  script.asked = (peer, request) => {
    if (!request.since || (losses += 1) > 1) return asked(peer, request);
    script.event(peer, "a.trades", "first", "21-cc");
    peer.socket.terminate();
    return true;
  };
  await scene(script, {}, async (rango, server) => {
    const [one, two] = ["a.trades", "b.trades"].map((name) => rango.subscribe(name));
    const heard = notes(one, "publication");
    rango.connect();
    await connected(server, 1, 2);
    await until(() => two.state === "subscribed", "both");
    lose(server);
    await until(() => server.peers.length === 3 && one.state === "subscribed" && two.state === "subscribed", "both again");
    assert.deepEqual(heard.map(([, { data }]) => data), ["first"]);
    const since = Object.fromEntries(asks(server.last).flatMap(({ streams, since }) => streams.map((name) => [name, since])));
    assert.deepEqual(since, { "a.trades": "21-cc", "b.trades": "10-aa" });
  });
});

test("what was never held is asked for without a position", async () => {
  const script = log();
  await scene(script, {}, async (rango, server) => {
    rango.subscribe("a.trades");
    rango.connect();
    await connected(server, 1);
    await rango.ping();
    lose(server);
    rango.subscribe("b.trades");
    await connected(server, 2, 2);
    assert.deepEqual(asks(server.last).map(({ streams, since }) => [streams, since]), [[["a.trades"], "10-aa"], [["b.trades"], undefined]]);
  });
});

test("a thousand streams come back by messages that the server takes", async () => {
  const script = log();
  await scene(script, {}, async (rango, server) => {
    const subs = Array.from({ length: 1000 }, (_, n) => rango.subscribe(`market${n}-with-a-long-name.trades`));
    rango.connect();
    await until(() => subs.every(({ state }) => state === "subscribed"), "all of them");
    server.last.send({ event: "position", at: "1".repeat(40) });
    await rango.ping();
    lose(server);
    await until(() => server.peers.length === 2 && subs.every(({ state }) => state === "subscribed"), "all of them again");
    assert.ok(asks(server.last).every(({ since, bytes }) => since.length === 40 && bytes <= 8192));
  });
});

/** A book in order at 8 whose connection is lost, and what it is told afterwards. */
async function lost(script, play) {
  await scene(script, {}, async (rango, server) => {
    const book = rango.book("b");
    rango.connect();
    await connected(server, 1);
    script.event(server.last, "b.ob-snap", SNAPSHOT);
    script.event(server.last, "b.ob-inc", { asks: ["9002", "2"], sequence: 8 });
    await until(() => book.sequence === 8, "the book");
    const told = [];
    for (const type of ["sync", "update", "invalid"]) book.on(type, ({ reason }) => told.push(reason ? `${type}: ${reason}` : type));
    lose(server);
    await play(book, told, server, rango);
  });
}

test("a book that missed nothing goes on without a snapshot", async () => {
  const missed = [["b.ob-inc", { asks: ["9003", "3"], sequence: 9 }], ["b.ob-inc", { bids: ["8999", "0"], sequence: 10 }]];
  const script = log({ missed });
  await lost(script, async (book, told, server, rango) => {
    await until(() => book.state === "synced" && book.sequence === 10, "the book");
    script.event(server.last, "b.ob-inc", { asks: ["9001", "0"], sequence: 11 });
    await until(() => book.sequence === 11, "an increment");
    await rango.ping();
    assert.deepEqual(told, ["invalid: disconnected", "sync", "update"]);
    assert.deepEqual(book.asks, [["9002", "2"], ["9003", "3"]]);
    assert.deepEqual(book.bids, []);
    assert.deepEqual(server.last.requests.map(({ event }) => event), ["subscribe"]);
  });
});

test("a book without numbers goes on too", async () => {
  const script = log({ missed: [["b.ob-inc", { asks: ["9003", "3"] }]] });
  await scene(script, {}, async (rango, server) => {
    const book = rango.book("b");
    rango.connect();
    await connected(server, 1);
    script.event(server.last, "b.ob-snap", { asks: [["9001", "1"]], bids: [] });
    await until(() => book.state === "synced", "the book");
    lose(server);
    await until(() => server.peers.length === 2 && book.state === "synced", "the book again");
    assert.deepEqual(book.asks, [["9001", "1"], ["9003", "3"]]);
  });
});

test("a book that missed too much begins with the snapshot", async () => {
  const script = log({ missed: [["b.ob-snap", { ...SNAPSHOT, sequence: 20 }], ["b.ob-inc", { asks: ["9005", "5"], sequence: 21 }]], report: { recovered: false, reason: "other_history" } });
  await lost(script, async (book, told, server) => {
    await until(() => book.sequence === 21, "the book");
    assert.deepEqual(book.asks, [["9001", "1"], ["9005", "5"]]);
    assert.deepEqual(told, ["invalid: disconnected", "sync", "update"]);
    assert.deepEqual(server.last.requests.map(({ event }) => event), ["subscribe"]);
  });
});

test("a book that is not recovered and gets no snapshot is out of order, and asks for one", async () => {
  const script = log({ report: { recovered: false, reason: "no_log" } });
  await lost(script, async (book, told, server, rango) => {
    await connected(server, 2);
    script.event(server.last, "b.ob-inc", { asks: ["9009", "9"], sequence: 9 });
    await until(() => server.last.requests.some(({ event }) => event === "snapshot"), "a request");
    assert.equal(book.state, "invalid");
    assert.equal(book.sequence, 8);
  });
});

test("a gap in what was missed is cured like any other", async () => {
  const script = log({ missed: [["b.ob-inc", { asks: ["9003", "3"], sequence: 10 }]] });
  await lost(script, async (book, told, server) => {
    await until(() => server.last.requests.some(({ event }) => event === "snapshot"), "a request");
    assert.ok(told.includes("invalid: event 9 is missing before 10"));
    assert.equal(book.state, "invalid");
  });
});

test("a book that was out of order before asks for a snapshot", async () => {
  const script = log();
  await scene(script, {}, async (rango, server) => {
    const book = rango.book("b");
    rango.connect();
    await connected(server, 1);
    script.event(server.last, "b.ob-snap", SNAPSHOT);
    script.event(server.last, "b.ob-inc", { asks: [], sequence: 9 });
    await until(() => book.state === "invalid", "a gap");
    lose(server);
    await until(() => server.peers.length === 2 && server.last.requests.some(({ event }) => event === "snapshot"), "a request");
    assert.equal(book.state, "invalid");
  });
});

test("a book that is sent afresh does not take others' positions back", async () => {
  const script = log();
  const { asked } = script;
  script.asked = (peer, request) => {
    if (request.event !== "snapshot") return asked(peer, request);
    script.event(peer, "b.ob-snap", { ...SNAPSHOT, sequence: 20 }, "3-old");
    script.event(peer, "b.ob-inc", { sequence: 21 }, "4-old");
    peer.send({ success: { message: "snapshot", streams: request.streams }, id: request.id });
    return true;
  };
  await scene(script, {}, async (rango, server) => {
    const trades = notes(rango.subscribe("b.trades"), "publication");
    const book = rango.book("b");
    rango.connect();
    await connected(server, 1, 2);
    const at = script.event(server.last, "b.trades", 1);
    script.event(server.last, "b.ob-inc", { sequence: 30 }, at); // without a snapshot: it asks for one
    await until(() => book.sequence === 21 && trades.length, "the book");
    await rango.ping();
    lose(server);
    await connected(server, 2, 2);
    assert.deepEqual(asks(server.last).map(({ since }) => since), [at]);
  });
});
