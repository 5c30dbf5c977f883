// Persons who talk to agents through the client of AG-UI: any number of them in one process; see
// tests/protocols/client_process.py.
//
//     node ag_ui.mjs
//
// Besides the verbs of a person it knows `ask`: it runs the client with the messages `add` and the
// parameters `run`, and returns the events and what the client made of them.

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

import { HttpAgent } from "@ag-ui/client";

const warnings = [];

console.warn = (...words) => warnings.push(words.join(" "));
console.error = () => {};
// Of a connection that breaks, the client reports the error, and leaves another promise alone, which
// a browser only logs.
process.on("unhandledRejection", (error) => {
  if (error?.message !== "terminated") throw error;
});

class Person {
  seen = { texts: [], said: [], reasoning: [], calls: [], order: [], growths: 0, end: "", error: "" };
  pending = new Set();

  constructor({ url, agent, tools, chat }) {
    this.url = url;
    this.tools = tools;
    this.agent = new HttpAgent({ url: `${url}/ag-ui/${agent}`, threadId: chat || randomUUID() });
  }

  /** Makes what was seen of the messages of the client, which is what a page shows. */
  look() {
    const { agent, pending, seen } = this;
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

  async run(parameters, { stop_after: stop = 0, leave_after: leave = 0 } = {}) {
    const { agent, pending, seen, tools, url } = this;
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
      ({ result } = await agent.runAgent({ tools, ...parameters }, subscriber));
    } catch (error) {
      failed = { message: String(error.message), status: error.status, payload: error.payload };
      Object.assign(seen, { end: "failed", error: error.payload?.message ?? failed.message });
    }
    this.look();
    return { events, result: result ?? null, failed };
  }

  async say({ text, files, ...limits }) {
    const content = files.length ? [{ type: "text", text }, ...files.map(part)] : text;
    this.agent.messages.push({ id: randomUUID(), role: "user", content });
    await this.run({}, limits);
    return this.seen;
  }

  async answer({ outputs }) {
    for (const [toolCallId, content] of Object.entries(outputs)) {
      this.agent.messages.push({ id: randomUUID(), role: "tool", toolCallId, content });
    }
    await this.run({});
    return this.seen;
  }

  async decide({ approved }) {
    const resume = Object.entries(approved).map(([id, approve]) => ({
      interruptId: this.agent.pendingInterrupts.find((one) => one.toolCallId === id).id,
      status: "resolved",
      payload: { approved: approve },
    }));
    await this.run({ resume });
    return this.seen;
  }

  async resume() {
    await this.run({});
    return this.seen;
  }

  async ask({ add = [], run: parameters = {}, state }) {
    this.agent.messages.push(...add);
    if (state !== undefined) this.agent.setState(state);
    const known = warnings.length;
    const ran = await this.run(parameters);
    const { messages, pendingInterrupts } = this.agent;
    return { ...ran, messages, state: this.agent.state, pendingInterrupts, warnings: warnings.slice(known) };
  }
}

function part({ name: filename, media_type: mimeType, base64: value }) {
  const source = { type: "data", value, mimeType };
  if (mimeType.startsWith("image/")) return { type: "image", source };
  return { type: "document", source, metadata: { filename } };
}

const persons = new Map();

async function play({ id, person, verb, ...given }) {
  try {
    // How often a text has grown so far, while another verb is in progress.
    if (verb === "growths") return { id, seen: persons.get(person)?.seen.growths ?? 0 };
    if (!persons.has(person)) persons.set(person, new Person(given));
    return { id, seen: await persons.get(person)[verb](given) };
  } catch (error) {
    return { id, failed: error.stack };
  }
}

for await (const line of createInterface({ input: process.stdin }))
  void play(JSON.parse(line)).then((answer) => console.log(JSON.stringify(answer)));
