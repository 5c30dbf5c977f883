// Sends a message and reads its run with an EventSource from npm, as a page would.
//
//     node event_source.mjs URL closes|stays

import { EventSource } from "eventsource";

import { Client, Texts } from "../../src/treadle/server/page/client.js";

const [url, end] = process.argv.slice(2);
const client = new Client({ url });
const thread = await client.post("/threads");
const sent = await client.post(`/threads/${thread.id}/messages`, { message: "Hi." });
const texts = new Texts();
const seen = { thread: thread.id, opens: 0, terminal: 0, deltas: 0 };
const source = new EventSource(client.address(`/runs/${sent.run_id}/events`));
const done = new Promise((resolve) => {
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) resolve();
  });
  source.addEventListener("run.completed", () => {
    seen.terminal += 1;
    if (end !== "closes") return; // it connects again, and stops at the answer 204
    source.close();
    resolve();
  });
});
source.addEventListener("open", () => (seen.opens += 1));
for (const type of ["text.delta", "message.added", "step.interrupted"]) {
  source.addEventListener(type, ({ data }) => {
    texts.apply(JSON.parse(data));
    if (type === "text.delta" && (seen.deltas += 1) === 3) console.log("writing");
  });
}
const other = client.text(`/runs/${sent.run_id}/events`); // the same with /client.js
await done;
console.log(JSON.stringify({ ...seen, texts: texts.all, other: await other }));
