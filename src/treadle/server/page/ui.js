// Small parts that all panels use.

import { h, html, Component, useEffect, useState } from "./vendor/htm-preact.js";
import { ICONS } from "./vendor/icons.js";
import { visibleParts } from "./format.js";

/** An icon; decoration for the words beside it, so a screen reader skips it. */
export function Icon({ name, size = 16, spin = false }) {
  return h(
    "svg",
    {
      class: spin ? "icon spin" : "icon",
      width: size,
      height: size,
      viewBox: "0 0 24 24",
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 2,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
      "aria-hidden": "true",
    },
    ICONS[name].map(([tag, attributes]) => h(tag, attributes)),
  );
}

/** A button that shows only an icon; `label` is what it does. */
export function IconButton({ icon, label, onClick, ...more }) {
  return html`<button
    type="button" class="icon-button" aria-label=${label} title=${label} onClick=${onClick} ...${more}
  ><${Icon} name=${icon} /></button>`;
}

/** A text of a model or a tool: what would not be seen is named. */
export function Untrusted({ text }) {
  return visibleParts(text).map((part) =>
    part.hidden
      ? html`<span class="hidden-character" title="a character that is not visible">${part.hidden}</span>`
      : part.text,
  );
}

/** A button that copies a text, and says so. */
export function CopyButton({ text, label = "Copy" }) {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return undefined;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [isDone]);
  const copy = async () => setDone(await copyText(typeof text === "function" ? text() : text));
  return html`<button type="button" class="small-button" onClick=${copy}>
    <${Icon} name=${isDone ? "check" : "copy"} size=${14} />${isDone ? "Copied" : label}
  </button>`;
}

/** Copies a text; returns whether the browser allowed it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not over plain HTTP from another machine, or without permission
  }
}

/** A part that is drawn again only when one of its properties is another object. */
export class Pure extends Component {
  shouldComponentUpdate(next) {
    for (const name of Object.keys(next)) if (next[name] !== this.props[name]) return true;
    return false;
  }
}

/** Runs `load` now and whenever `changes` change; returns what it gave, and its error. */
export function useLoaded(load, changes) {
  const [result, setResult] = useState({ value: undefined, error: null });
  useEffect(() => {
    let isCurrent = true;
    load().then(
      (value) => isCurrent && setResult({ value, error: null }),
      (error) => isCurrent && setResult((before) => ({ value: before.value, error })),
    );
    return () => {
      isCurrent = false;
    };
  }, changes);
  return result;
}

/** A problem, in words, with a way to try again. */
export function ProblemNote({ error, onRetry }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    <${Icon} name="triangle-alert" /><span>${sentenceOf(error)}</span>
    ${onRetry && html`<button type="button" class="small-button" onClick=${onRetry}>Try again</button>`}
  </div>`;
}

/** Returns an error as a sentence. */
export const sentenceOf = (error) =>
  error instanceof TypeError ? "The server cannot be reached." : error.message;
