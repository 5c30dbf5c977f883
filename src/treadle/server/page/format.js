// Numbers, times and untrusted texts as people read them.

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", year: "numeric" });

/** Returns how long ago a time (Unix seconds) was. */
export function ago(at, now = Date.now() / 1000) {
  const seconds = now - at;
  if (seconds < 60) return "now";
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86_400) return relative.format(-Math.floor(seconds / 3600), "hour");
  if (seconds < 7 * 86_400) return relative.format(-Math.floor(seconds / 86_400), "day");
  return day.format(at * 1000);
}

/** Returns in how long a time (Unix seconds) will be. */
export function inFuture(at, now = Date.now() / 1000) {
  const seconds = at - now;
  if (seconds < 60) return "now";
  if (seconds < 3600) return relative.format(Math.round(seconds / 60), "minute");
  if (seconds < 86_400) return relative.format(Math.round(seconds / 3600), "hour");
  return relative.format(Math.round(seconds / 86_400), "day");
}

/** Returns a time (Unix seconds) as hours and minutes. */
export const timeOf = (at) => clock.format(at * 1000);

/** Returns a time (Unix seconds) with its day. */
export const momentOf = (at) => `${day.format(at * 1000)}, ${timeOf(at)}`;

/** Returns a duration in seconds as a short text. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.001) return "<1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Returns a number of tokens as a short text. */
export function tokens(count = 0) {
  if (count < 10_000) return count.toLocaleString("en");
  return count < 1_000_000 ? `${(count / 1000).toFixed(1)}k` : `${(count / 1e6).toFixed(2)}M`;
}

/** Returns a price in dollars; empty for none. */
export function price(dollars) {
  if (!dollars) return "";
  return dollars < 0.01 ? `$${dollars.toFixed(5)}` : `$${dollars.toFixed(2)}`;
}

const HIDDEN =
  // eslint-disable-next-line no-control-regex
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\u{e0000}-\u{e0fff}]/gu;

/** Splits a text into what is visible and the names of characters that are not. */
export function visibleParts(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > from) parts.push({ text: text.slice(from, found.index) });
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push({ hidden: `U+${code}` });
    from = found.index + found[0].length;
  }
  if (from < text.length) parts.push({ text: text.slice(from) });
  return parts;
}

/** Parses JSON and keeps each number as it is written, where the browser can: 12345678901234567890. */
export const parseExactly = (json) =>
  JSON.parse(json, (_, value, context) =>
    typeof value === "number" && context?.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value);

/** Returns the arguments of a call as rows; null while they are no complete JSON object. */
export function argumentRows(json) {
  let value;
  try {
    value = parseExactly(json || "{}");
  } catch {
    return null;
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) return null;
  return Object.entries(value).map(([name, one]) => ({
    name,
    value: typeof one === "string" ? one : JSON.stringify(one, null, 2),
    isText: typeof one === "string",
  }));
}

const STOPS = {
  max_steps: "It reached its limit of steps.",
  max_tokens: "It reached its limit of tokens.",
  max_input_tokens: "It reached its limit of input tokens.",
  max_output_tokens: "The answer reached its limit of tokens.",
  max_cost: "It reached its limit of cost.",
  max_seconds: "It reached its limit of time.",
  max_tool_calls: "It reached its limit of tool calls.",
  content_filter: "The provider filtered the answer.",
};

/** Returns in a sentence why a run ended early; empty for a run that reached its end. */
export function endSentence({ status, stopReason, message }) {
  if (status === "failed") return message || "The run failed.";
  if (status === "cancelled") return "Stopped.";
  if (status === "expired") return "No answer came in time, so the run ended.";
  if (status === "incomplete") return STOPS[stopReason] ?? `It stopped: ${stopReason}.`;
  return stopReason === "finish_requested" ? "Finished early, as asked." : "";
}

/** Returns a new key for a request that may be repeated. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
