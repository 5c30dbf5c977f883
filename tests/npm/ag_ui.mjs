// A person who talks to an agent through the client of AG-UI; see tests/protocols/protocol.py.
//
//     node ag_ui.mjs URL AGENT TOOLS
//
// Besides the verbs of a person it knows `ask`: it runs the client with the messages `add` and the
// parameters `run`, and returns the events and what the client made of them.

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

import { HttpAgent } from "@ag-ui/client";

const [url, name, tools] = process.argv.slice(2);
const agent = new HttpAgent({ url: `${url}/ag-ui/${name}`, threadId: randomUUID() });
const seen = { texts: [], said: [], reasoning: [], calls: [], order: [], growths: 0, end: "", error: "" };
const warnings = [];

console.warn = (...words) => warnings.push(words.join(" "));
console.error = () => {};

/** Makes what was seen of the messages of the client, which is what a page shows. */
function look() {
  const outputs = new Map();
  Object.assign(seen, { texts: [], said: [], reasoning: [], order: [] });
  const waiting = new Set(agent.pendingInterrupts.map((one) => one.toolCallId));
  const calls = [];
  for (const message of agent.messages) {
    if (message.role === "reasoning") seen.reasoning.push(message.content);
    if (message.role === "tool") {
      outputs.set(message.toolCallId, message.error ?? message.content);
      seen.order.push("output");
    }
    if (message.role !== "assistant") continue;
    if (message.content) {
      const kind = message.id.endsWith("_said") ? "said" : "text";
      seen[kind === "said" ? "said" : "texts"].push(message.content);
      seen.order.push(kind);
    }
    for (const call of message.toolCalls ?? []) {
      seen.order.push("call");
      calls.push(call);
    }
  }
  const known = new Map(seen.calls.map((call) => [call.id, call]));
  seen.calls = calls.map(({ id, function: { name, arguments: text } }) => ({
    id,
    name,
    arguments: text,
    awaits: waiting.has(id) ? "approval" : pending.has(id) ? "output" : (known.get(id)?.awaits ?? ""),
    output: outputs.get(id) ?? null,
  }));
}

const pending = new Set();

async function run(parameters, { stop_after: stop = 0, leave_after: leave = 0 } = {}) {
  const events = [];
  let length = 0;
  let runId = "";
  seen.end = "";
  const subscriber = {
    onEvent: ({ event }) => {
      events.push(event);
      if (event.type === "RUN_STARTED") runId = event.metadata?.treadle.runId;
      if (event.type === "TEXT_MESSAGE_CONTENT") {
        seen.growths += 1;
        length += event.delta.length;
        if (stop && length >= stop) {
          stop = 0;
          void fetch(`${url}/api/v1/runs/${runId}/cancel`, { method: "POST" });
        } else if (leave && length >= leave) {
          leave = 0;
          seen.end = "cut";
          agent.abortRun();
        }
      }
      if (event.type === "RUN_ERROR" && !seen.end) {
        Object.assign(seen, { end: "failed", error: event.message });
      }
      if (event.type === "RUN_FINISHED") {
        const { type, pendingToolCallIds = [] } = event.outcome;
        for (const id of pendingToolCallIds) pending.add(id);
        const waits = type === "interrupt" || pendingToolCallIds.length;
        seen.end = waits ? "waits" : type === "success" ? "completed" : type;
      }
    },
  };
  let result = null;
  let failed = null;
  try {
    ({ result } = await agent.runAgent({ tools: JSON.parse(tools), ...parameters }, subscriber));
  } catch (error) {
    failed = { message: String(error.message), status: error.status, payload: error.payload };
    Object.assign(seen, { end: "failed", error: error.payload?.message ?? failed.message });
  }
  look();
  return { events, result: result ?? null, failed };
}

function part({ name: filename, media_type: mimeType, base64: value }) {
  const source = { type: "data", value, mimeType };
  if (mimeType.startsWith("image/")) return { type: "image", source };
  return { type: "document", source, metadata: { filename } };
}

const verbs = {
  async say({ text, files, ...limits }) {
    const content = files.length ? [{ type: "text", text }, ...files.map(part)] : text;
    agent.messages.push({ id: randomUUID(), role: "user", content });
    await run({}, limits);
    return seen;
  },
  async answer({ outputs }) {
    for (const [toolCallId, content] of Object.entries(outputs)) {
      agent.messages.push({ id: randomUUID(), role: "tool", toolCallId, content });
    }
    await run({});
    return seen;
  },
  async decide({ approved }) {
    const resume = Object.entries(approved).map(([id, approve]) => ({
      interruptId: agent.pendingInterrupts.find((one) => one.toolCallId === id).id,
      status: "resolved",
      payload: { approved: approve },
    }));
    await run({ resume });
    return seen;
  },
  async resume() {
    await run({});
    return seen;
  },
  async ask({ add = [], run: parameters = {}, state }) {
    agent.messages.push(...add);
    if (state !== undefined) agent.setState(state);
    const ran = await run(parameters);
    const { messages, pendingInterrupts } = agent;
    return { ...ran, messages, state: agent.state, pendingInterrupts, warnings };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, ...given } = JSON.parse(line);
  console.log(JSON.stringify(await verbs[verb](given)));
}
