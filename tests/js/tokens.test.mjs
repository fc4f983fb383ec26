// Tokens: fetched before every connection, one fetch at a time, renewed without a gap.

import assert from "node:assert/strict";
import test from "node:test";

import { UnauthorizedError } from "../../rango_gevent/console/client/rango.js";
import { clock, jwt, planned, scene, until } from "./server.mjs";

const auths = (peer) => peer.requests.filter(({ event }) => event === "auth");

test("the token goes by subprotocol, a fresh one each time", async () => {
  let number = 0;
  await scene({}, { getToken: async () => `Bearer a.b.${(number += 1)}\n` }, async (rango, server) => {
    rango.connect();
    await until(() => rango.state === "connected", "a connection");
    server.last.socket.close(4401);
    await until(() => server.peers.length === 2 && rango.state === "connected", "another");
    assert.deepEqual(server.peers.map(({ offered }) => offered), [["rango.v1", "bearer.a.b.1"], ["rango.v1", "bearer.a.b.2"]]);
    assert.ok(server.peers.every(({ url }) => !url.includes("a.b")), "never in a URL");
  });
});

test("a token that no header can hold goes in band", async () => {
  await scene({}, { getToken: () => "opaque token/=" }, async (rango, server) => {
    rango.connect();
    await until(() => rango.uid === "ID1", "the server's word");
    assert.deepEqual(server.last.offered, ["rango.v1"]);
    assert.deepEqual(auths(server.last).map(({ token }) => token), ["opaque token/="]);
  });
});

test("one fetch at a time, and each serves all who wait", async () => {
  let calls = 0;
  let give;
  const getToken = () => ((calls += 1), new Promise((resolve) => (give = resolve)));
  await scene({}, { getToken }, async (rango, server) => {
    rango.connect();
    await until(() => give, "the first fetch");
    rango.connect();
    give("a.b.c");
    await until(() => rango.state === "connected", "a connection");
    const renewals = [rango.authenticate(), rango.authenticate(), rango.authenticate()];
    await until(() => calls === 2, "the second fetch");
    give("d.e.f");
    await Promise.all(renewals);
    await until(() => auths(server.last).length, "the token");
    assert.equal(calls, 2);
  });
});

test("an UnauthorizedError stops, any other error is tried again", async () => {
  let calls = 0;
  const getToken = async () => {
    calls += 1;
    throw calls < 3 ? new Error("no network") : new UnauthorizedError("log in first");
  };
  await scene({}, { getToken }, async (rango, server) => {
    rango.connect();
    await until(() => rango.state === "disconnected", "the end");
    assert.equal(calls, 3);
    assert.equal(server.peers.length, 0);
    assert.equal(rango.lastError, "log in first");
  });
});

test("4401 without a getter is the end, and says what is missing", async () => {
  await scene({ opened: (peer) => (peer.socket.close(4401), true) }, {}, async (rango) => {
    rango.connect();
    await until(() => rango.state === "disconnected", "the end");
    assert.match(rango.lastError, /getToken/);
  });
});

test("a token that is about to expire is renewed on the connection", async () => {
  await scene({}, { getToken: () => "a.b.c" }, async (rango, server) => {
    rango.connect();
    await until(() => rango.state === "connected", "a connection");
    server.last.send({ event: "auth_expiring", in: 0 });
    await until(() => rango.uid === "ID1", "a renewal");
    assert.equal(server.peers.length, 1);
  });
});

test("a cookie that getToken renews is brought by another handshake, before its end", async () => {
  let fetched = 0;
  await scene({}, { getToken: () => void (fetched += 1) }, async (rango, server) => {
    const trades = rango.subscribe("a.trades");
    rango.connect();
    await until(() => trades.state === "subscribed", "a connection");
    await rango.authenticate();
    assert.equal(server.peers.length, 1, "somebody who is just not logged in stays");
    server.last.send({ event: "auth_expiring", in: 1 });
    await until(() => server.peers.length === 2 && trades.state === "subscribed", "another");
    assert.equal(fetched, 4);
  });
});

test("a ttl of months is no reason to renew at once", async () => {
  const asked = (peer, { event, id }) => event === "auth" && (peer.send({ success: { message: "authenticated", uid: "ID1", ttl: 30e6 }, id }), true);
  await scene({ asked }, { getToken: () => "not a header/" }, async (rango, server) => {
    rango.connect();
    await until(() => rango.uid === "ID1", "the server's word");
    for (let n = 0; n < 20; n += 1) await rango.ping();
    assert.equal(auths(server.last).length, 1);
  });
});

test("a bad token by subprotocol is told, and a new one taken in band", async () => {
  const opened = (peer) => {
    peer.send(peer.greeting);
    peer.send({ error: "authentication failed: expired", code: 1203 });
    return true;
  };
  await scene({ opened }, { getToken: () => "a.b.c" }, async (rango, server) => {
    const errors = [];
    rango.on("error", ({ message }) => errors.push(message));
    rango.connect();
    await until(() => rango.uid === "ID1", "a new token");
    assert.match(errors[0], /expired/);
    assert.equal(auths(server.last).length, 1);
  });
});

test("private streams that were refused are asked for again after a login", async () => {
  const asked = (peer, { event, id }) => {
    if (event === "auth") peer.isKnown = true;
    if (event !== "subscribe" || peer.isKnown) return false;
    peer.send({ success: { message: "subscribed", streams: [] }, id });
    return true;
  };
  let token = "";
  await scene({ asked }, { getToken: () => token }, async (rango) => {
    const order = rango.subscribe("order");
    rango.connect();
    await until(() => order.state === "refused", "a refusal");
    token = "a.b.c";
    await rango.authenticate();
    await until(() => order.state === "subscribed", "the stream");
  });
});

test("another user's private streams are lost, and that is told", async () => {
  await scene({}, { getToken: () => "a.b.c" }, async (rango, server) => {
    const [order, trades] = [rango.subscribe("order"), rango.subscribe("a.trades")];
    rango.connect();
    await until(() => order.state === "subscribed", "the stream");
    server.last.send({ success: { message: "unsubscribed", streams: ["a.trades"] } });
    await until(() => order.state === "refused", "the loss");
    assert.equal(trades.state, "subscribed");
  });
});

test("a server without subprotocols is connected to without, and says that it takes no token", async () => {
  await scene({ numbered: false }, { getToken: () => "a.b.c" }, async (rango, server) => {
    const sub = rango.subscribe("a.trades");
    rango.connect();
    await until(() => sub.state === "subscribed", "the stream");
    await until(() => /proxy/.test(rango.lastError), "what to do");
    assert.deepEqual(server.last.offered, [""]);
    const { length } = server.peers;
    server.last.socket.close(1012);
    await until(() => server.peers.length === length + 1, "another connection");
    assert.deepEqual(server.last.offered, [""], "remembered");
  });
});

test("a token is renewed by its ttl, but not sooner than in a second", async () => {
  const asked = (peer, { event, id }) => event === "auth" && (peer.send({ success: { message: "authenticated", uid: "ID1", ttl: 0 }, id }), true);
  await scene({ asked }, { getToken: () => "not a header/" }, async (rango, server) => {
    const begin = Date.now();
    rango.connect();
    await until(() => rango.uid === "ID1", "the server's word");
    await until(() => auths(server.last).length === 2, "a renewal");
    assert.ok(Date.now() - begin > 900);
    assert.equal(server.peers.length, 1);
  });
});

test("a token of the handshake names its user, and is renewed by the server's clock", async () => {
  const given = [];
  const timers = planned();
  const waits = [];
  await scene({}, { getToken: () => (waits.push(timers.wait), jwt({ uid: "ID9", exp: clock + 3 })) }, async (rango, server) => {
    rango.on("auth", (event) => given.push(event));
    const begin = Date.now();
    rango.connect();
    await until(() => rango.uid, "the user");
    assert.deepEqual(given, [{ uid: "ID9", ttl: 3 }]);
    assert.deepEqual(server.last.requests.map(({ event }) => event), ["time"]);
    await until(() => auths(server.last).length === 1, "a renewal");
    assert.ok(Date.now() - begin > 2_000);
    assert.equal(waits.length, 2);
    assert.ok(waits[1] > 2_000 && waits[1] < 2_900, `${waits[1]} ms: before the end of three seconds`);
    assert.equal(server.peers.length, 1);
  }).finally(timers.stop);
});

test("a token of the handshake that was refused names nobody", async () => {
  const opened = (peer) => {
    peer.send(peer.greeting);
    peer.send({ error: "authentication failed: revoked", code: 1208 });
    return true;
  };
  await scene({ opened }, { getToken: () => jwt({ uid: "ID9" }) }, async (rango, server) => {
    rango.connect();
    await until(() => /revoked/.test(rango.lastError), "the refusal");
    await until(() => server.last.requests.length, "the question for the time");
    await rango.ping();
    assert.equal(rango.uid, null);
  });
});

test("why a token is refused is not covered by what follows from it", async () => {
  const opened = (peer) => {
    peer.send(peer.greeting);
    peer.send({ error: "authentication failed: revoked", code: 1208 });
    return true;
  };
  const asked = (peer, { event, id }) => event === "subscribe" && (peer.send({ success: { message: "subscribed", streams: [] }, id }), true);
  await scene({ opened, asked }, { getToken: () => jwt({ uid: "ID9" }) }, async (rango) => {
    const order = rango.subscribe("order");
    rango.connect();
    await until(() => order.state === "refused", "the refusal");
    assert.match(rango.lastError, /revoked/);
    assert.match(order.lastError, /order is not for/);
  });
});

test("no token is ever in an error, a state or a URL", async () => {
  const tokens = [];
  const told = [];
  const opened = (peer) => {
    peer.send(peer.greeting);
    peer.send({ error: "authentication failed: signature", code: 1202 });
    return true;
  };
  let auths = 0;
  const asked = (peer, { event, id }) => {
    if (event !== "auth") return false;
    auths += 1;
    peer.send({ error: "authentication failed: signature", code: 1202, id });
    if (auths === 1) peer.socket.close(4401, "authentication failed too often");
    return true;
  };
  const getToken = () => {
    const token = tokens.length % 2 ? `opaque/secret ${tokens.length}` : jwt({ uid: "ID9", secret: tokens.length });
    tokens.push(token);
    return token;
  };
  await scene({ opened, asked }, { getToken }, async (rango, server) => {
    for (const type of ["state", "error", "auth"]) rango.on(type, (event) => told.push(JSON.stringify(event), rango.lastError));
    const order = rango.subscribe("order");
    order.on("error", (event) => told.push(JSON.stringify(event), order.lastError));
    rango.connect();
    await until(() => tokens.length >= 3 && told.length > 6, "some refusals");
    const seen = [...told, ...server.peers.map(({ url }) => url)].join(" ");
    for (const token of tokens) assert.ok(!seen.includes(token) && !seen.includes(token.split(".")[1] ?? token));
  });
});

test("a token of the handshake that says nothing is shown in band too", async () => {
  await scene({}, { getToken: () => "opaque-7" }, async (rango, server) => {
    rango.connect();
    await until(() => rango.uid === "ID1", "the server's word");
    assert.deepEqual(server.last.offered, ["rango.v1", "bearer.opaque-7"]);
    assert.deepEqual(auths(server.last).map(({ token }) => token), ["opaque-7"]);
  });
});

test("a notice changes nothing where the renewal is planned before the end", async () => {
  await scene({}, { getToken: () => jwt({ uid: "ID9", exp: clock + 2 }) }, async (rango, server) => {
    const begin = Date.now();
    rango.connect();
    await until(() => rango.uid, "the user");
    for (let n = 0; n < 20; n += 1) server.last.send({ event: "auth_expiring", in: 2 });
    await until(() => auths(server.last).length, "a renewal");
    assert.ok(Date.now() - begin > 1_300);
    await rango.ping();
    assert.equal(auths(server.last).length, 1);
  });
});
