// The view of a thread as a fold of its events: what the conversation shows, in order.
//
// A view changes in place, but each of its blocks is replaced when it changes, so that a component
// whose block is the same object need not be drawn again. Nothing here knows of the browser. In the
// JSON of an event, fields that have their default may be left out.

/**
 * @typedef {object} Block a line of the conversation; `kind` tells which fields it has
 * @property {string} kind user, text, reasoning, call, hosted, note, change or end
 * @property {string} key unique within the view
 * @property {boolean} [gone] it is no longer shown
 */

/** Returns the view of a thread without events. */
export function emptyView() {
  return {
    thread: null,
    toUser: () => "to_user",
    blocks: [],
    places: new Map(), // the key of a block → its index
    items: new Map(), // the id of an item → the key of its block
    run: null,
    queue: [],
    steering: [],
    jobs: new Map(),
    memory: 0, // grows with each change of a memory block
    schedules: 0, // grows with each change of the schedules
    ended: 0, // grows with each run that ends
    notes: 0,
  };
}

/**
 * Returns the view of a thread from its present state, the `ThreadView` of the API.
 *
 * @param {any} state
 * @param {(tool: string) => string} toUser returns which argument of a tool is shown to the user
 */
export function viewOf(state, toUser = () => "to_user") {
  const view = emptyView();
  view.thread = state.thread;
  view.toUser = toUser;
  for (const item of state.items) addItem(view, item, false);
  const open = state.step;
  if (open) {
    for (const item of open.items) addItem(view, item, true);
    for (const output of open.outputs) addOutput(view, output, {});
  }
  for (const pending of state.calls) {
    changeCall(view, pending.call.call_id, {
      awaits: pending.awaits,
      status: "waiting",
      expiresAt: pending.expires_at ?? null,
    });
  }
  const run = state.run;
  view.run = run && isOpen(run.status) ? runOf(run.id, run.agent, run.status) : null;
  view.queue = state.queue.map((one) => ({ runId: one.run_id, item: one.item }));
  view.steering = [...state.steering];
  for (const job of state.jobs) view.jobs.set(job.id, { ...job, status: "running" });
  return view;
}

/** Applies an event, as JSON, to a view. */
export function apply(view, event) {
  const change = CHANGES[event.type];
  if (change) change(view, event);
}

/** The calls that wait for an answer from outside, in order. */
export function waitingCalls(view) {
  return view.blocks.filter((block) => block.kind === "call" && block.status === "waiting");
}

/** Adds what the records of past runs say and the history does not: that they failed, and why. */
export function addRuns(view, runs) {
  for (const run of runs) {
    if (run.id === view.run?.id && run.started_at) view.run = { ...view.run, startedAt: run.started_at };
    const start = placeOfItem(view, run.message_id ?? "");
    if (start === undefined || isOpen(run.status) || view.places.has(`end-${run.id}`)) continue;
    let end = start + 1;
    while (end < view.blocks.length && !isStart(view.blocks[end])) end += 1;
    insert(view, end, {
      kind: "end",
      key: `end-${run.id}`,
      runId: run.id,
      status: run.status,
      stopReason: run.stop_reason ?? "",
      usage: run.usage ?? null,
      cost: run.cost ?? 0,
      message: run.error?.message ?? "",
      code: run.error?.code ?? "",
      seconds: run.ended_at && run.started_at ? run.ended_at - run.started_at : null,
    });
  }
}

const isStart = (block) => block.kind === "user" && block.origin === "user" && !block.steered;

const OPEN = new Set(["queued", "in_progress", "requires_action", "cancelling", "finishing"]);

/** Whether a run with this status has not ended. */
export const isOpen = (status) => OPEN.has(status);

// What each event changes

const CHANGES = {
  "message.added"(view, { item, origin, at }) {
    if (item.role === "assistant") {
      finishText(view, item);
      return;
    }
    const steered = view.steering.some((one) => one.id === item.id);
    view.steering = view.steering.filter((one) => one.id !== item.id);
    put(view, item.id, { kind: "user", origin, item, at, steered });
  },
  "text.delta"(view, { item_id, delta }) {
    grow(view, item_id, "text", delta);
  },
  "citation.added"(view, { item_id, annotation }) {
    const block = blockOf(view, view.items.get(item_id) ?? "");
    if (block) putKey(view, block.key, { sources: sourcesOf([...(block.sources ?? []), annotation]) });
  },
  "refusal.delta"(view, { item_id, delta }) {
    grow(view, item_id, "text", delta, { refusal: true });
  },
  "reasoning.delta"(view, { item_id, delta }) {
    grow(view, item_id, "reasoning", delta);
  },
  "reasoning.added"(view, { item }) {
    const text = reasoningText(item);
    if (text || view.items.has(item.id)) {
      put(view, item.id, { kind: "reasoning", text, isOpen: false });
    }
  },
  "hosted_call.progress"(view, { call, is_partial }) {
    putHosted(view, call, true, is_partial ?? false);
    touch(view, { phase: "calls" });
  },
  "provider_item.added"(view, { item }) {
    if (item.call) putHosted(view, item.call, false);
  },
  "tool.call_started"(view, { item_id, call_id, name }) {
    put(view, item_id, newCall(call_id, name), call_id);
    touch(view, { phase: "calls" });
  },
  "tool.arguments.delta"(view, { call_id, delta }) {
    const block = callBlock(view, call_id);
    if (block) changeCall(view, call_id, { arguments: block.arguments + delta });
  },
  "to_user.delta"(view, { call_id, delta }) {
    const block = callBlock(view, call_id);
    if (block) changeCall(view, call_id, { toUser: block.toUser + delta });
  },
  "tool.requested"(view, { item, awaits, to_user }) {
    const known = callBlock(view, item.call_id);
    const said = to_user ? textIn(item.arguments, to_user) : "";
    const fields = {
      name: item.name,
      arguments: item.arguments,
      toUser: said || known?.toUser || "",
      toUserField: to_user ?? "",
      awaits: awaits ?? null,
      status: awaits ? "waiting" : "ready",
    };
    if (known) changeCall(view, item.call_id, fields);
    else put(view, item.id, { ...newCall(item.call_id, item.name), ...fields }, item.call_id);
  },
  "run.requires_action"(view, { call_ids, expires_at }) {
    touch(view, { status: "requires_action" });
    for (const callId of call_ids) {
      changeCall(view, callId, { status: "waiting", expiresAt: expires_at ?? null });
    }
  },
  "tool.approved"(view, { call_id, by, arguments: edited }) {
    const fields = { status: "approved", answeredBy: by ?? "" };
    if (edited) Object.assign(fields, { proposed: callBlock(view, call_id)?.arguments ?? "", arguments: edited });
    changeCall(view, call_id, fields);
    touch(view, { status: "in_progress" });
  },
  "tool.started"(view, { call_id, attempt, at, arguments: changed }) {
    const fields = { status: "running", attempt, startedAt: at };
    changeCall(view, call_id, changed ? { ...fields, arguments: changed } : fields);
    touch(view, { status: "in_progress" });
  },
  "tool.delegated"(view, { call_id, agent, thread_id }) {
    changeCall(view, call_id, { agent, agentThread: thread_id });
  },
  "tool.progress"(view, { call_id, message }) {
    changeCall(view, call_id, { progress: message });
  },
  "tool.output"(view, { item, seconds, by }) {
    addOutput(view, item, { seconds, answeredBy: by });
  },
  "agent.event"(view, { call_id, agent, thread_id, event }) {
    const block = callBlock(view, call_id);
    const key = block ? block.key : `agent-${thread_id}`;
    const known = block ?? blockOf(view, key);
    const sub = known?.sub ?? emptyView();
    apply(sub, event);
    const fields = { agent, agentThread: thread_id, sub, subVersion: (known?.subVersion ?? 0) + 1 };
    if (block) changeCall(view, call_id, fields);
    else putKey(view, key, { kind: "agent", ...fields });
  },
  "run.queued"(view, { run_id, item, urgent }) {
    const entry = { runId: run_id, item };
    view.queue = urgent ? [entry, ...view.queue] : [...view.queue, entry];
  },
  "message.queued"(view, { item }) {
    view.steering = [...view.steering, item];
  },
  "run.started"(view, { run_id, agent, at }) {
    view.queue = view.queue.filter((one) => one.runId !== run_id);
    view.run = { ...runOf(run_id, agent, "in_progress"), startedAt: at };
  },
  "run.finishing"(view) {
    touch(view, { status: "finishing" });
  },
  "run.cancelling"(view) {
    touch(view, { status: "cancelling" });
  },
  "run.handed_off"(view, { agent }) {
    touch(view, { agent });
    note(view, "handoff", `${agent} continues`);
  },
  "step.started"(view, { step, model }) {
    touch(view, { step, model, phase: "waiting", status: "in_progress", notice: "" });
  },
  "response.completed"(view, { usage, cost }) {
    if (!view.run) return;
    touch(view, {
      phase: "answered",
      tokens: (view.run.tokens ?? 0) + (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0),
      cost: (view.run.cost ?? 0) + (cost ?? 0),
    });
  },
  "step.interrupted"(view, { reason }) {
    discardOpen(view);
    note(view, "interrupted", "The answer broke off and is being written again.", reason);
  },
  "history.replaced"(view, { items }) {
    for (const block of view.blocks) if (block.kind !== "end") hide(view, block.key);
    for (const item of items) addItem(view, item, false);
    note(view, "replaced", "The program replaced the conversation that the model reads.");
  },
  "items.added"(view, { items }) {
    for (const item of items) addItem(view, item, false);
  },
  "context.compacted"(view, { tokens_before, tokens_after }) {
    note(
      view,
      "compacted",
      `Older messages were summarized: ${tokens_before.toLocaleString("en")} → ` +
        `${tokens_after.toLocaleString("en")} tokens in the model's window.`,
    );
  },
  "memory.updated"(view, event) {
    view.memory += 1;
    if (event.author === "model") {
      put(view, `memory-${event.seq}`, { kind: "change", event });
    }
  },
  "thread.updated"(view, { title }) {
    if (typeof title === "string" && view.thread) view.thread = { ...view.thread, title };
  },
  "schedule.created": changeSchedules,
  "schedule.fired": changeSchedules,
  "schedule.cancelled": changeSchedules,
  "job.started"(view, event) {
    view.jobs = new Map(view.jobs).set(event.job_id, {
      id: event.job_id,
      name: event.name,
      parent: event.parent ?? "",
      agent: event.agent ?? "",
      background: event.background ?? false,
      status: "running",
    });
  },
  "job.settled"(view, event) {
    const job = view.jobs.get(event.job_id) ?? { id: event.job_id, name: event.job_id };
    const { outcome, output, message, seconds } = event;
    view.jobs = new Map(view.jobs).set(event.job_id, {
      ...job,
      status: outcome,
      output: output ?? "",
      message: message ?? "",
      seconds: seconds ?? 0,
    });
  },
  rate_limited(view, { delay }) {
    touch(view, { notice: `The provider asks to wait ${Math.ceil(delay)} s.` });
  },
  retrying(view, { delay, message }) {
    touch(view, { notice: `Trying again in ${Math.ceil(delay)} s: ${message}` });
  },
  "run.completed": (view, event) => end(view, event, "completed"),
  "run.incomplete": (view, event) => end(view, event, "incomplete"),
  "run.failed": (view, event) => end(view, event, "failed"),
  "run.cancelled": (view, event) => end(view, event, "cancelled"),
  "run.expired": (view, event) => end(view, event, "expired"),
};

function changeSchedules(view) {
  view.schedules += 1;
}

function end(view, event, status) {
  discardOpen(view);
  for (const block of view.blocks) {
    if (block.kind === "call" && OPEN_CALLS.has(block.status)) {
      changeCall(view, block.callId, { status: "ended" });
    }
  }
  view.queue = view.queue.filter((one) => one.runId !== event.run_id);
  const run = view.run;
  const isActive = run === null || run.id === event.run_id;
  putKey(view, `end-${event.run_id}`, {
    kind: "end",
    runId: event.run_id,
    status,
    stopReason: event.stop_reason ?? "",
    usage: event.usage ?? null,
    cost: isActive ? (run?.cost ?? 0) : 0,
    message: event.message ?? "",
    code: event.code ?? "",
    seconds: isActive && run?.startedAt && event.at ? event.at - run.startedAt : null,
  });
  if (isActive) view.run = null;
  view.ended += 1;
}

const OPEN_CALLS = new Set(["writing", "waiting", "approved", "ready", "running"]);

// Items of a history

function addItem(view, item, isInStep) {
  switch (item.type) {
    case "message":
      if (item.role === "assistant") finishText(view, item);
      else put(view, item.id, { kind: "user", origin: "user", item, role: item.role });
      break;
    case "reasoning":
      if (reasoningText(item)) {
        put(view, item.id, { kind: "reasoning", text: reasoningText(item), isOpen: false });
      }
      break;
    case "function_call": {
      const field = view.toUser(item.name);
      const fields = {
        arguments: item.arguments,
        proposed: item.proposed ?? "",
        toUser: textIn(item.arguments, field),
        toUserField: field,
        status: isInStep ? "ready" : "done",
      };
      const call = { ...newCall(item.call_id, item.name), ...fields };
      put(view, item.id || `call-${item.call_id}`, call, item.call_id);
      break;
    }
    case "function_call_output":
      addOutput(view, item, {});
      break;
    case "provider_item":
      if (item.call) putHosted(view, item.call, false);
      break;
  }
}

/** A call of a hosted tool and its result may be two items; the second one contains both. */
function putHosted(view, call, isOpen, isPartial = false) {
  const key = `hosted-${call.call_id}`;
  const isWritten = isOpen && (isPartial || (blockOf(view, key)?.isWritten ?? false));
  putKey(view, key, { kind: "hosted", call, isOpen, isWritten });
}

function addOutput(view, item, { seconds, answeredBy }) {
  const fields = { output: item.output, status: item.is_error ? "failed" : "done", progress: "" };
  if (seconds) fields.seconds = seconds;
  if (answeredBy) fields.answeredBy = answeredBy;
  changeCall(view, item.call_id, fields);
}

function finishText(view, item) {
  const fields = { kind: "text", item, text: messageText(item), isOpen: false };
  fields.sources = sourcesOf(item.content.flatMap((part) => part.annotations ?? []));
  if (item.content.some((part) => part.type === "refusal")) fields.refusal = true;
  if (item.unknown_end) fields.unknownEnd = item.unknown_end;
  if (fields.text || view.items.has(item.id)) put(view, item.id, fields);
}

const newCall = (callId, name) => ({
  kind: "call",
  callId,
  name,
  arguments: "",
  proposed: "", // what the model wrote, if a person changed the arguments
  toUser: "",
  toUserField: "",
  awaits: null,
  status: "writing",
  progress: "",
  output: null,
});

const runOf = (id, agent, status) => ({
  id, agent, status, step: 0, phase: "waiting", startedAt: null, tokens: 0, cost: 0, notice: "",
});

/** Returns the text of a message, with what it refused. */
export function messageText(item) {
  return item.content.map((part) => part.text ?? part.refusal ?? "").join("");
}

/** Returns each page and file of annotations once, in their order. */
function sourcesOf(annotations) {
  const found = new Map();
  for (const one of annotations) {
    const key = one.url || one.file_id || one.filename;
    if (key && !found.has(key)) found.set(key, one);
  }
  return [...found.values()];
}

function reasoningText(item) {
  const whole = (item.content ?? []).map((part) => part.text).join("");
  return whole || (item.summary ?? []).map((part) => part.text).join("\n\n");
}

function textIn(json, field) {
  try {
    const value = JSON.parse(json || "{}")[field];
    return typeof value === "string" ? value : "";
  } catch {
    return ""; // a model may write what is not JSON
  }
}

// Blocks

function put(view, itemId, fields, callId) {
  const key = view.items.get(itemId) ?? (callId ? `call-${callId}` : itemId);
  view.items.set(itemId, key);
  putKey(view, key, fields);
}

function putKey(view, key, fields) {
  const place = view.places.get(key);
  if (place === undefined) {
    view.places.set(key, view.blocks.length);
    view.blocks.push({ ...fields, key });
  } else {
    view.blocks[place] = { ...view.blocks[place], ...fields, key };
  }
}

function insert(view, index, block) {
  view.blocks.splice(index, 0, block);
  for (let place = index; place < view.blocks.length; place += 1) {
    view.places.set(view.blocks[place].key, place);
  }
}

const blockOf = (view, key) => view.blocks[view.places.get(key)];

const placeOfItem = (view, id) => view.places.get(view.items.get(id) ?? "");

const callBlock = (view, callId) => (callId ? blockOf(view, `call-${callId}`) : undefined);

function changeCall(view, callId, fields) {
  if (callBlock(view, callId)) putKey(view, `call-${callId}`, fields);
}

const CHUNK = 2048;

/** Adds to a text that is being written; it is kept in chunks, so that its length costs nothing. */
function grow(view, itemId, kind, delta, more = {}) {
  const chunks = blockOf(view, view.items.get(itemId) ?? "")?.chunks ?? [""];
  if (chunks.at(-1).length < CHUNK) chunks[chunks.length - 1] += delta;
  else chunks.push(delta);
  put(view, itemId, { kind, chunks, isOpen: true, ...more });
  if (view.run) touch(view, { phase: kind });
}

/** The text of a block, also of one that is being written. */
export const textOf = (block) => block.text ?? (block.chunks ?? []).join("");

function hide(view, key) {
  putKey(view, key, { gone: true });
}

/** Takes back the texts and calls that were not finished. */
function discardOpen(view) {
  for (const block of view.blocks) {
    if (block.isOpen || (block.kind === "call" && block.status === "writing")) {
      hide(view, block.key);
      for (const [id, key] of view.items) if (key === block.key) view.items.delete(id);
      view.places.delete(block.key); // what is written again is a new block
    }
  }
}

function note(view, kind, text, detail = "") {
  view.notes += 1;
  putKey(view, `note-${view.notes}`, { kind: "note", note: kind, text, detail });
}

function touch(view, fields) {
  if (!view.run) return;
  for (const name of Object.keys(fields)) {
    if (view.run[name] !== fields[name]) {
      view.run = { ...view.run, ...fields };
      return;
    }
  }
}
