// The book: snapshot and increments, in every writing that is in the field.

import assert from "node:assert/strict";
import test from "node:test";

import { scene, until } from "./server.mjs";

const SNAPSHOT = { asks: [["9001.0", "0.4"], ["9002", "1"]], bids: [["8999.50", "1.2"]], sequence: 7 };
const amounts = (levels) => Object.fromEntries(levels.map(([price, amount]) => [Number(price), amount]));

/** Give a book that is in order, and the server's end. */
async function synced(script, options, play) {
  await scene(script, {}, async (rango, server) => {
    const book = rango.book("b", options);
    rango.connect();
    await until(() => server.last?.held.size === 1, "a subscription");
    server.last.send({ "b.ob-snap": options?.snapshot ?? SNAPSHOT });
    await until(() => book.state === "synced", "the snapshot");
    await play(book, server.last, rango, server);
  });
}

const CASES = [
  [{ asks: ["9001.0", "0.1"] }, { 9001: "0.1", 9002: "1" }, { 8999.5: "1.2" }],
  [{ asks: [["9001.00", "0.1"]] }, { 9001: "0.1", 9002: "1" }, { 8999.5: "1.2" }],
  [{ asks: ["9001", ""] }, { 9002: "1" }, { 8999.5: "1.2" }],
  [{ asks: [["9001", "0"], ["9002", "0.0"]] }, {}, { 8999.5: "1.2" }],
  [{ asks: [["9003", "2"]], bids: ["8999.5", 0] }, { 9001: "0.4", 9002: "1", 9003: "2" }, {}],
  [{ asks: [], bids: null }, { 9001: "0.4", 9002: "1" }, { 8999.5: "1.2" }],
  [{ bids: ["1", null] }, { 9001: "0.4", 9002: "1" }, { 8999.5: "1.2" }],
  [{ asks: ["8888", ""], bids: ["7777", "0"] }, { 9001: "0.4", 9002: "1" }, { 8999.5: "1.2" }],
];
for (const [increment, asks, bids] of CASES) {
  test(`merges ${JSON.stringify(increment)}`, async () => {
    await synced({}, {}, async (book, peer) => {
      peer.send({ "b.ob-inc": { ...increment, sequence: 8 } });
      await until(() => book.sequence === 8, "the increment");
      assert.deepEqual(amounts(book.asks), asks);
      assert.deepEqual(amounts(book.bids), bids);
    });
  });
}

test("levels are sorted, best first, and no more than the depth", async () => {
  await synced({}, { depth: 2 }, async (book, peer) => {
    peer.send({ "b.ob-inc": { asks: [["10000", "1"], ["9000.5", "1"]], sequence: 8 } });
    peer.send({ "b.ob-inc": { bids: [["999", "1"], ["9000.1", "1"]], sequence: 9 } });
    await until(() => book.sequence === 9, "the increments");
    assert.deepEqual(book.asks.map(([price]) => price), ["9000.5", "9001.0"]);
    assert.deepEqual(book.bids.map(([price]) => price), ["9000.1", "8999.50"]);
  });
});

test("behind a full snapshot's last price nothing is shown, and the book is asked for again", async () => {
  await synced({}, { depth: 3, snapshotLevels: 2 }, async (book, peer) => {
    assert.deepEqual(book.complete, { asks: false, bids: true });
    peer.send({ "b.ob-inc": { asks: ["9500", "1"], sequence: 8 } });
    await until(() => book.sequence === 8, "the increment");
    assert.deepEqual(book.asks.map(([price]) => price), ["9001.0", "9002"]);
    peer.send({ "b.ob-inc": { asks: [["9001", ""], ["9002", ""]], sequence: 9 } });
    await until(() => peer.requests.some(({ event }) => event === "snapshot"), "a request");
    assert.equal(book.state, "synced");
  });
});

test("a gap is cured on the same connection, by that stream's snapshot", async () => {
  const asked = (peer, { event, streams, id }) => {
    if (event !== "snapshot") return false;
    peer.send({ "b.ob-snap": { ...SNAPSHOT, sequence: 20 } });
    peer.send({ "b.ob-inc": { asks: ["9005", "5"], sequence: 21 } });
    peer.send({ success: { message: "snapshot", streams }, id });
    return true;
  };
  await synced({ asked }, {}, async (book, peer, rango, server) => {
    const told = [];
    book.on("invalid", ({ reason }) => told.push(reason));
    peer.send({ "b.ob-inc": { asks: ["9001", ""], sequence: 9 } });
    peer.send({ "b.ob-inc": { asks: ["9001", ""], sequence: 10 } });
    await until(() => book.sequence === 21, "the snapshot");
    assert.deepEqual(told, ["event 8 is missing before 9"]);
    assert.deepEqual(amounts(book.asks), { 9001: "0.4", 9002: "1", 9005: "5" });
    assert.equal(server.peers.length, 1);
    assert.equal(peer.requests.filter(({ event }) => event === "snapshot").length, 1);
  });
});

test("where no snapshot can be asked for, the stream is subscribed anew", async () => {
  await synced({ numbered: false }, {}, async (book, peer) => {
    peer.send({ "b.ob-inc": { sequence: 9 } });
    const words = () => peer.requests.map(({ event }) => event).join(" ");
    await until(() => words().endsWith("snapshot unsubscribe subscribe"), "a new subscription");
    peer.send({ "b.ob-snap": { ...SNAPSHOT, sequence: 9 } });
    await until(() => book.state === "synced", "the snapshot");
  });
});

test("a lower sequence with a snapshot is a new beginning; a stale book is told", async () => {
  await synced({}, {}, async (book, peer) => {
    peer.send({ "b.ob-snap": { asks: [], bids: [], sequence: 1 } });
    peer.send({ "b.ob-inc": { bids: ["5", "1"], sequence: 2 } });
    await until(() => book.sequence === 2, "the new beginning");
    peer.send({ event: "resync", streams: ["b.ob-inc"] });
    await until(() => book.state === "invalid", "the notice");
    assert.equal(peer.requests.length, 1, "its next snapshot will be sent");
  });
});

test("a snapshot with an empty side empties it", async () => {
  await synced({}, {}, async (book, peer) => {
    assert.equal(book.asks.length, 2);
    peer.send({ "b.ob-snap": { asks: [], bids: [["1", "1"]], sequence: 3 } });
    await until(() => book.sequence === 3, "the snapshot");
    assert.deepEqual(book.asks, []);
  });
});

test("a book that gets increments but no snapshot asks for one", async () => {
  await scene({ numbered: false }, {}, async (rango, server) => {
    rango.book("b");
    rango.connect();
    await until(() => server.last?.held.size === 1, "a subscription");
    const { last } = server;
    last.send({ "b.ob-inc": { asks: ["1", "1"], sequence: 3 } });
    await until(() => last.requests.filter(({ event }) => event === "subscribe").length === 2, "a new subscription");
  });
});

test("a book without numbers is merged as it comes", async () => {
  const { sequence, ...snapshot } = SNAPSHOT;
  await synced({}, { snapshot }, async (book, peer) => {
    peer.send({ "b.ob-inc": { bids: ["5", "1"] } });
    await until(() => book.bids.length === 2, "the increment");
    assert.equal(book.sequence, null);
  });
});
