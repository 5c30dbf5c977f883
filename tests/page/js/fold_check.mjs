// Reads `{events, states}` and checks that the fold of the page agrees with the states of treadle.
//
// From each state the later events lead to the same lines as all events from the beginning.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { apply, emptyView, isOpen, messageText, textOf, viewOf } from "../../../src/treadle/server/page/fold.js";

const { events, states } = JSON.parse(readFileSync(0, "utf8"));

/** The lines that are items of the history, as a reader sees them. */
function lines(view) {
  return view.blocks
    .filter((block) => !block.gone && ["user", "text", "reasoning", "call", "hosted"].includes(block.kind))
    .map((block) => {
      if (block.kind === "user") return `${block.item.role}: ${messageText(block.item)}`;
      if (block.kind === "call") {
        const output = JSON.stringify(block.output);
        return `call ${block.name}(${block.arguments} for ${block.proposed}) "${block.toUser}" -> ${output}`;
      }
      if (block.kind === "hosted") return `hosted ${JSON.stringify(block.call)}`;
      return `${block.kind}: ${textOf(block)} ${JSON.stringify(block.sources ?? [])}`;
    });
}

const whole = emptyView();
for (const [, event] of events) apply(whole, event);
let compared = 0;

for (const { seq, state } of states) {
  const view = viewOf(state);
  const before = emptyView();
  for (const [at, event] of events) if (at <= seq && event.seq) apply(before, event);
  // What is in flight is not in a state; what is durable is in both.
  assert.deepEqual(lines(view), lines(before), `state ${seq}`);
  assert.equal(view.run?.id ?? null, before.run?.id ?? null, `run at ${seq}`);
  assert.deepEqual(view.queue.map((one) => one.runId), before.queue.map((one) => one.runId), `queue at ${seq}`);
  assert.deepEqual(view.steering.map((one) => one.id), before.steering.map((one) => one.id));
  const waiting = (one) => one.blocks.filter((b) => b.status === "waiting").map((b) => b.callId);
  assert.deepEqual(waiting(view), waiting(before), `waiting calls at ${seq}`);
  for (const [at, event] of events) if (at > seq) apply(view, event);
  assert.deepEqual(lines(view), lines(whole), `all after ${seq}`);
  compared += 1;
}
for (const block of whole.blocks) {
  assert.ok(block.gone || !block.isOpen, `${block.key} is still open`);
}
assert.equal(isOpen("completed"), false);
console.log(`${compared} states, ${lines(whole).length} lines`);
