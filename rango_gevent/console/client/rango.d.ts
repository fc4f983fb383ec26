/** A client of rango_gevent, and of any Rango, for pages and for Node. Times are milliseconds. */

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
  /** The whole message as it came, for numbers that JavaScript would round. */
  raw: string;
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

export class UnauthorizedError extends Error {
  constructor(message?: string);
}

export class Rango {
  constructor(url: string, options?: Options);
  readonly state: State;
  /** What to do about the last trouble, in words; empty when there was none. */
  readonly lastError: string;
  /** The user that the server named when a token was renewed; null when it did not say. */
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
  on(type: "error", listener: (event: { message: string }) => void): Off;
  on(type: "auth", listener: (event: { uid: string | null; ttl: number | null }) => void): Off;
}

export class Subscription<T = any> {
  readonly stream: string;
  readonly state: "subscribing" | "subscribed" | "refused" | "unsubscribed";
  /** Why it was refused, in words. */
  readonly lastError: string;
  on(type: "publication", listener: (event: Publication<T>) => void): Off;
  on(type: "subscribed" | "unsubscribed" | "resync", listener: () => void): Off;
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
