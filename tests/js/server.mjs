// A small WebSocket server that follows a script, and what the tests share.

import { WebSocket, WebSocketServer } from "ws";

import { Rango } from "../../rango_gevent/console/client/rango.js";

/** Wait until something is true, within seconds: many, as only a failure takes them. */
export async function until(predicate, what, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await predicate();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/**
 * Tell for how long the timer that is just calling back was to wait, in ms; null when none is.
 *
 * What was planned can be judged on a busy machine, what came of it cannot: it may always be late.
 */
export function planned() {
  const { setTimeout } = globalThis;
  let wait = null;
  globalThis.setTimeout = (callback, ms) => setTimeout(() => {
    wait = ms;
    setImmediate(() => (wait = null));
    callback();
  }, ms);
  return { get wait() { return wait; }, stop: () => (globalThis.setTimeout = setTimeout) };
}

export const clock = 1e9; // the server's, in seconds: nothing may be compared with the client's own

/** A token as a JWT is written; nobody here looks at its signature. */
export function jwt(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "EdDSA" })}.${part(claims)}.c2ln`;
}

/** One connection as the server sees it. */
class Peer {
  constructor(socket, request) {
    this.socket = socket;
    this.url = request.url;
    this.offered = (request.headers["sec-websocket-protocol"] ?? "").split(/, */);
    this.requests = [];
    this.held = new Set();
    this.greeting = { success: { message: "subscribed", streams: [] } };
  }

  send(message) {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }
}

/**
 * A server that answers as the protocol says, but for what a test's handlers do otherwise.
 *
 * `opened(peer)` and `asked(peer, request, text)` are called first; true: nothing else happens.
 */
export async function serve({ opened, asked, numbered = true } = {}) {
  const peers = [];
  const server = new WebSocketServer({
    port: 0,
    host: "127.0.0.1",
    handleProtocols: (offered) => (numbered && offered.has("rango.v1") ? "rango.v1" : false),
  });
  server.on("connection", (socket, request) => {
    const peer = new Peer(socket, request);
    peers.push(peer);
    socket.on("message", (data) => take(peer, String(data)));
    socket.on("error", () => {});
    if (opened?.(peer) !== true) peer.send(peer.greeting);
  });
  function take(peer, text) {
    if (text === "ping") return asked?.(peer, { event: "ping" }, text) === true || peer.send("pong");
    const request = JSON.parse(text);
    peer.requests.push({ ...request, bytes: Buffer.byteLength(text) });
    if (asked?.(peer, request, text) === true) return undefined;
    const id = numbered ? { id: request.id } : {};
    const held = peer.held;
    if (request.event === "subscribe") request.streams.forEach((name) => held.add(name));
    else if (request.event === "unsubscribe") request.streams.forEach((name) => held.delete(name));
    else if (request.event === "auth" && numbered) return peer.send({ success: { message: "authenticated", uid: "ID1", ttl: null }, ...id });
    else if (request.event === "time" && numbered) return peer.send({ success: { message: "time", time: clock }, ...id });
    else if (request.event === "snapshot" && numbered) return peer.send({ success: { message: "snapshot", streams: request.streams }, ...id });
    else return peer.send({ error: "Could not parse Type: Invalid event", ...id });
    return peer.send({ success: { message: `${request.event}d`, streams: [...held] }, ...id });
  }
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    peers,
    url: `ws://127.0.0.1:${server.address().port}`,
    get last() {
      return peers[peers.length - 1];
    },
    close() {
      server.clients.forEach((socket) => socket.terminate());
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A client whose waits are short. */
export function client(url, options = {}) {
  return new Rango(url, { WebSocket, minReconnectDelay: 1, maxReconnectDelay: 4, ...options });
}

/** Run a test with a server and a client that are ended afterwards. */
export async function scene(script, options, play) {
  const server = await serve(script);
  const rango = client(server.url, options);
  try {
    await play(rango, server);
  } finally {
    rango.close();
    await server.close();
  }
}
