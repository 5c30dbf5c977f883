// An open thread: its view, its stream, and what a person may say to it.

import { Problem } from "/client.js";
import { newKey } from "./format.js";
import { addRuns, apply, emptyView, viewOf } from "./fold.js";

const KEPT_EVENTS = 500;
const HIDDEN_PAUSE = 1000; // milliseconds
const HIDDEN_LOCK = "treadle-hidden-tab";

export class OpenThread {
  view = emptyView();
  status = "connecting";
  error = null;
  log = []; // the last events, for the inspector
  isLoaded = false;
  #client;
  #toUser;
  #stream;
  #onChange;
  #frame = 0;
  #pausing = 0;
  #hidden = null; // aborted when the tab is shown again

  constructor(client, id, toUser, onChange) {
    this.#client = client;
    this.#toUser = toUser;
    this.id = id;
    this.#onChange = onChange;
    this.#follow();
    document.addEventListener("visibilitychange", this.#onVisibility);
    addEventListener("online", this.#onOnline);
    this.#onVisibility();
  }

  /** Follows the thread from its present state. */
  #follow() {
    const stream = this.#client.follow(`/threads/${this.id}/events`, {
      from: "state",
      onEvent: (event, position) => this.#take(event, position),
      onStatus: (status) => {
        if (stream !== this.#stream) return;
        this.status = status;
        this.#changed();
      },
    });
    this.#stream = stream;
    stream.ended.catch((error) => {
      this.error = error;
      this.#changed();
    });
  }

  close() {
    this.#stream.close();
    cancelAnimationFrame(this.#frame);
    this.#show();
    document.removeEventListener("visibilitychange", this.#onVisibility);
    removeEventListener("online", this.#onOnline);
  }

  /** Connects again now. */
  retry() {
    this.#stream.retry();
  }

  #onOnline = () => this.#stream.retry();

  #onVisibility = () => {
    this.#show();
    if (document.hidden) this.#hide();
    else this.#stream.retry();
  };

  /**
   * Gives the connection back while the tab is hidden: over HTTP/1.1 all tabs of a browser have six.
   *
   * One hidden tab keeps its own, so that its title and a notification tell what happens.
   */
  #hide() {
    const { signal } = (this.#hidden = new AbortController());
    this.#pausing = setTimeout(() => this.#stream.pause(), HIDDEN_PAUSE);
    const keep = () => {
      clearTimeout(this.#pausing);
      this.#stream.retry();
      return new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    navigator.locks?.request(HIDDEN_LOCK, { signal }, keep).catch(() => {});
  }

  #show() {
    clearTimeout(this.#pausing);
    this.#hidden?.abort();
  }

  #take(event, position) {
    if (event.type === "item.removed") {
      // Its numbers do not tell which lines of a state they are; nothing of what was removed is kept.
      this.log.length = 0;
      this.#stream.close();
      this.#follow();
      return;
    }
    if (event.type === "thread.state") {
      this.view = viewOf(event, this.#toUser);
      this.isLoaded = true;
      this.#loadRuns();
    } else {
      apply(this.view, event);
      this.log.push({ event, position, at: Date.now() / 1000 });
      if (this.log.length > 2 * KEPT_EVENTS) this.log.splice(0, KEPT_EVENTS);
    }
    this.#changed();
  }

  async #loadRuns() {
    const view = this.view;
    try {
      const { data } = await this.#client.get(`/threads/${this.id}/runs`, { order: "desc", limit: 100 });
      if (view === this.view) addRuns(view, data);
      this.#changed();
    } catch {
      // the ends of old runs are not shown then; the stream reports what is wrong
    }
  }

  /** Lets the page draw once for all events that arrive before the next frame. */
  #changed() {
    if (this.#frame) return;
    const draw = () => {
      this.#frame = 0;
      this.#onChange();
    };
    // A hidden page draws no frames, but its title and its tests still follow.
    this.#frame = document.hidden ? setTimeout(draw, 50) : requestAnimationFrame(draw);
  }

  // What a person says

  async send(message, onBusy, { agent = "", options, expect } = {}) {
    const body = { message, on_busy: onBusy };
    if (agent) body.agent = agent;
    if (options) body.options = options;
    if (expect !== undefined) body.expect = expect;
    return this.#repeated(`/threads/${this.id}/messages`, body, newKey());
  }

  /** A message may be sent again with its key: the server takes it once. */
  async #repeated(path, body, idempotencyKey) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#client.post(path, body, { idempotencyKey });
      } catch (error) {
        const mayRepeat = error instanceof TypeError || error.status >= 500;
        if (!mayRepeat || attempt === 6) throw error;
        await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
      }
    }
  }

  cancel(runId) {
    return this.#client.post(`/runs/${runId}/cancel`);
  }

  finish(runId) {
    return this.#client.post(`/runs/${runId}/finish`);
  }

  answer(callId, output) {
    return answerCall(this.#client, this.id, { type: "output", call_id: callId, output });
  }

  /** @param {string} callId @param {object} [edited] the arguments, if they are others than the model's */
  approve(callId, edited) {
    return answerCall(this.#client, this.id, { type: "approve", call_id: callId, arguments: edited });
  }

  deny(callId, reason) {
    return answerCall(this.#client, this.id, { type: "deny", call_id: callId, reason });
  }
}

/** Answers a call; its id comes from a model, and may contain what a path cannot. */
export async function answerCall(client, threadId, answer) {
  const { data } = await client.post(`/threads/${threadId}/calls`, { answers: [answer] });
  const { problem } = data[0];
  if (problem) throw new Problem(problem.status ?? 400, problem);
}
