// The client for JavaScript: frames that are cut anywhere, and streams that break.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Client, FrameParser, Problem, Texts } from "../../../src/treadle/server/page/client.js";

const STREAM =
  "retry: 1000\nid: 0\n\n: keep-alive\r\n\r\nid: 3.1\revent: text.delta\rdata: {\"type\":\"text.delta\"," +
  '"delta":"grün 🌱"}\r\rid: 4\r\nevent: x\r\ndata: {"a":\r\ndata:1}\r\n\r\ndata: lost';

function parsed(pieces) {
  const frames = [];
  const parser = new FrameParser((frame) => frames.push(frame));
  for (const piece of pieces) parser.feed(piece);
  return frames;
}

test("frames are the same wherever the text is cut", () => {
  const whole = parsed([STREAM]);
  assert.deepEqual(whole, [
    { id: "0", type: "message", data: "" },
    { id: "3.1", type: "text.delta", data: '{"type":"text.delta","delta":"grün 🌱"}' },
    { id: "4", type: "x", data: '{"a":\n1}' },
  ]);
  for (let cut = 0; cut <= STREAM.length; cut += 1) {
    assert.deepEqual(parsed([STREAM.slice(0, cut), STREAM.slice(cut)]), whole, `cut at ${cut}`);
  }
  assert.deepEqual(parsed([...STREAM]), whole);
});

/** Serves one answer for each connection; returns the requests and the address. */
async function serving(t, answers) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push(request);
    const answer = answers[Math.min(requests.length, answers.length) - 1];
    answer(response, request);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { requests, client: new Client({ url: `http://127.0.0.1:${server.address().port}/` }) };
}

const frame = (id, event) => `id: ${id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
const delta = (id, text) => frame(id, { type: "text.delta", item_id: "m", delta: text });
const streams = (text, ends = true) => (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(text, () => ends && response.end());
};

test("a stream that breaks is continued from its position until the terminal event", async (t) => {
  const { requests, client } = await serving(t, [
    streams("id: 1\n\n" + delta("1.1", "Hel")),
    (response) => response.destroy(),
    (response) => response.writeHead(503).end(),
    streams(delta("1.2", "lo") + `event: stream.ended\ndata: {"reason":"draining"}\n\n`),
    streams(delta("1.3", "!") + frame("2", { type: "run.completed", run_id: "r" }), false),
  ]);
  const texts = [];
  for await (const { event } of client.events("/runs/r/events")) texts.push(event.delta ?? event.type);
  assert.deepEqual(texts, ["Hel", "lo", "!", "run.completed"]);
  assert.deepEqual(
    requests.map((request) => request.headers["last-event-id"]),
    [undefined, "1.1", "1.1", "1.1", "1.2"],
  );
});

test("a finished run that is resumed at its end is over", async (t) => {
  const { client } = await serving(t, [(response) => response.writeHead(204).end()]);
  for await (const one of client.events("/runs/r/events", { after: "9" })) assert.fail(one);
});

test("what no repetition can help is thrown", async (t) => {
  const problem = { code: "thread_not_found", detail: "The thread 't' does not exist.", retryable: false };
  const { requests, client } = await serving(t, [
    (response) => response.writeHead(404).end(JSON.stringify(problem)),
  ]);
  await assert.rejects(
    async () => {
      for await (const one of client.events("/threads/t/events")) assert.fail(one);
    },
    (error) => error instanceof Problem && error.code === "thread_not_found" && error.status === 404,
  );
  assert.equal(requests.length, 1);
  await assert.rejects(client.get("/threads/t"), /does not exist/);
});

test("a reader that leaves ends the connection", async (t) => {
  let closed;
  const isClosed = new Promise((resolve) => (closed = resolve));
  const { client } = await serving(t, [
    (response, request) => {
      request.on("close", closed);
      streams(delta("1.1", "a") + delta("1.2", "b"), false)(response);
    },
  ]);
  for await (const { position } of client.events("/threads/t/events", { from: "now" })) {
    assert.equal(position, "1.1");
    break;
  }
  await isClosed;
});

test("a slow reader holds the connection back, and gets everything", async (t) => {
  const count = 60_000;
  let written = 0;
  const { client } = await serving(t, [
    (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const more = () => {
        while (written < count && !response.destroyed) {
          written += 1;
          if (!response.write(delta(`1.${written}`, "x".repeat(500)))) {
            response.once("drain", more);
            return;
          }
        }
        response.end(frame("2", { type: "run.completed" }));
      };
      more();
    },
  ]);
  let read = 0;
  const ahead = [];
  for await (const { event } of client.events("/runs/r/events")) {
    if (event.type !== "text.delta") break;
    read += 1;
    while (read === 1 && ahead.length < 2) {
      await new Promise((resolve) => setTimeout(resolve, 400));
      ahead.push(written);
    }
  }
  assert.equal(read, count);
  assert.equal(ahead[0], ahead[1], "more was taken from the server while the reader had stopped");
  assert.ok(ahead[1] < count);
});

test("a subscription that is paused continues where it was", async (t) => {
  const { requests, client } = await serving(t, [
    streams(delta("1.1", "a"), false),
    streams(delta("1.2", "b"), false),
  ]);
  const seen = [];
  let saw = () => {};
  const stream = client.follow("/threads/t/events", {
    onEvent: (event) => {
      seen.push(event.delta);
      saw();
    },
  });
  const next = () => new Promise((resolve) => (saw = resolve));
  if (!seen.length) await next();
  stream.pause();
  assert.equal(stream.status, "paused");
  stream.retry();
  if (seen.length < 2) await next();
  stream.close();
  await stream.ended;
  assert.deepEqual(seen, ["a", "b"]);
  assert.equal(requests[1].headers["last-event-id"], "1.1");
});

test("a key is sent in a header only, and is not shown", async (t) => {
  const { requests, client } = await serving(t, [(response) => response.end("{}")]);
  await client.get("/me", { role: ["user", "assistant"], none: undefined });
  assert.equal(requests[0].url, "/api/v1/me?role=user&role=assistant");
  const { port } = requests[0].socket.address();
  const keyed = new Client({ url: `http://127.0.0.1:${port}`, key: "secret-key" });
  await keyed.post("/threads", {}, { idempotencyKey: "k" });
  assert.equal(requests[1].headers.authorization, "Bearer secret-key");
  assert.equal(requests[1].headers["idempotency-key"], "k");
  assert.ok(!JSON.stringify(keyed).includes("secret-key"));
});

const message = (id, text) => ({
  type: "message.added", origin: "model", seq: 1,
  item: { type: "message", role: "assistant", id, content: [{ type: "output_text", text }] },
});

test("texts are whole, and what broke off is taken back", async (t) => {
  const { client } = await serving(t, [
    streams(delta("1.1", "Wro") + frame("2", { type: "step.interrupted", seq: 2 })),
    streams(
      delta("2.1", "Hel") + delta("2.2", "lo") + frame("3", message("m", "Hello")) +
        frame("4", message("n", "World")) + frame("5", { type: "run.completed", run_id: "r" }),
      false,
    ),
  ]);
  const seen = [];
  for await (const texts of client.texts("/runs/r/events")) seen.push(texts.join("|"));
  assert.deepEqual(seen, ["Wro", "", "Hel", "Hello", "Hello|World"]);
  const again = await serving(t, [
    streams(frame("3", message("m", "Hello")) + frame("4", message("n", "World")) +
      frame("5", { type: "run.completed", run_id: "r" })),
  ]);
  assert.equal(await again.client.text("/runs/r/events"), "Hello\n\nWorld");
});

test("a run that fails is thrown after its text", async (t) => {
  const failed = { type: "run.failed", run_id: "r", code: "server_failed", message: "It broke.", retryable: true };
  const { client } = await serving(t, [streams(delta("1.1", "Hel") + frame("2", failed))]);
  const seen = [];
  await assert.rejects(
    async () => {
      for await (const texts of client.texts("/runs/r/events")) seen.push(...texts);
    },
    (error) => error instanceof Problem && error.code === "server_failed" && error.retryable,
  );
  assert.deepEqual(seen, ["Hel"]);
});

test("texts begin with the state of a thread", () => {
  const texts = new Texts();
  const user = { type: "message", role: "user", id: "u", content: [{ type: "input_text", text: "Hi" }] };
  texts.apply({ type: "thread.state", items: [user, message("a", "Old").item], step: null });
  assert.equal(texts.apply({ type: "text.delta", item_id: "b", delta: "New" }), true);
  assert.equal(texts.apply({ type: "text.delta", item_id: "a", delta: "!" }), false);
  assert.deepEqual(texts.all, ["Old", "New"]);
});
