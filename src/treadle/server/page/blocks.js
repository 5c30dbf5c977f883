// The lines of a conversation: messages, reasoning, tool calls, notes, and the ends of runs.

import { html, Component } from "./vendor/htm-preact.js";
import { argumentRows, duration, endSentence, parseExactly, price, tokens, visibleParts } from "./format.js";
import { messageText } from "./fold.js";
import { GrowingMarkdown } from "./markdown.js";
import { copyText, CopyButton, Icon, Pure, sentenceOf, Untrusted } from "./ui.js";

/** One block; drawn again only if the block, which is replaced by each change, is another. */
export class BlockLine extends Pure {
  render({ block, actions }) {
    switch (block.kind) {
      case "user":
        return html`<${UserMessage} block=${block} actions=${actions} />`;
      case "text":
        return html`<article class="line answer" aria-label="Assistant">
          <${Markdown} text=${block.text} chunks=${block.chunks} />
          <${Sources} sources=${block.sources} />
          ${block.unknownEnd && html`<p class="quiet">The provider ended the answer: ${block.unknownEnd}</p>`}
          ${!block.isOpen && actions && html`<div class="line-tools">
            <${CopyButton} text=${block.text} />
          </div>`}
        </article>`;
      case "reasoning":
        return html`<details class="line reasoning">
          <summary><${Icon} name="brain" />${block.isOpen ? "Thinking…" : "Thought"}</summary>
          <${Markdown} text=${block.text} chunks=${block.chunks} />
        </details>`;
      case "call":
        return html`<${CallCard} block=${block} actions=${actions} />`;
      case "hosted":
        return html`<${HostedCard} block=${block} />`;
      case "agent":
        return html`<section class="line card"><${SubAgent} block=${block} /></section>`;
      case "change":
        return html`<details class="line note">
          <summary><${Icon} name="database" />Memory updated: ${block.event.label}</summary>
          <${Diff} event=${block.event} />
        </details>`;
      case "note":
        return html`<p class="line note ${block.note}" title=${block.detail}>
          <${Icon} name=${NOTE_ICONS[block.note] ?? "flag"} />${block.text}
        </p>`;
      case "end":
        return html`<${RunEnd} block=${block} actions=${actions} />`;
      default:
        return null;
    }
  }
}

const NOTE_ICONS = { handoff: "corner-down-right", interrupted: "refresh-cw", compacted: "archive" };

function UserMessage({ block, actions }) {
  const { item, origin } = block;
  if (origin !== "user" || item.role !== "user") {
    const who = { hook: "The program", job: "A background job", runtime: "treadle", schedule: "The clock" };
    return html`<details class="line note">
      <summary><${Icon} name="terminal" />${who[origin] ?? item.role}: ${firstLine(messageText(item))}</summary>
      <pre class="plain"><${Untrusted} text=${messageText(item)} /></pre>
    </details>`;
  }
  return html`<article class="line user" aria-label="You">
    <div class="bubble">
      <${Parts} parts=${item.content} />
    </div>
    ${actions && html`<div class="line-tools">
      ${!block.steered && html`<button type="button" class="small-button" onClick=${() => actions.edit(block)}>
          <${Icon} name="pencil" size=${14} />Edit
        </button>
        <button type="button" class="small-button" onClick=${() => actions.again(block)}>
          <${Icon} name="rotate-ccw" size=${14} />Retry
        </button>`}
      <${CopyButton} text=${messageText(item)} />
    </div>`}
  </article>`;
}

const firstLine = (text) => {
  const line = text.trim().split("\n")[0];
  return line.length > 100 ? `${line.slice(0, 100)}…` : line;
};

/** Texts, images and files of a message or of an output. */
export function Parts({ parts }) {
  return parts.map((part) => {
    if (part.type === "input_image") return html`<${ImagePart} part=${part} />`;
    if (part.type === "input_file" || part.type === "input_audio") {
      return html`<${FilePart} part=${part} />`;
    }
    return html`<span class="plain-text"><${Untrusted} text=${part.text ?? part.refusal ?? ""} /></span>`;
  });
}

const contentOf = (id) => `/api/v1/files/${encodeURIComponent(id)}/content`;

function ImagePart({ part }) {
  const url = part.image_url ?? "";
  if (/^data:image\/(png|jpeg|gif|webp);base64,/.test(url) || part.file_id) {
    return html`<img class="attached" src=${part.file_id ? contentOf(part.file_id) : url} alt="attached image" />`;
  }
  return html`<${Address} url=${url} />`; // an image of another site is not loaded
}

function FilePart({ part }) {
  const name = part.filename || part.name || "file";
  if (!part.file_id) return html`<span class="attachment"><${Icon} name="file" />${name}</span>`;
  return html`<a class="attachment" href=${contentOf(part.file_id)} download=${name}><${Icon} name="file" />${name}</a>`;
}

function Address({ url, title }) {
  const text = html`<${Icon} name="link" /><${Untrusted} text=${(title || url).slice(0, 120)} />`;
  if (!/^https?:/i.test(url)) return html`<span class="attachment">${text}</span>`;
  return html`<a href=${url} title=${url} target="_blank" rel="noopener noreferrer" class="attachment">${text}</a>`;
}

/** The pages and files that a text or a call of a hosted tool has its facts from. */
class Sources extends Component {
  render({ sources = [] }, { isWhole }) {
    if (!sources.length) return null;
    const shown = isWhole ? sources : sources.slice(0, SHOWN_SOURCES);
    return html`<ul class="sources" aria-label="Sources">
      ${shown.map((one) => html`<li key=${one.url || one.file_id}>${one.type === "url_citation"
        ? html`<${Address} url=${one.url} title=${titleOf(one)} />`
        : html`<span class="attachment"><${Icon} name="file" /><${Untrusted} text=${one.filename || one.file_id} /></span>`}
      </li>`)}
      ${shown.length < sources.length && html`<li><button type="button" class="small-button"
        onClick=${() => this.setState({ isWhole: true })}>${sources.length - shown.length} more</button></li>`}
    </ul>`;
  }
}

const SHOWN_SOURCES = 6;

/** The title of a page with its host, which a title could lie about. */
function titleOf({ url, title }) {
  const host = URL.canParse?.(url) ? new URL(url).host : "";
  return title && host ? `${title.slice(0, 80)} · ${host}` : "";
}

/** A text in Markdown; while it grows, only its last block is rendered again. */
export class Markdown extends Component {
  componentDidMount() {
    this.growing = new GrowingMarkdown(this.element);
    this.show(this.props);
  }

  shouldComponentUpdate(next) {
    this.show(next);
    return false;
  }

  show({ text, chunks }) {
    if (text !== undefined) {
      if (text !== this.shown) this.growing.show(text);
      this.shown = text;
    } else {
      this.growing.grow(chunks);
    }
  }

  render() {
    return html`<div
      class="markdown"
      ref=${(element) => element && (this.element = element)}
      onClick=${copyCode}
    ></div>`;
  }
}

async function copyCode(event) {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const code = button.closest("figure").querySelector("code").textContent;
  button.textContent = (await copyText(code)) ? "Copied" : "Not allowed";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// Tool calls

const STATES = {
  writing: ["loader-circle", "is being written"],
  waiting: ["clock", "waits for you"],
  ready: ["loader-circle", "is about to start"],
  approved: ["loader-circle", "was approved"],
  running: ["loader-circle", "is running"],
  done: ["check", "done"],
  failed: ["triangle-alert", "failed"],
  ended: ["ban", "did not finish"],
};
const BUSY = new Set(["writing", "ready", "approved", "running"]);

export class CallCard extends Component {
  state = { isOpen: null };

  render({ block, actions }, { isOpen }) {
    const { name, status, awaits, seconds, toUser, agent } = block;
    const isWaiting = status === "waiting";
    const open = isOpen ?? (isWaiting || status === "failed");
    const [icon, word] = STATES[status];
    const label = isWaiting && awaits === "approval" ? "waits for approval"
      : isWaiting ? "waits for your answer" : word;
    return html`
      ${toUser && html`<article class="line answer" aria-label="Assistant">
        <${Markdown} text=${status === "writing" ? undefined : toUser} chunks=${[toUser]} />
      </article>`}
      <section class="line card ${isWaiting ? "waits" : status}" aria-label=${`Tool ${name}`}>
        <button
          type="button" class="card-head" aria-expanded=${open}
          onClick=${() => this.setState({ isOpen: !open })}
        >
          <${Icon} name=${open ? "chevron-down" : "chevron-right"} />
          <${Icon} name=${agent ? "bot" : "wrench"} />
          <span class="card-name"><${Untrusted} text=${name} /></span>
          <span class="card-hint"><${Untrusted} text=${open ? "" : hint(block)} /></span>
          <span class="card-state">
            ${seconds ? html`<span class="quiet">${duration(seconds)}</span>` : ""}
            <${Icon} name=${icon} spin=${BUSY.has(status)} /><span class="card-word">${label}</span>
          </span>
        </button>
        ${open && html`<div class="card-body">
          <${Arguments} json=${block.arguments} />
          ${block.proposed && html`<details class="proposed">
            <summary>Changed${block.answeredBy ? ` by ${block.answeredBy}` : ""} before it ran; the model wrote</summary>
            <${Arguments} json=${block.proposed} />
          </details>`}
          ${block.sub && html`<${SubAgent} block=${block} />`}
          ${block.output !== null && html`<${Output} block=${block} />`}
        </div>`}
        ${!open && block.progress && html`<p class="card-progress"><${Untrusted} text=${block.progress} /></p>`}
        ${open && block.progress && html`<p class="card-progress"><${Untrusted} text=${block.progress} /></p>`}
        ${isWaiting && actions && html`<${AnswerForm} key=${block.callId} block=${block} actions=${actions} />`}
      </section>`;
  }
}

function hint(block) {
  if (block.status === "failed") return firstLine(outputText(block.output));
  const rows = argumentRows(block.arguments);
  if (!rows) return block.arguments.slice(-80);
  return rows
    .filter((row) => row.name !== block.toUserField)
    .map((row) => row.value.replaceAll("\n", " "))
    .join(", ")
    .slice(0, 120);
}

const outputText = (output) =>
  typeof output === "string" ? output : (output ?? []).map((part) => part.text ?? "").join("");

function Arguments({ json }) {
  const rows = argumentRows(json);
  if (!rows) return html`<pre class="plain"><${Untrusted} text=${json} /></pre>`;
  if (!rows.length) return html`<p class="quiet">No arguments</p>`;
  return html`<dl class="arguments">
    ${rows.map((row) => html`<div key=${row.name}>
      <dt><${Untrusted} text=${row.name} /></dt>
      <dd><${Untrusted} text=${row.value} /></dd>
    </div>`)}
  </dl>`;
}

const HOSTED = {
  web_search: ["search", "Web search"],
  web_fetch: ["link", "Web page"],
  file_search: ["file", "File search"],
  code_interpreter: ["terminal", "Code"],
};

/** A call of a tool that the provider of the model runs. */
class HostedCard extends Component {
  state = { isOpen: null };

  render({ block }, { isOpen }) {
    const { call } = block;
    const [icon, title] = HOSTED[call.tool] ?? ["wrench", call.server ? `${call.server}: ${call.name}` : call.tool];
    const status = call.status === "failed" ? "failed" : call.status === "completed" ? "done"
      : block.isOpen ? "running" : "ended";
    // Code is read while the model writes it, and while it runs.
    const open = isOpen ?? (status === "failed" || block.isWritten);
    const [stateIcon, word] = STATES[status];
    return html`<section class="line card ${status}" aria-label=${title}>
      <button type="button" class="card-head" aria-expanded=${open} onClick=${() => this.setState({ isOpen: !open })}>
        <${Icon} name=${open ? "chevron-down" : "chevron-right"} />
        <${Icon} name=${icon} />
        <span class="card-name"><${Untrusted} text=${title} /></span>
        <span class="card-hint"><${Untrusted} text=${open ? "" : firstLine(call.arguments ?? "")} /></span>
        <span class="card-state">
          <${Icon} name=${stateIcon} spin=${status === "running"} /><span class="card-word">${word}</span>
        </span>
      </button>
      ${open && html`<div class="card-body">
        ${call.arguments && html`<${Arguments} json=${call.arguments} />`}
        <${Sources} sources=${call.sources} />
        ${call.output && html`<${Output} block=${{ output: call.output, status }} />`}
      </div>`}
    </section>`;
  }
}

const SHOWN_OUTPUT = 4000;

class Output extends Component {
  render({ block }, { isWhole }) {
    const { output } = block;
    const text = typeof output === "string" ? output : null;
    const isCut = text !== null && text.length > SHOWN_OUTPUT && !isWhole;
    return html`<div class="output ${block.status === "failed" ? "failed" : ""}">
      <p class="output-title">${block.status === "failed" ? "Error" : "Output"}
        ${block.answeredBy && html`<span class="quiet"> by ${block.answeredBy}</span>`}</p>
      ${text === null
        ? html`<${Parts} parts=${output} />`
        : html`<pre class="plain" tabindex="0"><${Untrusted} text=${isCut ? text.slice(0, SHOWN_OUTPUT) : text} /></pre>`}
      ${isCut && html`<button type="button" class="small-button" onClick=${() => this.setState({ isWhole: true })}>
        Show all ${text.length.toLocaleString("en")} characters
      </button>`}
    </div>`;
  }
}

/** Where a person approves, denies or answers a call, in its place. */
export class AnswerForm extends Component {
  state = { text: "", isBusy: false, error: null, edits: null };

  /** Begins to edit the arguments; what is said to the user is no argument of the tool. */
  edit = () => {
    const { block } = this.props;
    const rows = argumentRows(block.arguments) ?? [];
    this.setState({ edits: rows.filter((row) => row.name !== block.toUserField), error: null }, () =>
      this.base?.querySelector(".edits textarea")?.focus());
  };

  approve = () => this.act(() => {
    const { edits } = this.state;
    return this.props.actions.approve(this.props.block.callId, edits ? editedArguments(edits) : undefined);
  });

  async act(send) {
    this.setState({ isBusy: true, error: null });
    try {
      await send();
    } catch (error) {
      this.setState({ error });
    }
    this.setState({ isBusy: false });
  }

  render({ block, actions }, { text, isBusy, error, edits }) {
    const { callId } = block;
    const onInput = (event) => this.setState({ text: event.target.value });
    const isApproval = block.awaits === "approval";
    const submit = (event) => {
      event.preventDefault();
      if (!isApproval && text.trim()) this.act(() => actions.answer(callId, text));
    };
    const canEdit = isApproval && (argumentRows(block.arguments) ?? []).some((row) => row.name !== block.toUserField);
    return html`<form class="answer-form" onSubmit=${submit}>
      ${edits && html`<div class="edits">
        ${edits.map((row, index) => html`<${EditedArgument} key=${row.name} row=${row} id=${`edit-${callId}-${index}`}
          onInput=${(value) => this.setState({ edits: edits.map((one) => (one === row ? { ...row, value } : one)) })} />`)}
      </div>`}
      <label class="hidden-label" for=${`answer-${callId}`}>
        ${isApproval ? "Reason for a denial (optional)" : "Your answer"}
      </label>
      ${isApproval
        ? html`<input id=${`answer-${callId}`} type="text" value=${text} onInput=${onInput}
            placeholder="Reason, if you deny (optional)" />`
        : html`<textarea id=${`answer-${callId}`} rows="2" value=${text} onInput=${onInput}
            placeholder="Your answer"></textarea>`}
      <div class="buttons">
        ${isApproval
          ? html`<button type="button" class="button danger" disabled=${isBusy}
                onClick=${() => this.act(() => actions.deny(callId, text))}>
                <${Icon} name="x" />Deny</button>
              ${canEdit && html`<button type="button" class="button" disabled=${isBusy}
                onClick=${edits ? () => this.setState({ edits: null, error: null }) : this.edit}>
                <${Icon} name=${edits ? "undo-2" : "pencil"} />${edits ? "Keep the original" : "Edit"}</button>`}
              <button type="button" class="button primary" disabled=${isBusy} onClick=${this.approve}>
                <${Icon} name="check" />${edits ? "Approve with changes" : "Approve"}</button>`
          : html`<button type="submit" class="button primary" disabled=${isBusy || !text.trim()}>
                <${Icon} name="send" />Answer</button>`}
      </div>
      ${block.expiresAt && html`<p class="quiet">Expires ${new Date(block.expiresAt * 1000).toLocaleString("en")}</p>`}
      ${error && html`<p class="problem" role="alert">${sentenceOf(error)}</p>`}
    </form>`;
  }
}

/** One argument to edit: a text as it is, anything else as JSON. */
function EditedArgument({ row, id, onInput }) {
  const hasHidden = visibleParts(row.value).some((part) => part.hidden);
  return html`<div>
    <label for=${id}><${Untrusted} text=${row.name} /></label>
    <textarea id=${id} rows=${Math.min(8, row.value.split("\n").length)} value=${row.value} spellcheck="false"
      onInput=${(event) => onInput(event.target.value)}></textarea>
    ${hasHidden && html`<p class="quiet">With characters that are not visible: <${Untrusted} text=${row.value} /></p>`}
  </div>`;
}

/** Returns the arguments that were edited; throws where one is neither a text nor JSON. */
function editedArguments(edits) {
  return Object.fromEntries(edits.map(({ name, value, isText }) => {
    if (isText) return [name, value];
    try {
      return [name, parseExactly(value)];
    } catch {
      throw new Error(`${name} is not JSON; write a number, true, false, null, a list or an object.`);
    }
  }));
}

function SubAgent({ block }) {
  const blocks = (block.sub?.blocks ?? []).filter((one) => !one.gone);
  return html`<details class="sub-agent" open>
    <summary><${Icon} name="bot" />${block.agent} works</summary>
    ${blocks.map((one) => html`<${BlockLine} key=${one.key} block=${one} />`)}
  </details>`;
}

/** A change of a memory block, line by line. */
export function Diff({ event }) {
  const lines = [
    ...(event.removed ?? "").split("\n").filter(Boolean).map((text) => ["removed", "−", text]),
    ...(event.added ?? "").split("\n").filter(Boolean).map((text) => ["added", "+", text]),
  ];
  return html`<div class="diff">
    ${lines.map(([kind, mark, text]) => html`<div class=${kind}>
      <span aria-label=${kind}>${mark}</span><${Untrusted} text=${text} />
    </div>`)}
  </div>`;
}

function RunEnd({ block, actions }) {
  const sentence = endSentence(block);
  const { usage } = block;
  const facts = [
    duration(block.seconds),
    usage?.input_tokens && `${tokens(usage.input_tokens)} in, ${tokens(usage.output_tokens)} out`,
    price(block.cost),
  ].filter(Boolean);
  const isBad = block.status === "failed";
  return html`<div class="line run-end ${block.status}">
    ${sentence && html`<p class=${isBad ? "problem" : "note"} role=${isBad ? "alert" : undefined}>
      <${Icon} name=${isBad ? "triangle-alert" : "flag"} /><span><${Untrusted} text=${sentence} />
      ${block.code && html` <code>${block.code}</code>`}</span>
      ${actions && isBad && html`<button type="button" class="small-button" onClick=${() => actions.send("Please try again.")}>
        <${Icon} name="rotate-ccw" size=${14} />Try again</button>`}
    </p>`}
    ${facts.length > 0 && html`<p class="facts">${facts.join(" · ")}</p>`}
  </div>`;
}
