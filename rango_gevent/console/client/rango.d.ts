/**
 * A client of rango_gevent, and of any Rango, for pages and for Node. Times are milliseconds.
 *
 *   const rango = new Rango("wss://example.org", { getToken: async () => (await fetch("/token")).text() });
 *   rango.on("state", ({ newState, code, reason, retryIn }) => badge(newState));
 *   const sub = rango.subscribe("btcusd.trades");
 *   sub.on("publication", ({ data }) => draw(data));
 *   const book = rango.book("btcusd", { depth: 25 });
 *   book.on("update", render);
 *   rango.connect();
 */

export type State = "disconnected" | "connecting" | "connected";
export type Off = () => void;
export type Level = [price: string, amount: string];

export interface StateEvent {
  newState: State;
  oldState: State;
  /** Close code of the connection before; 0 when there was none. */
  code: number;
  reason: string;
  /** Time until the next try; null when none is planned. */
  retryIn: number | null;
}

export interface Publication<T = any> {
  /** Name that the event came under: of a book `….ob-snap` or `….ob-inc`. */
  stream: string;
  data: T;
  /** The message as it was published, for numbers that JavaScript would round. */
  raw: string;
}

/** What a subscription is told when it holds its stream, again or for the first time. */
export interface SubscribedEvent {
  /** It was held before, on a connection that was lost, and asked for with its position. */
  wasRecovering: boolean;
  /** All that was missed meanwhile came before this, each event once. Else, but for the first time: some may be missing. */
  recovered: boolean;
  /** Else: why not, in the server's word, such as `too_old`; empty when it gave none. */
  reason: string;
  /** Events that were missed and came, of all streams that were asked for together. */
  events: number;
}

export interface Options {
  /** Called before every connection and renewal; throw `UnauthorizedError` to stop. Empty: anonymous. */
  getToken?: (() => Promise<string | null> | string | null) | null;
  /** Longest wait before the first attempt to come back, 1000 by default. */
  minReconnectDelay?: number;
  /** Longest wait before any attempt, 30000 by default. */
  maxReconnectDelay?: number;
  /** Bound on a request; 8192 by default, 512 where the server does not speak rango.v1. */
  maxMessageBytes?: number;
  /** For Node before 22: the class of the package `ws`. */
  WebSocket?: any;
  /** One connection for all tabs of this origin that give the same name (true: the URL). */
  shared?: boolean | string;
}

/** Throw it from `getToken` when the user may not connect: the client stops. */
export class UnauthorizedError extends Error {
  constructor(message?: string);
}

export class Rango {
  /**
   * @param url Of the gateway, `/public` without a path. `notices=1` and `resume=1` are added to its query unless it
   *   names them: with `resume=0` nothing that is missed is asked for again.
   */
  constructor(url: string, options?: Options);
  readonly state: State;
  /** What to do about the last trouble, in words; empty when there was none. */
  readonly lastError: string;
  /** The user of the token that the server took; null before it has, and for anonymous. */
  readonly uid: string | null;
  connect(): void;
  /** End the connection; subscriptions are kept for the next `connect`. */
  close(): void;
  disconnect(): void;
  subscribe<T = any>(stream: string): Subscription<T>;
  book(market: string, options?: BookOptions): Book;
  /** Measure the round trip to the server. */
  ping(): Promise<number>;
  /** Fetch a token now, after a login, and use it on the connection that there is. */
  authenticate(): Promise<void>;
  on(type: "state", listener: (event: StateEvent) => void): Off;
  /** Also told: the server itself missed events. */
  on(type: "error", listener: (event: { message: string }) => void): Off;
  on(type: "auth", listener: (event: { uid: string | null; ttl: number | null }) => void): Off;
}

export class Subscription<T = any> {
  readonly stream: string;
  readonly state: "subscribing" | "subscribed" | "refused" | "unsubscribed";
  /** Why it was refused, in words. */
  readonly lastError: string;
  on(type: "publication", listener: (event: Publication<T>) => void): Off;
  on(type: "subscribed", listener: (event: SubscribedEvent) => void): Off;
  on(type: "unsubscribed" | "resync", listener: () => void): Off;
  on(type: "error", listener: (event: { message: string }) => void): Off;
  unsubscribe(): void;
}

export interface BookOptions {
  /** Levels a side that are shown. */
  depth?: number;
  /** Word of the stream: `<market>.<type>-inc`, `ob` by default. */
  type?: string;
  /** A snapshot with so many levels a side may have left out deeper ones; 300 by default. */
  snapshotLevels?: number;
}

/**
 * An order book from snapshot and increments; one whose connection was lost goes on where all that was missed came.
 *
 * Snapshots of a busy market end at some 300 levels a side, increments touch any: behind a full snapshot's last price
 * other levels may exist that nobody told us. They are not shown.
 */
export class Book {
  readonly market: string;
  readonly state: "waiting" | "synced" | "invalid";
  /** Number of the last event; null when the publisher numbers none. */
  readonly sequence: number | null;
  /** Why it is invalid. */
  readonly reason: string;
  /** Levels best first, as they were published. */
  readonly asks: Level[];
  readonly bids: Level[];
  /** Whether all levels up to the depth are known. */
  readonly complete: { asks: boolean; bids: boolean };
  on(type: "sync" | "update", listener: (book: Book) => void): Off;
  on(type: "invalid", listener: (event: { reason: string }) => void): Off;
  close(): void;
}
