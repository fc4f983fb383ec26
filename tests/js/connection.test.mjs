// The connection: it comes back, obeys close codes, keeps what is wanted, leaves nothing behind.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { client, scene, serve, until } from "./server.mjs";

const README = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const CLOSE_CODES = [...README.matchAll(/^\| (\d{4}) \| .* \| (never|later, with jitter|now) \|$/gm)].map(([, code, when]) => [Number(code), when]);

test("what is wanted is asked for on every connection, once", async () => {
  await scene({}, {}, async (rango, server) => {
    rango.subscribe("btcusd.trades");
    const other = rango.subscribe("ethusd.trades");
    rango.subscribe("btcusd.trades");
    rango.connect();
    for (let number = 1; number <= 3; number += 1) {
      await until(() => server.peers.length === number && server.last.held.size === 2, "both streams");
      assert.deepEqual(server.last.requests.map(({ streams }) => streams), [["btcusd.trades", "ethusd.trades"]]);
      server.last.socket.close(1012, "service restart");
    }
    await until(() => server.peers.length === 4 && server.last.held.size === 2, "the fourth connection");
    other.unsubscribe();
    await until(() => server.last.held.size === 1, "one stream");
  });
});

test("the README has a table of close codes", () => assert.ok(CLOSE_CODES.length >= 10));

for (const [code, when] of CLOSE_CODES) {
  test(`a close with ${code} means: ${when}`, async () => {
    const token = code === 4401 ? { getToken: () => "a.b.c" } : {};
    await scene({}, token, async (rango, server) => {
      const states = [];
      rango.on("state", (event) => states.push(event));
      rango.connect();
      await until(() => rango.state === "connected", "a connection");
      server.last.socket.close(code);
      if (when === "never") await until(() => rango.state === "disconnected", "the end");
      else await until(() => server.peers.length === 2 && rango.state === "connected", "coming back");
      const told = states.find((event) => event.code === code);
      assert.equal(told.retryIn === null, when === "never");
      assert.notEqual(rango.lastError, "");
    });
  });
}

test("waits grow, and each is drawn from all that is below", async () => {
  const dead = await serve();
  await dead.close();
  const rango = client(dead.url, { minReconnectDelay: 4, maxReconnectDelay: 64 });
  const waits = [];
  rango.on("state", ({ retryIn }) => retryIn !== null && waits.push(retryIn));
  rango.connect();
  await until(() => waits.length > 12, "a dozen waits");
  rango.close();
  waits.slice(0, 12).forEach((wait, n) => assert.ok(wait <= Math.min(64, 4 * 2 ** n), `${n}: ${wait}`));
  assert.ok(new Set(waits).size > 6);
});

/** A page and its window, with what listens to them counted. */
async function inPage(play) {
  const counts = { page: 0, window: 0 };
  const counting = (target, where) => ({
    addEventListener: (...given) => (counts[where]++, target.addEventListener(...given)),
    removeEventListener: (...given) => (counts[where]--, target.removeEventListener(...given)),
  });
  const [page, window] = [new EventTarget(), new EventTarget()];
  globalThis.document = { visibilityState: "visible", ...counting(page, "page") };
  Object.assign(globalThis, counting(window, "window"));
  const show = (visibilityState) => {
    document.visibilityState = visibilityState;
    page.dispatchEvent(new Event("visibilitychange"));
  };
  try {
    await play({ counts, show, tell: (type) => window.dispatchEvent(new Event(type)) });
  } finally {
    for (const name of ["document", "addEventListener", "removeEventListener"]) delete globalThis[name];
  }
}

test("a thousand reconnects leave no listener and no timer", async () => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  const before = timers();
  let publications = 0;
  const opened = (peer) => {
    peer.send(peer.greeting);
    peer.send({ "btcusd.trades": 1 });
    return true;
  };
  const asked = (peer) => (peer.socket.close(1012), true);
  await inPage(async ({ counts }) => {
    await scene({ opened, asked }, {}, async (rango, server) => {
      rango.subscribe("btcusd.trades").on("publication", () => (publications += 1));
      rango.book("btcusd");
      rango.connect();
      await until(() => server.peers.length >= 1000, "a thousand connections", 180);
      assert.deepEqual(counts, { page: 1, window: 3 });
      assert.ok(Math.abs(publications - server.peers.length) <= 1, "one listener each");
      assert.ok(server.peers.slice(0, -1).every(({ requests }) => requests.length <= 1));
    });
    await until(() => timers() <= before, "no timer");
    assert.deepEqual(counts, { page: 0, window: 0 });
  });
});

test("a silent connection is given up when probed, and what it says later is ignored", async () => {
  const asked = (peer, { event }) => event === "ping" && peer.isDeaf;
  await inPage(async ({ show }) => {
    await scene({ asked }, {}, async (rango, server) => {
      const heard = [];
      rango.subscribe("btcusd.trades").on("publication", ({ data }) => heard.push(data));
      rango.connect();
      await until(() => server.last?.held.size === 1, "a connection");
      const [first] = server.peers;
      first.isDeaf = true;
      show("visible");
      await until(() => server.peers.length === 2 && server.last.held.size === 1, "another connection");
      first.send({ "btcusd.trades": "late" });
      server.last.send({ "btcusd.trades": "right" });
      await until(() => heard.length, "an event");
      assert.deepEqual(heard, ["right"]);
    });
  });
});

test("what arrives after a probe is no answer to it", async () => {
  let pings = 0;
  const asked = (peer, { event }) => {
    if (event !== "ping") return false;
    pings += 1;
    if (pings === 1) peer.send({ "btcusd.trades": "from before" });
    return true;
  };
  await inPage(async ({ show }) => {
    await scene({ asked }, {}, async (rango, server) => {
      rango.subscribe("btcusd.trades");
      rango.connect();
      await until(() => server.last?.held.size === 1, "a connection");
      show("visible");
      await until(() => server.peers.length === 2, "another connection");
      assert.equal(pings, 2);
    });
  });
});

test("a page that is left closes its connection, and opens one when it is shown again", async () => {
  await inPage(async ({ tell }) => {
    await scene({}, {}, async (rango, server) => {
      rango.subscribe("btcusd.trades");
      rango.connect();
      await until(() => server.last?.held.size === 1, "a connection");
      tell("pagehide");
      await until(() => server.last.socket.readyState === 3, "its end");
      assert.equal(rango.state, "connecting");
      tell("pageshow");
      await until(() => server.peers.length === 2 && server.last.held.size === 1, "another");
    });
  });
});

test("a page that is hidden for long connects when it is seen again", async () => {
  const { now } = Date;
  await inPage(async ({ show }) => {
    await scene({}, {}, async (rango, server) => {
      const waits = [];
      rango.on("state", ({ newState, retryIn }) => newState === "connecting" && waits.push(retryIn));
      rango.connect();
      await until(() => rango.state === "connected", "a connection");
      show("hidden");
      try {
        Date.now = () => now() + 61_000;
        server.last.socket.close(1012);
        await until(() => rango.state === "connecting", "the loss");
        assert.equal(waits.at(-1), null);
        show("visible");
        await until(() => rango.state === "connected", "another");
      } finally {
        Date.now = now;
      }
    });
  });
});

test("a ping tells the round trip", async () => {
  await scene({}, {}, async (rango) => {
    await assert.rejects(rango.ping());
    rango.connect();
    await until(() => rango.state === "connected", "a connection");
    assert.ok((await rango.ping()) >= 0);
  });
});

test("a listener that throws harms nobody else", async () => {
  const { error } = console;
  console.error = () => {};
  try {
    await scene({}, {}, async (rango, server) => {
      let heard = 0;
      const sub = rango.subscribe("btcusd.trades");
      sub.on("publication", () => {
        throw new Error("mine");
      });
      const off = sub.on("publication", () => (heard += 1));
      rango.connect();
      await until(() => server.last?.held.size === 1, "a connection");
      server.last.send({ "btcusd.trades": 1 });
      await until(() => heard === 1, "the second listener");
      off();
      server.last.send({ "btcusd.trades": 2 });
      await rango.ping();
      assert.equal(heard, 1);
    });
  } finally {
    console.error = error;
  }
});

for (const when of ["connecting", "connected", "a retry"]) {
  test(`a listener may close: ${when}`, async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
    const before = timers();
    const opened = (peer) => when === "a retry" && (peer.socket.close(1012), true);
    await scene({ opened }, { getToken: () => "a.b.c" }, async (rango) => {
      rango.subscribe("btcusd.trades");
      rango.on("state", ({ newState, retryIn }) => (newState === when || (when === "a retry" && retryIn !== null)) && rango.close());
      rango.connect();
      await until(() => rango.state === "disconnected", "the end");
    });
    await until(() => timers() <= before, "no timer");
  });
}
