// Persons who use `useChat` of the AI SDK, without React: any number of them in one process.
//
//     node ai_sdk.mjs
//
// Reads one line of JSON for each verb, and answers each with one line, in any order:
// {"id": 1, "person": "a", "url": …, "agent": …, "tools": […], "verb": "say", …}
// and {"id": 1, "seen": …} or {"id": 1, "failed": …}.

import assert from "node:assert";
import { createInterface } from "node:readline";

import {
  AbstractChat,
  DefaultChatTransport,
  isToolUIPart,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";

class State {
  status = "ready";
  error = undefined;
  messages = [];
  onChange = () => {};
  pushMessage = (message) => {
    this.messages = [...this.messages, this.snapshot(message)];
    this.onChange();
  };
  popMessage = () => (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) => {
    this.messages = this.messages.with(index, this.snapshot(message));
    this.onChange();
  };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {}

class Person {
  constructor({ url, agent, tools, chat }) {
    this.api = `${url}/ai-sdk/${agent}`;
    this.requests = [];
    this.called = [];
    this.growths = 0;
    this.leaveAfter = this.stopAfter = 0;
    this.state = new State();
    this.state.onChange = () => this.look();
    this.length = 0;
    const body = tools.length ? { options: { tools } } : {};
    this.chat = new Chat({
      ...(chat ? { id: chat } : {}),
      state: this.state,
      transport: new DefaultChatTransport({ api: this.api, body, fetch: this.fetch }),
      sendAutomaticallyWhen: (options) =>
        lastAssistantMessageIsCompleteWithToolCalls(options) ||
        lastAssistantMessageIsCompleteWithApprovalResponses(options),
      onToolCall: ({ toolCall }) => void this.called.push(toolCall.toolCallId),
      onFinish: (finish) => (this.finish = finish),
    });
    this.chat.id; // makes it
  }

  // A connection that breaks after some characters of text.
  fetch = async (input, options) => {
    this.requests.push(`${options.method} ${input.slice(this.api.length)}`);
    const response = await fetch(input, options);
    if (!response.body) return response;
    const reader = response.body.getReader();
    const body = new ReadableStream({
      pull: async (controller) => {
        const { done, value } = await reader.read();
        if (this.leaveAfter && this.length >= this.leaveAfter) {
          this.leaveAfter = 0;
          await reader.cancel();
          controller.error(new TypeError("network error"));
        } else if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: () => reader.cancel(),
    });
    return new Response(body, response);
  };

  look() {
    const parts = this.state.messages.flatMap(({ role, parts }) =>
      role === "assistant" ? parts : [],
    );
    const length = parts.reduce((sum, { type, text }) => sum + (type === "text" ? text.length : 0), 0);
    if (length > this.length) this.growths += 1;
    this.length = length;
    if (this.stopAfter && length >= this.stopAfter) {
      this.stopAfter = 0;
      void fetch(`${this.api}/${this.chat.id}/stop`, { method: "POST" });
    }
  }

  async say({ text, files = [], stop_after = 0, leave_after = 0 }) {
    this.stopAfter = stop_after;
    this.leaveAfter = leave_after;
    const parts = files.map(({ name, media_type, url }) => ({
      type: "file",
      filename: name,
      mediaType: media_type,
      url,
    }));
    await this.chat.sendMessage({ text, files: parts });
  }

  async answer({ outputs }) {
    await this.automatically(() => {
      for (const [id, output] of Object.entries(outputs))
        void this.chat.addToolOutput({ toolCallId: id, output });
    });
  }

  async decide({ approved, reason }) {
    await this.automatically(() => {
      for (const [id, answer] of Object.entries(approved))
        void this.chat.addToolApprovalResponse({ id, approved: answer, reason });
    });
  }

  // Waits for the request that the chat makes on its own.
  async automatically(act) {
    this.finish = undefined;
    act();
    while (this.finish === undefined) await new Promise((resolve) => setTimeout(resolve, 2));
    while (["submitted", "streaming"].includes(this.chat.status))
      await new Promise((resolve) => setTimeout(resolve, 2));
  }

  async resume({ leave_after = 0 }) {
    this.length = 0; // it begins anew
    this.leaveAfter = leave_after;
    await this.chat.resumeStream();
  }

  async regenerate({ message }) {
    await this.chat.regenerate(message ? { messageId: message } : {});
  }

  async edit({ message, text }) {
    await this.chat.sendMessage({ text, messageId: message });
  }

  async load() {
    this.state.messages = await this.stored();
  }

  async stored() {
    const response = await fetch(`${this.api}/${this.chat.id}/messages`);
    assert.equal(response.status, 200);
    return response.json();
  }

  end() {
    const { isDisconnect, isError } = this.finish ?? {};
    if (isDisconnect) return "cut";
    if (isError || this.chat.error) return "failed";
    const { metadata, parts } = this.chat.lastMessage;
    if (metadata?.stopReason) return metadata.stopReason === "cancelled" ? "cancelled" : "incomplete";
    return parts.some((part) => isToolUIPart(part) && awaits(part)) ? "waits" : "completed";
  }

  // What was streamed is what the server has.
  async check(end) {
    if (!["completed", "waits", "cancelled"].includes(end)) return;
    const plain = (messages) =>
      JSON.parse(JSON.stringify(messages))
        .filter(({ parts }) => parts.some(({ type }) => type !== "step-start"))
        .map(({ metadata, ...message }) => {
          if (message.role === "assistant") return { ...message, metadata };
          // Files have another address once they are stored.
          return { ...message, parts: message.parts.map(({ type, text }) => ({ type, text })) };
        });
    assert.deepStrictEqual(plain(this.state.messages), plain(await this.stored()));
  }

  async seen() {
    const end = this.end();
    await this.check(end);
    const seen = { texts: [], said: [], reasoning: [], calls: [], order: [], growths: this.growths };
    for (const { role, parts } of this.state.messages) {
      if (role !== "assistant") continue;
      for (const part of parts) this.add(seen, part, end);
    }
    const error = end === "failed" ? (this.chat.error?.message ?? "") : "";
    return {
      ...seen,
      end,
      error,
      more: {
        chat: this.chat.id,
        status: this.chat.status,
        messages: this.state.messages,
        requests: this.requests,
        called: this.called,
      },
    };
  }

  add(seen, part, end) {
    if (part.type === "text") {
      const kind = part.providerMetadata?.treadle ? "said" : "text";
      // What was taken back is shown until the message ends.
      if (part.state !== "done") return assert.ok(["cut", "failed"].includes(end));
      seen.order.push(kind);
      seen[kind === "said" ? "said" : "texts"].push(part.text);
    } else if (part.type === "reasoning") seen.reasoning.push(part.text);
    else if (isToolUIPart(part)) {
      const output = outputOf(part);
      seen.order.push("call", ...(output === null ? [] : ["output"]));
      seen.calls.push({
        id: part.toolCallId,
        name: part.type === "dynamic-tool" ? part.toolName : part.type.slice(5),
        arguments: JSON.stringify(part.input),
        awaits: awaits(part),
        output,
      });
    }
  }
}

function awaits({ state, providerExecuted }) {
  if (state === "approval-requested") return "approval";
  return state === "input-available" && !providerExecuted ? "output" : "";
}

function outputOf({ state, output, errorText, approval }) {
  if (state === "output-available") return typeof output === "string" ? output : JSON.stringify(output);
  if (state === "output-error") return errorText;
  if (state !== "output-denied") return null;
  return approval.reason ? `The call was denied: ${approval.reason}` : "The call was denied.";
}

const persons = new Map();

async function play({ id, person, verb, ...given }) {
  try {
    // How often a text has grown so far, while another verb is in progress.
    if (verb === "growths") return { id, seen: persons.get(person)?.growths ?? 0 };
    if (!persons.has(person)) persons.set(person, new Person(given));
    const one = persons.get(person);
    await one[verb](given);
    return { id, seen: await one.seen() };
  } catch (error) {
    return { id, failed: error.stack };
  }
}

for await (const line of createInterface({ input: process.stdin }))
  void play(JSON.parse(line)).then((answer) => console.log(JSON.stringify(answer)));
