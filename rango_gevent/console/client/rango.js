/**
 * A client of rango_gevent, and of any Rango, for pages and for Node. Its types tell how it is used.
 *
 * Rules that hold here:
 * - What is wanted (subscriptions, books) outlives every connection and is asked for again on each,
 *   with the position up to which it was heard, where the server tells positions.
 * - What an older connection still says is ignored.
 * - Every way to a connection, a wake-up included, fetches a token first; one fetch at a time.
 * - A page cannot see ping frames and its timers stop while it sleeps: times (in ms) are compared,
 *   ticks are never counted, and a doubtful connection is probed with the text `ping`.
 */

const NEVER = new Set([1002, 1007, 1009, 4010, 4403]); // the README's table of close codes
const NOW = new Set([4011, 4401]);
const ADVICE = { // where coming back is not all that helps
  1002: "A frame arrived broken: look for a proxy that changes frames.",
  1006: "The connection was lost, or refused without a word: is the server up, may this page's origin connect (API_CORS_ORIGINS), does every proxy pass WebSockets on?",
  1007: "The server got broken text: look for a proxy that changes frames.",
  1009: "A request was larger than the server takes: lower maxMessageBytes.",
  4008: "This client was too slow: subscribe less, or do less per event.",
  4010: "A request came in too many pieces: look for a proxy that splits frames.",
  4029: "Too many requests: subscribe and unsubscribe less often.",
  4401: "The token expired, was missing or was refused: getToken must return a fresh one.",
  4403: "The user's access was revoked: log in again.",
};
const NO_ANSWER = "The server did not answer in time";
const POSITION = /,"at":"([^"]{1,40})"}$/; // the last member of an event: never part of its body
const UNKNOWN_REQUEST = /Could not parse Type|no such event/i;
const TOKEN_CHARACTERS = /^[\w.~+!#$%&'*^`|-]+$/; // of a subprotocol: RFC 7230 section 3.2.6

const MAX_TIMER = 2 ** 31 - 1; // a longer setTimeout fires at once
const OPEN_WITHIN = 10_000;
const TOKEN_WITHIN = 30_000;
const ANSWER_WITHIN = 10_000;
const PROBE_WITHIN = 3_000;
const IDLE_AFTER = 30_000;
const HIDDEN_FOR_LONG = 60_000;
const STEADY_AFTER = 10_000; // a connection that lived for so long was a good one
const BURST = 150; // requests at once, and a second in the long run: under the server's 200 and 50
const PER_SECOND = 40;

export class UnauthorizedError extends Error {
  constructor(message = "not logged in") {
    super(message);
    this.name = "UnauthorizedError";
  }
}

/** Call back after a time of any length; returns what cancels it. */
function later(ms, callback) {
  let timer;
  const arm = (left) => {
    const part = Math.min(Math.max(left, 0), MAX_TIMER);
    timer = setTimeout(() => (left > part ? arm(left - part) : callback()), part);
  };
  arm(ms);
  return () => clearTimeout(timer);
}

const bytesOf = (text) => new TextEncoder().encode(text).length;
const between = (low, high) => low + Math.random() * (high - low);

class Emitter {
  #listeners = new Map();

  on(type, listener) {
    const entry = { listener };
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(entry);
    return () => void this.#listeners.get(type).delete(entry);
  }

  _emit(type, event) {
    for (const { listener } of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        (globalThis.reportError ?? console.error)(error); // a listener's fault is not the stream's
      }
    }
  }
}

export class Subscription extends Emitter {
  #entry;
  #leave;

  constructor(entry, leave) {
    super();
    this.#entry = entry;
    this.#leave = leave;
  }

  get stream() {
    return this.#entry.name;
  }

  get state() {
    return this.#leave ? this.#entry.state : "unsubscribed";
  }

  get lastError() {
    return this.#entry.error;
  }

  unsubscribe() {
    this.#leave?.(this);
    this.#leave = null;
  }
}

/** One WebSocket, its requests that wait for replies, and its pace. */
class Link {
  openedAt = 0;
  heardAt = 0;
  greeted = false;
  #socket;
  #lost;
  #pending = new Map();
  #id = 0;
  #waiting = [];
  #allowed = BURST;
  #countedAt = Date.now();
  #pings = [];
  #timers = { open: null, pace: null, idle: null };

  constructor(socket, { open, text, lost }) {
    this.#socket = socket;
    this.#lost = lost;
    socket.onopen = () => {
      this.#cancel("open");
      this.openedAt = this.heardAt = Date.now();
      this.#watch();
      open(this);
    };
    socket.onmessage = ({ data }) => {
      this.heardAt = Date.now();
      if (data === "pong") this.#pings.shift()?.(Date.now());
      else text(this, String(data));
    };
    socket.onclose = ({ code, reason }) => this.fail(code || 1006, reason);
    socket.onerror = () => {}; // a close follows
    this.#timers.open = later(OPEN_WITHIN, () => this.fail(1006, "no answer to the handshake"));
  }

  get protocol() {
    return this.#socket.protocol;
  }

  /** End it and tell the owner; `end` does so in silence. */
  fail(code, reason) {
    const lost = this.#lost;
    this.end();
    lost?.(this, code, reason);
  }

  end() {
    this.#lost = null;
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    Object.keys(this.#timers).forEach((name) => this.#cancel(name));
    try {
      socket.close(1000);
    } catch {} // not open yet, for some libraries
    for (const { done, cancel } of this.#pending.values()) {
      cancel();
      done({ lost: true });
    }
    this.#pending.clear();
    this.#pings.splice(0).forEach((done) => done(0));
    this.#waiting = [];
  }

  /** Send a request; `done` gets `{success}`, `{error, code}` or `{lost}`. */
  request(event, members, done = () => {}) {
    const id = ++this.#id;
    const cancel = later(ANSWER_WITHIN, () => this.answer(id, event, { error: NO_ANSWER, silent: true }));
    this.#pending.set(id, { event, done, cancel });
    this.#waiting.push(JSON.stringify({ event, ...members, id }));
    this.#pump();
  }

  /** Give a reply to the request that it belongs to, by id or else by kind; false: to none. */
  answer(id, event, reply) {
    if (id === undefined) {
      for (const [each, request] of this.#pending) {
        if (event && request.event !== event) continue;
        id = each;
        break;
      }
    }
    const request = this.#pending.get(id);
    if (!request) return false;
    this.#pending.delete(id);
    request.cancel();
    request.done(reply);
    return true;
  }

  awaits(id) {
    return this.#pending.has(id);
  }

  /** Send the text `ping`; resolves to the round trip, rejects without an answer in time. */
  ping(within) {
    return new Promise((resolve, reject) => {
      const sent = Date.now();
      const heard = this.heardAt;
      const cancel = later(within, () => {
        // what was heard may have lain here since before; and the page may have slept
        const isOpen = this.heardAt > heard || Date.now() - sent > 2 * within;
        if (isOpen) this.ping(within).then(resolve, reject);
        else reject(new Error("no pong"));
      });
      this.#pings.push((at) => {
        cancel();
        if (at) resolve(at - sent);
        else reject(new Error("closed"));
      });
      this.#allowed -= 1;
      this.#socket.send("ping");
    });
  }

  #watch() {
    this.#timers.idle = later(IDLE_AFTER, () => {
      const hidden = globalThis.document?.visibilityState === "hidden";
      if (!hidden && Date.now() - this.heardAt >= IDLE_AFTER) this.probe(OPEN_WITHIN);
      this.#watch();
    });
  }

  /** Give the connection up unless it answers. */
  probe(within = PROBE_WITHIN) {
    this.ping(within).catch((error) => {
      if (error.message === "no pong") this.fail(1006, "the server is silent");
    });
  }

  #pump() {
    const now = Date.now();
    this.#allowed = Math.min(BURST, this.#allowed + ((now - this.#countedAt) * PER_SECOND) / 1000);
    this.#countedAt = now;
    for (; this.#allowed >= 1 && this.#waiting.length; this.#allowed -= 1) {
      this.#socket.send(this.#waiting.shift());
    }
    this.#cancel("pace");
    if (this.#waiting.length) this.#timers.pace = later(1000 / PER_SECOND, () => this.#pump());
  }

  #cancel(name) {
    this.#timers[name]?.();
    this.#timers[name] = null;
  }
}

/** A connection that comes back, with all that is wanted of it. */
export class Rango extends Emitter {
  #url;
  #options;
  #state = "disconnected";
  #wanted = false;
  #link = null;
  #turn = 0; // counts attempts: what belongs to an older one is ignored
  #attempts = 0;
  #attemptedAt = 0;
  #opening = false; // a token is being fetched for a connection
  #retry = null;
  #entries = new Map();
  #routes = new Map();
  #syncing = false;
  #fetching = null;
  #renewal = null;
  #renewAt = 0;
  #at = ""; // position of all that is subscribed; empty: the server tells none
  #badTokens = 0;
  #numbered = null; // the server speaks rango.v1; null: not known yet
  #plain = false; // connect without a subprotocol: browsers end one that the server does not name
  #hasSnapshots = true;
  #hiddenAt = 0;
  #unlisten = [];
  #tabs = null;

  lastError = "";
  uid = null;

  constructor(url, options = {}) {
    super();
    this.#options = {
      getToken: null,
      minReconnectDelay: 1_000,
      maxReconnectDelay: 30_000,
      maxMessageBytes: 0,
      WebSocket: globalThis.WebSocket,
      shared: false,
      ...options,
    };
    if (!globalThis.navigator?.locks) this.#options.shared = false; // Node, or a page without TLS
    this.#url = endpoint(url);
  }

  get state() {
    return this.#state;
  }

  connect() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempts = 0;
    this.#listen();
    this.#enter();
  }

  #enter() {
    if (!this.#options.shared) return void this.#open();
    this.#become("connecting");
    this.#tabs = new Tabs(this.#options.shared, this.#url.href, this.#hooks());
  }

  close() {
    if (this.#wanted) this.#stop(1000, "closed by the client");
  }

  disconnect() {
    this.close();
  }

  subscribe(stream) {
    let entry = this.#entries.get(stream);
    if (!entry) {
      entry = { name: stream, state: "subscribing", asked: false, error: "", since: "", fresh: false, holders: new Set() };
      this.#entries.set(stream, entry);
      for (const route of routesOf(stream)) {
        if (!this.#routes.has(route)) this.#routes.set(route, new Set());
        this.#routes.get(route).add(entry);
      }
    }
    if (entry.state === "refused") this.#reset(entry); // somebody wants it again: ask again
    const holder = new Subscription(entry, (gone) => {
      entry.holders.delete(gone);
      this.#sync();
    });
    entry.holders.add(holder);
    this.#sync();
    return holder;
  }

  book(market, options) {
    return new Book(this, market, options);
  }

  ping() {
    if (this.#state !== "connected" || !this.#link) return Promise.reject(new Error("not connected"));
    return this.#link.ping(PROBE_WITHIN);
  }

  authenticate() {
    return this.#renew();
  }

  // -- one connection

  async #open() {
    const turn = ++this.#turn;
    this.#retry?.();
    this.#retry = null;
    this.#attemptedAt = Date.now();
    if (this.#state !== "connecting") this.#become("connecting");
    if (turn !== this.#turn) return; // a listener closed it
    let token = "";
    this.#opening = true;
    try {
      token = await this.#token();
    } catch (error) {
      if (turn === this.#turn) this.#withoutToken(error);
      return;
    } finally {
      if (turn === this.#turn) this.#opening = false;
    }
    if (turn !== this.#turn) return;
    const offered = TOKEN_CHARACTERS.test(token) && !this.#plain;
    const protocols = this.#plain ? [] : offered ? ["rango.v1", `bearer.${token}`] : ["rango.v1"];
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#url.href, protocols);
    } catch (error) {
      this.#stop(1006, "no WebSocket", String(error.message));
      return;
    }
    this.#link = new Link(socket, {
      open: (link) => this.#opened(link, token, offered),
      text: (link, text) => this.#take(link, text),
      lost: (link, code, reason) => this.#lost(link, code, reason),
    });
  }

  #opened(link, token, offered) {
    this.#numbered = link.protocol === "rango.v1";
    this.#hasSnapshots = true;
    this.#become("connected");
    if (link !== this.#link) return; // a listener closed it
    if (token) this.#introduce(link, token, offered);
    this.#sync();
  }

  #lost(link, code, reason) {
    const lived = link.openedAt ? Date.now() - link.openedAt : 0;
    this.#link = null;
    this.#lapse();
    if (NEVER.has(code) || (code === 4401 && !this.#options.getToken)) {
      this.#stop(code, reason);
      return;
    }
    this.lastError = ADVICE[code] ?? `The connection was closed (${code} ${reason}). It is made anew.`;
    if (!link.openedAt && (this.#numbered !== true || this.#attempts > 5)) {
      this.#plain = this.#numbered === false || !this.#plain; // it may name no subprotocol
      if (this.#plain && this.#numbered === null && !this.#attempts) return void this.#open();
    }
    if (lived > STEADY_AFTER) this.#attempts = 0;
    const calm = NOW.has(code) && lived > STEADY_AFTER / 2;
    this.#wait(calm ? between(0, 100) : this.#backoff(), code, reason);
  }

  #backoff() {
    const { minReconnectDelay, maxReconnectDelay } = this.#options;
    const most = Math.min(maxReconnectDelay, minReconnectDelay * 2 ** Math.min(this.#attempts, 30));
    this.#attempts += 1;
    return between(Math.min(100, most / 10), most);
  }

  #wait(ms, code, reason) {
    const hidden = this.#hiddenForLong();
    const turn = this.#turn;
    this.#become("connecting", { code, reason: hidden ? `${reason} (waiting for the page to be seen)` : reason, retryIn: hidden ? null : ms });
    if (hidden || turn !== this.#turn) return; // `#wake` goes on, or a listener closed it
    this.#retry = later(ms, () => {
      this.#retry = null;
      if (this.#hiddenForLong()) this.#become("connecting", { code, reason, retryIn: null });
      else this.#open();
    });
  }

  /** Expect all again that ended with the connection. */
  #lapse() {
    this.#renewal?.();
    this.#renewal = this.uid = null;
    this.#renewAt = 0;
    for (const entry of this.#entries.values()) this.#reset(entry);
    this.#at = "";
  }

  #stop(code, reason, words = ADVICE[code] ?? reason) {
    this.#wanted = false;
    this.lastError = code === 1000 ? "" : words;
    this.#leave();
    this.#unlisten.splice(0).forEach((off) => off());
    this.#become("disconnected", { code, reason });
  }

  /** Let go of the connection, or of the attempt to make one. */
  #drop() {
    this.#turn += 1;
    this.#opening = false;
    this.#retry?.();
    this.#retry = null;
    this.#link?.end();
    this.#link = null;
    this.#lapse();
  }

  #leave() {
    this.#drop();
    this.#tabs?.leave();
    this.#tabs = null;
  }

  #become(newState, { code = 0, reason = "", retryIn = null } = {}) {
    const oldState = this.#state;
    this.#state = newState;
    const event = { newState, oldState, code, reason, retryIn };
    this.#tabs?.tell({ state: event, lastError: this.lastError });
    this._emit("state", event);
  }

  // -- what the server says

  #take(link, text) {
    if (link !== this.#link) return;
    const at = POSITION.exec(text.slice(-50))?.[1];
    const raw = at ? `${text.slice(0, -9 - at.length)}}` : text;
    let message;
    try {
      message = JSON.parse(raw);
    } catch {
      return;
    }
    const { success, error, event, id } = message ?? {};
    if (id !== undefined) this.#plain = false; // it knows more than Rango: ask by subprotocol next time
    if (typeof success?.message === "string") this.#succeed(link, success, id);
    else if (typeof error === "string" || typeof error?.message === "string") this.#fail(link, error.message ?? error, message.code, id);
    else if (typeof event === "string") this.#notice(message, at);
    else this._deliver(message, raw, at);
  }

  _deliver(message, raw, at) {
    for (const stream in message) {
      const entries = [...(this.#routes.get(stream) ?? [])];
      // a book that is sent afresh begins with positions of long ago
      const position = entries.some(({ fresh }) => fresh) ? "" : at;
      for (const entry of entries) {
        if (position && entry.state === "subscribed") this.#at = position;
        else if (entry.since && at) entry.since = stream.endsWith("-snap") ? "" : at; // missed before, told now
        for (const holder of [...entry.holders]) holder._emit("publication", { stream, data: message[stream], raw });
      }
      this.#tabs?.tell({ raw, at: position });
      return; // the first member is the event
    }
  }

  #stand(at) {
    this.#at = at;
    this.#tabs?.tell({ stands: at });
  }

  #succeed(link, success, id) {
    const kind = { subscribed: "subscribe", unsubscribed: "unsubscribe", authenticated: "auth" }[success.message] ?? success.message;
    const unasked = id === undefined && (this.#numbered || (kind === "subscribe" && !link.greeted));
    link.greeted = true;
    if (success.at !== undefined) this.#stand(success.at ?? "");
    if (!unasked && link.answer(id, kind, { success })) return;
    if (kind === "unsubscribe") this.#dropped(new Set(success.streams));
  }

  #fail(link, text, code, id) {
    if (id === undefined && text.startsWith("authentication failed")) return void this.#refusedToken(text, code);
    if (text.startsWith("Too many requests")) return void this.#complain(text);
    if (code >= 1300 && code < 1400 && link.awaits(id)) return; // the reply follows, and its list lacks the name
    if (id !== undefined || !this.#numbered) link.answer(id, null, { error: text, code });
  }

  #notice({ event, streams = [], in: seconds, reason }, at = "") {
    if (event === "resync") this._resync(streams);
    if (event === "position") this.#stand(at);
    if (event === "position" && !at) this.#complain(`Events may have been missed: ${reason}.`);
    if (event !== "auth_expiring" || (this.#renewAt && this.#renewAt < Date.now() + seconds * 1000)) return;
    this.#renewIn(between(0, Math.min(seconds * 500, 10_000)), true);
  }

  _resync(streams) {
    this.#tabs?.tell({ resync: streams });
    for (const name of streams) for (const holder of this.#entries.get(name)?.holders ?? []) holder._emit("resync", {});
  }

  #complain(message) {
    this.lastError = message;
    this._emit("error", { message });
  }

  // -- subscriptions

  #sync() {
    if (this.#syncing) return;
    this.#syncing = true;
    queueMicrotask(() => {
      this.#syncing = false;
      this.#reconcile();
    });
  }

  /** Bring what the server holds for us to what is wanted. */
  #reconcile() {
    const link = this.#state === "connected" ? this.#link : null;
    const gone = [...this.#entries.values()].filter((entry) => !entry.holders.size);
    for (const entry of gone) {
      this.#entries.delete(entry.name);
      for (const route of routesOf(entry.name)) {
        this.#routes.get(route).delete(entry);
        if (!this.#routes.get(route).size) this.#routes.delete(route);
      }
    }
    if (this.#tabs) this.#tabs.want([...this.#entries.keys()]);
    if (!link) return;
    for (const chunk of this.#chunks(gone.filter(({ asked }) => asked))) link.request("unsubscribe", { streams: namesOf(chunk) });
    const fresh = [...this.#entries.values()].filter(({ asked }) => !asked);
    for (const since of new Set(fresh.map((entry) => entry.since))) {
      for (const chunk of this.#chunks(fresh.filter((entry) => entry.since === since))) this.#ask(link, chunk, since);
    }
  }

  /** Cut by bytes: the server bounds a message (Rango at 512). */
  *#chunks(entries) {
    const most = (this.#options.maxMessageBytes || (this.#numbered ? 8192 : 512)) - 120;
    let chunk = [];
    let size = 0;
    for (const entry of entries) {
      const more = bytesOf(JSON.stringify(entry.name)) + 1;
      if (chunk.length && size + more > most) {
        yield chunk;
        chunk = [];
        size = 0;
      }
      chunk.push(entry);
      size += more;
    }
    if (chunk.length) yield chunk;
  }

  #ask(link, chunk, since) {
    for (const entry of chunk) entry.asked = true;
    link.request("subscribe", { streams: namesOf(chunk), since: since || undefined }, (reply) => {
      if (link !== this.#link || reply.lost) return;
      if (reply.success) return this.#settle(chunk, reply.success, since);
      const wanted = chunk.filter((entry) => this.#entries.get(entry.name) === entry);
      if (reply.silent) for (const entry of wanted) entry.asked = false;
      else if (wanted.length === 1) this.#refuse(wanted[0], reply.error);
      else if (wanted.length) this.#halves(link, wanted, since); // one bad name fails alone
      if (reply.silent) this.#sync();
    });
  }

  #halves(link, entries, since) {
    const middle = Math.ceil(entries.length / 2);
    this.#ask(link, entries.slice(0, middle), since);
    this.#ask(link, entries.slice(middle), since);
  }

  #settle(chunk, { streams, recovered = false, reason = "", events = 0 }, since) {
    const held = new Set(streams);
    const more = { wasRecovering: !!since, recovered, reason, events };
    for (const entry of chunk) {
      if (this.#entries.get(entry.name) !== entry) continue;
      if (held.has(entry.name)) this.#shift(entry, "subscribed", "", more);
      else this.#refuse(entry, refusalOf(entry.name, this.#options.getToken));
    }
  }

  #shift(entry, state, error = "", more = {}) {
    const changed = entry.state !== state;
    entry.state = state;
    entry.error = error;
    if (!changed) return;
    this.#tabs?.tell({ stream: entry.name, is: state, error, more });
    const type = state === "refused" ? "error" : state === "subscribing" ? "unsubscribed" : state;
    for (const holder of [...entry.holders]) holder._emit(type, { message: error, ...more });
  }

  #refuse(entry, error) {
    if (!this.#link?.refused) this.lastError = error; // else it only follows from the token's refusal
    entry.since = "";
    this.#shift(entry, "refused", error);
  }

  #reset(entry) {
    if (entry.state === "subscribed") entry.since = entry.fresh ? "" : this.#at;
    entry.asked = entry.fresh = false;
    this.#shift(entry, "subscribing", "", { recovering: !!entry.since });
  }

  /** The server took streams away, after another user or role came. */
  #dropped(held) {
    for (const entry of this.#entries.values()) {
      if (entry.state === "subscribed" && !held.has(entry.name)) this.#refuse(entry, refusalOf(entry.name, true));
    }
  }

  _entryState(stream, state, error, more) {
    const entry = this.#entries.get(stream);
    if (entry && state === "subscribing") this.#reset(entry);
    else if (entry) this.#shift(entry, state, error, more);
  }

  /** Have a book sent afresh on this connection. */
  _refresh(stream) {
    if (this.#tabs && !this.#tabs.leads) return this.#tabs.refresh(stream);
    const link = this.#link;
    if (!link || this.#state !== "connected") return undefined;
    if (!this.#hasSnapshots) return this.#again(link, stream);
    const entry = this.#entries.get(stream) ?? {};
    entry.fresh = true;
    return link.request("snapshot", { streams: [stream] }, ({ error, lost }) => {
      if (!lost) entry.fresh = false;
      if (!error || !UNKNOWN_REQUEST.test(error) || link !== this.#link) return;
      this.#hasSnapshots = false;
      this.#again(link, stream);
    });
  }

  #again(link, stream) {
    link.request("unsubscribe", { streams: [stream] });
    link.request("subscribe", { streams: [stream] });
  }

  // -- tokens

  /** Fetch a token, one fetch at a time; empty without a getter. */
  #token() {
    const { getToken } = this.#options;
    if (!getToken) return "";
    this.#fetching ??= new Promise((resolve, reject) => {
      const cancel = later(TOKEN_WITHIN, () => reject(new Error("getToken took too long")));
      Promise.resolve()
        .then(() => getToken())
        .then((token) => resolve(String(token ?? "").trim().replace(/^Bearer\s+/i, "")), reject)
        .finally(cancel);
    }).finally(() => (this.#fetching = null));
    return this.#fetching;
  }

  #withoutToken(error) {
    const message = String(error?.message ?? error);
    if (error?.name === "UnauthorizedError") return this.#stop(4401, message, message);
    this.#complain(`No token could be had: ${message}`);
    return this.#wait(this.#backoff(), 0, `no token: ${message}`);
  }

  async #renew(ends) {
    if (this.#tabs && !this.#tabs.leads) return this.#tabs.wake(true);
    const link = this.#link;
    this.#renewal?.();
    this.#renewal = null;
    if (!link || this.#state !== "connected") return undefined;
    try {
      const token = await this.#token();
      if (link !== this.#link) return undefined;
      if (token) this.#present(link, token);
      else if (ends) link.fail(4401, "the cookie is renewed"); // only a handshake brings it
    } catch (error) {
      if (link !== this.#link) return undefined;
      if (error?.name === "UnauthorizedError") return this.#stop(4401, error.message, error.message);
      this.#refusedToken(`No token could be had: ${error?.message ?? error}`);
    }
    return undefined;
  }

  #renewIn(ms, ends) {
    this.#renewal?.();
    this.#renewAt = Date.now() + ms;
    this.#renewal = later(ms, () => this.#renew(ends));
  }

  /** Learn who we are and for how long: of a token in the handshake the server says neither. */
  #introduce(link, token, offered) {
    const { uid, exp } = claimsOf(token);
    if (!offered || typeof uid !== "string") return this.#present(link, token, offered);
    return link.request("time", {}, ({ success }) => {
      // by the server's clock; had it refused the token, it would have said so before
      if (success && link === this.#link && !link.refused) this.#authenticated({ uid, ttl: exp ? exp - success.time : null });
    });
  }

  #present(link, token, isKnown) {
    link.request("auth", { token }, ({ success, error, code, silent }) => {
      if (link !== this.#link) return;
      if (success) this.#authenticated(success);
      else if (error && UNKNOWN_REQUEST.test(error)) {
        if (!isKnown) this.#complain("This server takes no token from a page: put a proxy before it that sets the Authorization header.");
      } else if (error || silent) this.#refusedToken(error, code);
    });
  }

  #authenticated({ uid = null, ttl = null }) {
    this.#badTokens = 0;
    this.#link.refused = false;
    this.uid = uid;
    if (ttl !== null) this.#renewIn(Math.max(1_000, ttl * between(700, 900)));
    for (const entry of this.#entries.values()) if (entry.state === "refused") this.#reset(entry);
    this.#sync();
    this._emit("auth", { uid, ttl });
  }

  #refusedToken(text, code = 0) {
    this.#link.refused = true;
    this.#complain(`${text}: getToken must return a token that is valid now.`);
    if (code === 1208 || /revoked/.test(text) || !this.#options.getToken) return;
    this.#badTokens += 1;
    this.#renewIn(this.#badTokens === 1 ? between(0, 1_000) : between(5_000, Math.min(60_000, 5_000 * 2 ** this.#badTokens)));
  }

  // -- the page

  #listen() {
    const page = globalThis.document;
    const wake = () => this.#wake();
    const listen = (target, type, listener) => {
      if (!target?.addEventListener) return;
      target.addEventListener(type, listener);
      this.#unlisten.push(() => target.removeEventListener(type, listener));
    };
    this.#hiddenAt = page?.visibilityState === "hidden" ? Date.now() : 0;
    listen(page, "visibilitychange", () => {
      this.#hiddenAt = page.visibilityState === "hidden" ? Date.now() : 0;
      wake();
    });
    if (!page) return; // Node has events of these names for other ends
    listen(globalThis, "online", wake);
    listen(globalThis, "pageshow", wake);
    listen(globalThis, "pagehide", () => {
      this.#leave();
      this.#become("connecting", { reason: "the page is left" });
    });
  }

  #hiddenForLong() {
    if (this.#tabs) return false; // another tab may be looked at
    return this.#hiddenAt > 0 && Date.now() - this.#hiddenAt > HIDDEN_FOR_LONG;
  }

  /** Look after the connection: the page is seen again, shown again, or back on the network. */
  #wake(anyway = false) {
    if (!this.#wanted || (this.#hiddenAt && !anyway)) return undefined;
    if (this.#options.shared && !this.#tabs) return this.#enter();
    if (this.#tabs && !this.#tabs.leads) return this.#tabs.wake(false);
    if (this.#link) return this.#state === "connected" ? this.#link.probe() : undefined;
    if (this.#opening) return undefined;
    if (Date.now() - this.#attemptedAt > 1_000) return void this.#open();
    return this.#retry ? undefined : this.#wait(1_000, 0, "the page is shown");
  }

  // -- one connection for many tabs

  #hooks() {
    return {
      lead: () => {
        this.#drop();
        this.#open();
      },
      yield: () => {
        this.#drop();
        this.#become("connecting");
      },
      hold: (stream) => {
        const held = this.#entries.get(stream)?.asked;
        const holder = this.subscribe(stream);
        if (held && stream.endsWith("-inc")) this._refresh(stream); // its snapshot was sent before
        return holder;
      },
      refresh: (stream) => this._refresh(stream),
      wake: (renew) => (renew ? this.#renew() : this.#wake(true)),
      now: () => ({
        state: { newState: this.#state, oldState: this.#state, code: 0, reason: "", retryIn: null },
        lastError: this.lastError,
        streams: [...this.#entries.values()].map(({ name, state, error }) => [name, state, error]),
      }),
      follow: ({ state, lastError, streams = [], stream, is, error, more, raw, at, stands, resync }) => {
        if (raw) this._deliver(JSON.parse(raw), raw, at);
        this.#at = stands ?? this.#at;
        if (resync) this._resync(resync);
        if (state) {
          this.lastError = lastError;
          if (state.newState !== "connected") this.#lapse();
          this.#become(state.newState, state);
        }
        for (const each of stream ? [[stream, is, error, more]] : streams) this._entryState(...each);
      },
    };
  }
}

/** Tabs that share a connection: who holds a Web Lock leads and tells, the others follow and want. */
class Tabs {
  leads = false;
  #id = Math.random().toString(36).slice(2);
  #key;
  #channel;
  #hooks;
  #wanted = [];
  #others = new Map(); // by id: stream to the subscription that is held for it
  #release = [];
  #leader = null;
  #doubt = null;
  #left = new AbortController();

  constructor(shared, url, hooks) {
    this.#key = `rango:${shared === true ? url : shared}`;
    this.#hooks = hooks;
    this.#channel = new BroadcastChannel(this.#key);
    this.#channel.onmessage = ({ data }) => (this.leads ? this.#serve(data) : this.#follow(data));
    // held for the life of the tab: the leader is granted it when the tab is gone
    this.#hold(`${this.#key}:${this.#id}`, () => this.#post({ want: this.#wanted })).catch(() => {});
    this.#lead();
  }

  tell(news) {
    if (this.leads) this.#channel.postMessage({ news, lead: this.#id });
  }

  want(streams) {
    this.#wanted = streams;
    this.#post({ want: streams });
  }

  refresh(stream) {
    this.#post({ refresh: stream });
  }

  wake(renew) {
    this.#post({ wake: true, renew });
    // phones stop tabs that are not looked at, and a stopped tab keeps its locks
    this.#doubt ??= later(PROBE_WITHIN, () => this.#lead({ steal: true }));
  }

  leave() {
    this.#left.abort();
    this.#trust();
    this.#post({ want: [] });
    [...this.#others.keys()].forEach((from) => this.#forget(from));
    this.#release.forEach((release) => release());
    this.#channel.close();
    this.#channel.onmessage = null;
  }

  #post(message) {
    if (!this.leads) this.#channel.postMessage({ from: this.#id, ...message });
  }

  #lead(options) {
    this.#trust();
    const lead = () => {
      this.leads = true;
      this.#channel.postMessage({ lead: this.#id });
      this.#hooks.lead();
    };
    this.#hold(this.#key, lead, options).catch(() => {
      if (!this.leads || this.#left.signal.aborted) return;
      this.leads = false; // this tab was stopped, and another has taken over meanwhile
      this.#leader = null;
      [...this.#others.keys()].forEach((from) => this.#forget(from));
      this.#hooks.yield();
      this.#lead();
      this.#post({ want: this.#wanted });
    });
  }

  /** Hold a lock until this tab leaves; rejects when it is left before, or stolen. */
  async #hold(name, granted, options = { signal: this.#left.signal }) {
    await navigator.locks.request(name, options, () => {
      if (this.#left.signal.aborted) return undefined;
      granted();
      return new Promise((release) => this.#release.push(release));
    });
  }

  #trust() {
    this.#doubt?.();
    this.#doubt = null;
  }

  #forget(from) {
    for (const holder of this.#others.get(from)?.values() ?? []) holder.unsubscribe();
    this.#others.delete(from);
  }

  #follow({ lead, news }) {
    if (!lead) return;
    if (!news) this.#leader = lead;
    this.#leader ??= lead;
    if (lead !== this.#leader) return; // it was stopped, and does not know yet that another leads
    this.#trust();
    if (!news) this.#post({ want: this.#wanted });
    else if (!news.to || news.to === this.#id) this.#hooks.follow(news);
  }

  #serve({ from, want, refresh, wake, renew }) {
    if (!from) return;
    if (want) this.#serveWants(from, new Set(want));
    if (refresh) this.#hooks.refresh(refresh);
    if (!wake) return;
    this.tell({ to: from });
    this.#hooks.wake(renew);
  }

  #serveWants(from, want) {
    if (!this.#others.has(from)) {
      this.#others.set(from, new Map());
      navigator.locks
        .request(`${this.#key}:${from}`, { signal: this.#left.signal }, () => this.#forget(from)) // it is gone
        .catch(() => {});
    }
    const held = this.#others.get(from);
    for (const [stream, holder] of held) if (!want.has(stream) && held.delete(stream)) holder.unsubscribe();
    for (const stream of want) if (!held.has(stream)) held.set(stream, this.#hooks.hold(stream));
    if (want.size) this.tell({ to: from, ...this.#hooks.now() });
  }
}

/** An order book from snapshot and increments. What may lie behind a full snapshot is not shown. */
export class Book extends Emitter {
  #rango;
  #subscription;
  #depth;
  #full;
  #sides = { asks: new Map(), bids: new Map() };
  #horizon = { asks: Infinity, bids: -Infinity };
  #sorted = { asks: null, bids: null };
  #retry = null;
  #wait = 0;
  #lostAt = 0;
  #lapsed = false; // right up to where the connection was lost; what was missed comes first

  state = "waiting";
  sequence = null;
  reason = "";

  constructor(rango, market, { depth = Infinity, type = "ob", snapshotLevels = 300 } = {}) {
    super();
    this.#rango = rango;
    this.#depth = depth;
    this.#full = snapshotLevels;
    this.market = market;
    this.#subscription = rango.subscribe(`${market}.${type}-inc`);
    this.#subscription.on("publication", ({ stream, data }) => (stream.endsWith("-snap") ? this.#begin(data) : this.#apply(data)));
    this.#subscription.on("unsubscribed", ({ recovering }) => {
      const lapsed = recovering && (this.#lapsed || this.state === "synced");
      this.#invalidate("disconnected");
      this.#lapsed = lapsed;
    });
    this.#subscription.on("subscribed", ({ recovered }) => {
      if (recovered && this.#lapsed) this.#begun();
      else if (recovered && this.state !== "synced") this.#ask(); // it gets only what it missed
      this.#lapsed = false;
    });
    this.#subscription.on("error", ({ message }) => this.#invalidate(message));
    this.#subscription.on("resync", () => this.#invalidate("the server waits for the next snapshot"));
  }

  get asks() {
    return this.#levels("asks", (a, b) => a - b);
  }

  get bids() {
    return this.#levels("bids", (a, b) => b - a);
  }

  get complete() {
    const whole = (side) => !Number.isFinite(this.#horizon[side]) || this[side].length >= this.#depth;
    return { asks: whole("asks"), bids: whole("bids") };
  }

  close() {
    this.#retry?.();
    this.#subscription.unsubscribe();
  }

  #levels(side, order) {
    const edge = this.#horizon[side];
    this.#sorted[side] ??= [...this.#sides[side].values()]
      .filter(([price]) => (side === "asks" ? price <= edge : price >= edge))
      .sort(([a], [b]) => order(a, b))
      .slice(0, this.#depth);
    return this.#sorted[side];
  }

  #begin(snapshot) {
    this.#retry?.();
    this.#retry = null;
    for (const side of ["asks", "bids"]) {
      const none = side === "asks" ? Infinity : -Infinity;
      this.#sides[side].clear();
      this.#sorted[side] = null;
      this.#horizon[side] = none;
      this.#merge(side, snapshot[side]);
      const prices = [...this.#sides[side].values()].map(([price]) => Number(price));
      if (prices.length >= this.#full) this.#horizon[side] = side === "asks" ? Math.max(...prices) : Math.min(...prices);
    }
    this.sequence = snapshot.sequence ?? null;
    this.#begun();
  }

  #begun() {
    this.#lapsed = false;
    this.state = "synced";
    this.reason = "";
    this._emit("sync", this);
  }

  #apply(increment) {
    if (this.state !== "synced" && !this.#lapsed) {
      if (!this.#retry) this.#ask(); // Rango sends no first snapshot to who was early
      return;
    }
    const { sequence = null } = increment;
    if (sequence !== null && this.sequence !== null && sequence !== this.sequence + 1) {
      this.#invalidate(`event ${this.sequence + 1} is missing before ${sequence}`);
      this.#ask();
      return;
    }
    this.sequence = sequence;
    this.#merge("asks", increment.asks);
    this.#merge("bids", increment.bids);
    if (this.#lapsed) return;
    this._emit("update", this);
    if (this.#isThin() && !this.#retry) this.#ask();
  }

  /** Tell whether a new snapshot would show more of what is wanted. */
  #isThin() {
    const enough = Math.min(this.#depth, this.#full / 2);
    return ["asks", "bids"].some((side) => Number.isFinite(this.#horizon[side]) && this[side].length < enough);
  }

  #merge(side, levels) {
    if (!levels?.length) return;
    this.#sorted[side] = null;
    for (const level of Array.isArray(levels[0]) ? levels : [levels]) {
      const key = canonical(level[0]);
      if (Number(level[1])) this.#sides[side].set(key, [level[0], level[1]]);
      else this.#sides[side].delete(key); // one that is not known changes nothing
    }
  }

  #invalidate(reason) {
    this.#lapsed = false;
    if (reason === "disconnected") this.#retry = this.#retry?.() ?? null;
    if (this.state === "waiting" || (this.state === "invalid" && this.reason === reason)) return;
    this.state = "invalid";
    this.reason = reason;
    this._emit("invalid", { reason });
  }

  /** Ask for the book again: not at once, since all who hold it see a gap together. */
  #ask() {
    const now = Date.now();
    if (now - this.#lostAt > 60_000) this.#wait = 0;
    this.#lostAt = now;
    this.#wait = Math.min(30_000, Math.max(1_000, this.#wait * 2));
    this.#retry?.();
    this.#retry = later(between(50, this.#wait), () => {
      this.#retry = null;
      this.#rango._refresh(this.#subscription.stream);
      if (this.state === "invalid") this.#ask(); // the gap may be the publisher's, until its next snapshot
    });
  }
}

function endpoint(url) {
  const parsed = new URL(url, globalThis.location?.href);
  parsed.protocol = parsed.protocol.replace(/^http/, "ws");
  if (parsed.pathname === "/") parsed.pathname = "/public";
  for (const wish of ["notices", "resume"]) if (!parsed.searchParams.has(wish)) parsed.searchParams.set(wish, "1");
  return parsed;
}

/** The names that a stream's events come under: a prefix is left out, a book has two. */
function routesOf(stream) {
  const words = stream.split(".");
  if (words.length === 3) return [words.slice(1).join(".")];
  return words.length === 2 && stream.endsWith("-inc") ? [stream, `${stream.slice(0, -3)}snap`] : [stream];
}

const namesOf = (entries) => entries.map(({ name }) => name);

/** What a JWT says; nothing of any other token. */
function claimsOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

function refusalOf(stream, hasToken) {
  return hasToken
    ? `${stream} is not for the user or role of this token.`
    : `${stream} needs a token: give the option getToken.`;
}

/** One text for all writings of a price: "9001.0", "9001.00" and 9001. */
function canonical(price) {
  const text = String(price);
  if (!/^-?\d+(\.\d+)?$/.test(text)) return String(Number(text));
  const short = text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  return short.replace(/^(-?)0+(?=\d)/, "$1");
}
