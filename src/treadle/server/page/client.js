// A client of the HTTP API for browsers and for node: requests, and streams that resume exactly.
//
//     import { Client } from "/client.js";
//
//     const client = new Client({ url: "http://127.0.0.1:8000", key: "…" });
//     const thread = await client.post("/threads", {});
//     const sent = await client.post(`/threads/${thread.id}/messages`, { message: "Hello" });
//     for await (const texts of client.texts(`/runs/${sent.run_id}/events`)) {
//       show(texts.join("\n\n")); // whole texts, as far as they have come
//     }
//
// `client.text(path)` waits for the end of the run and returns its text, `client.events(path)` gives
// every event with its position, and `Texts` folds events that come in another way, such as those of
// an EventSource.

const PREFIX = "/api/v1";
const FIRST_PAUSE = 250; // milliseconds
const LONGEST_PAUSE = 5_000;
const SILENCE = 45_000; // the server sends a comment every 15 s

/** An answer of the server with a status of 400 or above. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, detail?: string, title?: string, retryable?: boolean}} fields
   */
  constructor(status, fields) {
    super(fields.detail || fields.title || `The server answered with ${status}.`);
    this.name = "Problem";
    this.status = status;
    this.code = fields.code ?? "";
    this.retryable = fields.retryable ?? false;
  }
}

/** The API at an address. In a page of the server itself neither address nor key are needed. */
export class Client {
  #url;
  #key;

  /** @param {{url?: string, key?: string}} [options] */
  constructor({ url = "", key = "" } = {}) {
    this.#url = url.replace(/\/$/, "");
    this.#key = key;
  }

  /** @param {string} path @param {object} [query] */
  get(path, query) {
    return this.request("GET", path, { query });
  }

  /** @param {string} path @param {object} [body] @param {{idempotencyKey?: string}} [options] */
  post(path, body = {}, options = {}) {
    return this.request("POST", path, { body, ...options });
  }

  /**
   * Sends a request under `/api/v1` and returns its JSON; null for an answer without one.
   *
   * A body that is a `Blob`, such as a file, is sent as it is. Throws `Problem`, and `TypeError` if
   * the server cannot be reached.
   *
   * @param {string} method
   * @param {string} path
   * @param {{query?: object, body?: object | Blob, idempotencyKey?: string, signal?: AbortSignal}} [options]
   */
  async request(method, path, { query, body, idempotencyKey, signal } = {}) {
    const headers = this.#headers();
    const isBytes = body instanceof Blob;
    if (body !== undefined && !isBytes) headers["content-type"] = "application/json";
    if (idempotencyKey) headers["idempotency-key"] = idempotencyKey;
    const sent = body === undefined || isBytes ? body : JSON.stringify(body);
    const response = await fetch(this.address(path, query), { method, headers, body: sent, signal });
    await throwProblem(response);
    const text = await response.text();
    return text ? JSON.parse(text) : null;
  }

  /** Returns the URL of a path. @param {string} path @param {object} [query] */
  address(path, query = {}) {
    const given = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      for (const one of [value].flat()) if (one !== undefined && one !== null) given.append(name, one);
    }
    const text = given.toString();
    return `${this.#url}${PREFIX}${path}${text && `?${text}`}`;
  }

  /**
   * Yields `{event, position}` of a route of events, from each connection as from one.
   *
   * A connection that breaks is made again, from the position of the last event. It ends with the
   * terminal event of a run, the deletion of a thread, and `signal`. Throws `Problem` for what no
   * repetition can help.
   *
   * @param {string} path
   * @param {{after?: string, from?: "start" | "now" | "state", signal?: AbortSignal,
   *   onStatus?: (status: StreamStatus) => void}} [options]
   * @returns {AsyncGenerator<{event: any, position: string}>}
   */
  async *events(path, options = {}) {
    const frames = new FrameQueue();
    const stream = this.follow(path, {
      ...options,
      onEvent: (event, position) => frames.put({ event, position }),
      room: () => frames.room(),
    });
    options.signal?.addEventListener("abort", () => stream.close(), { once: true });
    if (options.signal?.aborted) stream.close();
    stream.ended.then(() => frames.end(), (error) => frames.end(error));
    try {
      yield* frames;
    } finally {
      stream.close();
    }
  }

  /**
   * Yields the texts that the model writes, whole and in their order, each time one has changed.
   *
   * They are exact over any number of connections; see `events`, whose options it takes. Throws a
   * `Problem` with the status 0 if the run fails.
   *
   * @param {string} path such as `/runs/${id}/events`
   * @param {{after?: string, from?: "start" | "now" | "state", signal?: AbortSignal,
   *   onStatus?: (status: StreamStatus) => void}} [options]
   * @returns {AsyncGenerator<string[]>}
   */
  async *texts(path, options = {}) {
    const texts = new Texts();
    for await (const { event } of this.events(path, options)) {
      if (texts.apply(event)) yield texts.all;
      if (event.type === "run.failed" && path.startsWith("/runs/")) {
        throw new Problem(0, { code: event.code, detail: event.message, retryable: event.retryable });
      }
    }
  }

  /**
   * Waits for the end of a run and returns what the model wrote in it, paragraphs between the texts.
   *
   * Throws as `texts` does.
   *
   * @param {string} path such as `/runs/${id}/events`
   * @param {{after?: string, signal?: AbortSignal}} [options]
   * @returns {Promise<string>}
   */
  async text(path, options = {}) {
    let all = [];
    for await (const texts of this.texts(path, options)) all = texts;
    return all.join("\n\n");
  }

  /**
   * Follows a route of events with callbacks; see `events`.
   *
   * @param {string} path
   * @param {FollowOptions} options
   */
  follow(path, options) {
    return new Stream((query, headers, signal) =>
      fetch(this.address(path, query), {
        headers: { ...this.#headers(), accept: "text/event-stream", ...headers },
        cache: "no-store",
        signal,
      }), { ...options, isRun: path.startsWith("/runs/") });
  }

  #headers() {
    /** @type {Record<string, string>} */
    const headers = {};
    if (this.#key) headers.authorization = `Bearer ${this.#key}`;
    return headers;
  }
}

/**
 * The texts that the model writes, folded from the events of one thread or run.
 *
 * Deltas extend the text of their item, the event of the finished item replaces it, and what was not
 * finished is taken back when a response breaks off.
 */
export class Texts {
  #texts = new Map();
  #final = new Set();

  /** The texts in the order in which they began. @returns {string[]} */
  get all() {
    return [...this.#texts.values()];
  }

  /** Takes the next event; returns whether a text has changed. @param {any} event */
  apply(event) {
    switch (event.type) {
      case "text.delta":
        if (this.#final.has(event.item_id)) return false;
        this.#texts.set(event.item_id, (this.#texts.get(event.item_id) ?? "") + event.delta);
        return true;
      case "message.added":
        if (event.origin !== "model") return false;
        return this.#finish(event.item);
      case "step.interrupted": {
        const before = this.#texts.size;
        for (const id of this.#texts.keys()) if (!this.#final.has(id)) this.#texts.delete(id);
        return this.#texts.size < before;
      }
      case "thread.state":
        this.#texts.clear();
        this.#final.clear();
        for (const item of [...event.items, ...(event.step?.items ?? [])]) {
          if (item.type === "message" && item.role === "assistant") this.#finish(item);
        }
        return true;
      default:
        return false;
    }
  }

  #finish(item) {
    const text = item.content.map((part) => part.text ?? "").join("");
    const isNew = this.#texts.get(item.id) !== text;
    this.#texts.set(item.id, text);
    this.#final.add(item.id);
    return isNew;
  }
}

async function throwProblem(response) {
  if (response.ok) return;
  let fields = {};
  try {
    fields = await response.json();
  } catch {
    // not an answer of treadle: a proxy, perhaps
  }
  throw new Problem(response.status, fields);
}

/**
 * @typedef {"connecting" | "live" | "waiting" | "paused" | "ended"} StreamStatus
 * @typedef {object} FollowOptions
 * @property {(event: any, position: string) => void} onEvent
 * @property {(status: StreamStatus) => void} [onStatus]
 * @property {() => Promise<void>} [room] is awaited before more of the connection is read
 * @property {string} [after] begin after this position
 * @property {"start" | "now" | "state"} [from] where to begin without a position
 */

const TERMINAL = new Set([
  "run.completed", "run.incomplete", "run.failed", "run.cancelled", "run.expired",
]);

/** One subscription over any number of connections; a new connection replaces the one before. */
export class Stream {
  #open;
  #options;
  #position;
  #abort = new AbortController();
  #pause = FIRST_PAUSE;
  #timer = 0;
  #silence = 0;
  #status = "connecting";
  #resolve;
  #reject;

  /**
   * @param {(query: object, headers: object, signal: AbortSignal) => Promise<Response>} open
   * @param {FollowOptions & {isRun?: boolean}} options
   */
  constructor(open, options) {
    this.#open = open;
    this.#options = options;
    this.#position = options.after ?? "";
    /** Resolves at the end of the events, and rejects with what no repetition can help. */
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.ended.catch(() => {});
    this.#connect();
  }

  /** The position of the last event. */
  get position() {
    return this.#position;
  }

  /** @returns {StreamStatus} */
  get status() {
    return /** @type {StreamStatus} */ (this.#status);
  }

  /** Connects at once if it waits to do so, for example because the network is back. */
  retry() {
    if (this.#status === "waiting" || this.#status === "paused") {
      this.#pause = FIRST_PAUSE;
      this.#connect();
    }
  }

  /** Closes the connection until `retry`, and remembers the position. */
  pause() {
    if (this.#status === "ended") return;
    this.#disconnect();
    this.#report("paused");
  }

  /** Ends the subscription. */
  close() {
    this.#end();
  }

  #end(error) {
    if (this.#status === "ended") return;
    this.#disconnect();
    this.#report("ended");
    if (error) this.#reject(error);
    else this.#resolve();
  }

  #disconnect() {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#abort.abort();
  }

  #report(status) {
    if (this.#status === status) return;
    this.#status = status;
    this.#options.onStatus?.(status);
  }

  async #connect() {
    this.#disconnect();
    const abort = new AbortController();
    this.#abort = abort;
    this.#report("connecting");
    this.#expectBytes(abort);
    const headers = this.#position ? { "last-event-id": this.#position } : {};
    const query = this.#position ? {} : { from: this.#options.from };
    try {
      const response = await this.#open(query, headers, abort.signal);
      if (response.status === 204) {
        this.#end();
        return;
      }
      await throwProblem(response);
      this.#report("live");
      const parser = new FrameParser((frame) => this.#take(frame, abort));
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || abort.signal.aborted) break;
        this.#expectBytes(abort);
        parser.feed(decoder.decode(value, { stream: true }));
        if (this.#options.room) {
          clearTimeout(this.#silence); // a slow reader is not a silent server
          await this.#options.room();
          if (abort.signal.aborted) break;
          this.#expectBytes(abort);
        }
      }
    } catch (error) {
      if (abort !== this.#abort || this.#status === "ended" || this.#status === "paused") return;
      if (error instanceof Problem && isFinal(error)) {
        this.#end(error);
        return;
      }
    }
    if (abort === this.#abort && this.#status !== "ended" && this.#status !== "paused") {
      this.#wait();
    }
  }

  /** Connects again later: a connection that ends is not the end of the events. */
  #wait() {
    clearTimeout(this.#silence);
    this.#report("waiting");
    this.#timer = setTimeout(() => this.#connect(), this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
  }

  #expectBytes(abort) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (abort !== this.#abort) return;
      abort.abort();
      this.#wait();
    }, SILENCE);
  }

  #take({ id, type, data }, abort) {
    if (abort !== this.#abort || abort.signal.aborted) return;
    if (type === "stream.ended") {
      const { reason, problem } = JSON.parse(data);
      if (reason === "thread_deleted") this.#end(new Problem(410, { code: "thread_not_found" }));
      else if (reason === "failed" && !problem?.retryable) this.#end(new Problem(500, problem ?? {}));
      return;
    }
    if (id) this.#position = id;
    if (!data) return;
    this.#pause = FIRST_PAUSE;
    const event = JSON.parse(data);
    if (type === "thread.state") event.type = type;
    this.#options.onEvent(event, this.#position);
    if (this.#options.isRun && TERMINAL.has(event.type)) this.#end();
  }
}

const isFinal = ({ status }) => status >= 400 && status < 500 && status !== 408 && status !== 429;

/** Frames of server-sent events, from text that is cut anywhere. */
export class FrameParser {
  #take;
  #line = "";
  #afterReturn = false;
  #id = "";
  #type = "";
  #data = [];

  /** @param {(frame: {id: string, type: string, data: string}) => void} take */
  constructor(take) {
    this.#take = take;
  }

  /** @param {string} text */
  feed(text) {
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    if (text) this.#afterReturn = text.endsWith("\r");
    const lines = (this.#line + text).split(/\r\n|\n|\r/);
    this.#line = lines.pop();
    for (const line of lines) this.#read(line);
  }

  #read(line) {
    if (line === "") {
      const [id, type, data] = [this.#id, this.#type || "message", this.#data.join("\n")];
      const isEmpty = this.#data.length === 0 && !id;
      this.#id = this.#type = "";
      this.#data = [];
      if (!isEmpty) this.#take({ id, type, data });
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }
}

const MOST_WAITING = 1000; // values; behind it the connection is not read, and the server joins deltas

/** Values of callbacks for a reader that takes them in its own time. */
class FrameQueue {
  #values = [];
  #wake = () => {};
  #resume = () => {};
  #isOver = false;
  #error = null;

  put(value) {
    this.#values.push(value);
    this.#wake();
  }

  end(error = null) {
    this.#isOver = true;
    this.#error = error;
    this.#wake();
    this.#resume();
  }

  /** Waits until the reader has taken most of what is here. */
  async room() {
    if (this.#values.length < MOST_WAITING || this.#isOver) return;
    await new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#values.length) yield this.#values.shift();
      this.#resume();
      if (this.#isOver) {
        if (this.#error) throw this.#error;
        return;
      }
      await new Promise((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
