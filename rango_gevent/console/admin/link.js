// The connection of the page: logs in in band, asks, is told; comes back by itself.

const LEAST_WAIT = 500;
const MOST_WAIT = 15_000;
const ANSWER = 5_000;
const NEVER = new Set([4403]); // the role is not an administrator's, or was taken away
const TOKEN = new Set([4401]);

export class Link extends EventTarget {
  #url;
  #token = "";
  #socket = null;
  #asked = new Map();
  #number = 0;
  #wait = LEAST_WAIT;
  #timer = 0;
  state = "disconnected";

  constructor(url) {
    super();
    this.#url = url;
  }

  /** Log in with a token, or renew with a new one. */
  async logIn(token) {
    this.#token = token;
    if (this.state === "connected") return this.#tellWho(await this.ask("auth", { token }));
    this.#wait = LEAST_WAIT;
    this.#connect();
    return undefined;
  }

  logOut(reason = "logged out") {
    this.#token = "";
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#lose(reason);
  }

  /** Ask, and resolve with the reply's content. */
  ask(event, fields = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("not connected"));
    const id = (this.#number += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        reject(new Error("no answer in time"));
      }, ANSWER);
      this.#asked.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ event, ...fields, id }));
    });
  }

  #connect() {
    clearTimeout(this.#timer);
    const old = this.#socket;
    this.#socket = null;
    old?.close();
    const socket = new WebSocket(this.#url, ["rango.v1"]);
    this.#socket = socket;
    this.#become("connecting", "logging in …");
    socket.onopen = async () => {
      try {
        const who = await this.ask("auth", { token: this.#token });
        if (socket !== this.#socket) return;
        this.#wait = LEAST_WAIT;
        this.#tellWho(who);
      } catch (error) {
        if (socket === this.#socket && error.code) this.logOut(error.message); // else the close tells
      }
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#closed(code, reason);
  }

  #tellWho({ uid, ttl }) {
    this.#become("connected", `logged in as ${uid}`);
    this.dispatchEvent(Object.assign(new Event("login"), { uid, ttl }));
  }

  #hear(message) {
    const asked = this.#asked.get(message.id);
    if (asked) {
      this.#asked.delete(message.id);
      clearTimeout(asked.timer);
      if (message.success) asked.resolve(message.success);
      else asked.reject(Object.assign(new Error(message.error), { code: message.code }));
    } else if (message.event) {
      this.dispatchEvent(Object.assign(new Event(message.event), { detail: message }));
    }
  }

  #closed(code, reason) {
    const words = `${code}${reason ? `: ${reason}` : ""}`;
    this.#socket = null;
    if (NEVER.has(code) || TOKEN.has(code)) {
      this.#token = "";
      this.#lose(`closed with ${words}`);
      return;
    }
    const wait = this.#wait * (0.5 + Math.random() / 2);
    this.#wait = Math.min(MOST_WAIT, this.#wait * 2);
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#drop();
    this.#become("connecting", `lost (${words}), next try in ${(wait / 1000).toFixed(1)} s`);
  }

  #lose(words) {
    this.#drop();
    this.#become("disconnected", words);
  }

  #drop() {
    for (const { reject, timer } of this.#asked.values()) {
      clearTimeout(timer);
      reject(new Error("the connection was lost"));
    }
    this.#asked.clear();
  }

  #become(state, words) {
    this.state = state;
    this.dispatchEvent(Object.assign(new Event("state"), { state, words }));
  }
}
