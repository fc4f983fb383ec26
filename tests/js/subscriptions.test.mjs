// Subscriptions: cut by bytes, refused one by one, the same on a server that knows no extensions.

import assert from "node:assert/strict";
import test from "node:test";

import { scene, until } from "./server.mjs";

const THOUSAND = Array.from({ length: 1000 }, (_, n) => `market${n}-with-a-long-name.trades`);

for (const [numbered, most] of [[true, 8192], [false, 512]]) {
  test(`a thousand streams in messages of at most ${most} bytes`, async () => {
    await scene({ numbered }, {}, async (rango, server) => {
      const subs = THOUSAND.map((name) => rango.subscribe(name));
      rango.connect();
      await until(() => subs.every(({ state }) => state === "subscribed"), "all of them");
      const sizes = server.last.requests.map(({ bytes }) => bytes);
      assert.ok(Math.max(...sizes) <= most, `${Math.max(...sizes)}`);
      assert.ok(Math.max(...sizes) > most / 2, "no needless messages");
      assert.equal(server.last.requests.flatMap(({ streams }) => streams).length, 1000);
    });
  });
}

test("requests keep under the server's rate", async () => {
  const times = [];
  const asked = () => void times.push(Date.now());
  await scene({ asked }, {}, async (rango, server) => {
    rango.connect();
    await until(() => rango.state === "connected", "a connection");
    const begin = Date.now();
    for (let n = 0; n < 170; n += 1) {
      rango.subscribe(`m${n}.trades`);
      await Promise.resolve().then(() => {}); // a request each
    }
    await until(() => server.last.held.size === 170, "all of them");
    assert.ok(times.length >= 170);
    assert.ok(times[169] - begin >= 300, "20 past the burst of 150, at 40 a second");
  });
});

test("one refused stream fails alone", async () => {
  const asked = (peer, { event, streams, id }) => {
    if (event !== "subscribe" || !streams.includes("bad")) return false;
    peer.send({ error: "Could not parse streams", code: 1004, id });
    return true;
  };
  await scene({ asked }, {}, async (rango) => {
    const good = THOUSAND.slice(0, 50).map((name) => rango.subscribe(name));
    const bad = rango.subscribe("bad");
    const told = [];
    bad.on("error", ({ message }) => told.push(message));
    good.push(rango.subscribe("late.trades"));
    rango.connect();
    await until(() => bad.state === "refused", "the refusal");
    await until(() => good.every(({ state }) => state === "subscribed"), "the others");
    assert.deepEqual(told, ["Could not parse streams"]);
    const again = rango.subscribe("bad");
    await until(() => again.state === "refused" && told.length === 2, "another refusal, as it was asked again");
  });
});

for (const numbered of [true, false]) {
  test(`what the reply's list lacks is refused (${numbered ? "with" : "without"} ids)`, async () => {
    const asked = (peer, { event, id }) => {
      if (event !== "subscribe") return false;
      if (numbered) peer.send({ error: "order needs a token", code: 1302, id });
      peer.send({ success: { message: "subscribed", streams: ["a.trades"] }, ...(numbered && { id }) });
      return true;
    };
    await scene({ asked, numbered }, {}, async (rango) => {
      const [order, trades] = [rango.subscribe("order"), rango.subscribe("a.trades")];
      rango.connect();
      await until(() => trades.state === "subscribed" && order.state === "refused", "both");
      assert.match(order.lastError, /needs a token/);
    });
  });
}

test("a request that is never answered is made again", async () => {
  let asks = 0;
  const asked = (peer, { event }) => event === "subscribe" && (asks += 1) === 1;
  await scene({ asked }, {}, async (rango) => {
    const sub = rango.subscribe("a.trades");
    rango.connect();
    await until(() => sub.state === "subscribed", "an answer");
    assert.equal(asks, 2);
  });
});

test("events reach their holders under the names that the server uses", async () => {
  await scene({}, {}, async (rango, server) => {
    const heard = [];
    for (const name of ["order", "admin.btcusd.sys", "btcusd.ob-inc", "global.tickers"]) {
      rango.subscribe(name).on("publication", ({ stream, raw }) => heard.push([name, stream, raw]));
    }
    rango.connect();
    await until(() => server.last?.held.size === 4, "all of them");
    const events = ['{"order":{"id":12345678901234567890}}', '{"btcusd.sys":1}', '{"btcusd.ob-snap":{}}', '{"global.tickers":[]}'];
    events.forEach((text) => server.last.send(text));
    await until(() => heard.length === 4, "four events");
    assert.deepEqual(heard, [
      ["order", "order", events[0]],
      ["admin.btcusd.sys", "btcusd.sys", events[1]],
      ["btcusd.ob-inc", "btcusd.ob-snap", events[2]],
      ["global.tickers", "global.tickers", events[3]],
    ]);
  });
});
