// What a run did and when, as bars: a fold of its durable events.

/**
 * Returns the bars of a run: `{label, kind, from, to, detail}`, times in seconds since its start.
 *
 * @param {any[]} events the durable events of the run
 * @param {number} now Unix seconds, the end of what is still open
 */
export function timelineOf(events, now) {
  const bars = [];
  const tools = new Map();
  let step = null;
  let start = null;
  let last = 0;
  const at = (event) => event.at - start;
  for (const event of events) {
    if (start === null && event.at) start = event.at;
    last = event.at || last;
    switch (event.type) {
      case "step.started":
        step = { label: event.model, kind: "model", from: at(event), to: null, detail: `step ${event.step}` };
        bars.push(step);
        break;
      case "response.completed":
        if (!step) break;
        step.to = at(event);
        step.usage = event.usage;
        step.cost = event.cost ?? 0;
        break;
      case "step.interrupted":
        if (step && step.to === null) Object.assign(step, { to: at(event), kind: "broken", detail: event.reason });
        break;
      case "tool.started":
        tools.set(event.call_id, { label: event.name, kind: "tool", from: at(event), to: null, detail: event.attempt > 1 ? `attempt ${event.attempt}` : "" });
        bars.push(tools.get(event.call_id));
        break;
      case "run.requires_action":
        for (const id of event.call_ids) {
          tools.set(id, { label: "waiting for a person", kind: "person", from: at(event), to: null, detail: "" });
          bars.push(tools.get(id));
        }
        break;
      case "tool.approved":
      case "tool.output": {
        const bar = tools.get(event.call_id ?? event.item.call_id);
        if (bar && bar.to === null) {
          bar.to = at(event);
          if (event.item?.is_error) bar.kind = "broken";
        }
        break;
      }
      case "context.compacted":
        bars.push({ label: "compaction", kind: "model", from: at(event) - event.seconds, to: at(event), detail: event.strategy });
        break;
    }
  }
  const isOver = events.some((event) => TERMINAL.has(event.type));
  const end = isOver ? last - start : now - start;
  for (const bar of bars) if (bar.to === null) bar.to = Math.max(end, bar.from);
  return { bars, seconds: start === null ? 0 : Math.max(end, 0.001) };
}

const TERMINAL = new Set([
  "run.completed", "run.incomplete", "run.failed", "run.cancelled", "run.expired",
]);
