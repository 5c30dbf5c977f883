// A conversation: its lines, what waits to be read, its state, and the composer.

import { html, Component, useEffect, useState } from "./vendor/htm-preact.js";
import { BlockLine } from "./blocks.js";
import { Composer } from "./composer.js";
import { duration, tokens } from "./format.js";
import { messageText } from "./fold.js";
import { Icon, IconButton, ProblemNote, sentenceOf, Untrusted } from "./ui.js";

const PAGE = 80; // how many lines are in the document until the reader scrolls up
const AT_END = 48; // pixels from the end within which the view follows the text

/** The open thread. */
export class Conversation extends Component {
  state = { shown: PAGE, isAtEnd: true, draft: undefined, error: null };

  componentDidMount() {
    this.toEnd();
  }

  componentDidUpdate(before) {
    if (before.thread !== this.props.thread) {
      this.setState({ shown: PAGE, isAtEnd: true, draft: undefined, error: null });
      this.toEnd();
    } else if (this.state.isAtEnd) {
      this.toEnd();
    }
  }

  toEnd = () => {
    const list = this.list;
    if (list) list.scrollTop = list.scrollHeight;
  };

  onScroll = () => {
    const list = this.list;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END;
    if (isAtEnd !== this.state.isAtEnd) this.setState({ isAtEnd });
    if (list.scrollTop < 400) this.showEarlier();
  };

  /** Puts earlier lines into the document, without moving what is being read. */
  showEarlier() {
    const { list } = this;
    if (this.state.shown >= this.props.thread.view.blocks.length) return;
    const fromEnd = list.scrollHeight - list.scrollTop;
    this.setState({ shown: this.state.shown + PAGE }, () => {
      list.scrollTop = list.scrollHeight - fromEnd;
    });
  }

  act = async (does) => {
    this.setState({ error: null });
    try {
      return await does();
    } catch (error) {
      this.setState({ error });
      return null;
    }
  };

  actions = {
    approve: (callId, edited) => this.props.thread.approve(callId, edited),
    deny: (callId, reason) => this.props.thread.deny(callId, reason),
    answer: (callId, output) => this.props.thread.answer(callId, output),
    send: (text) => this.act(() => this.props.thread.send(text, "queue")),
    edit: (block) => this.setState({ draft: messageText(block.item), editing: block }),
    again: (block) => this.act(() => this.props.onFork(this.props.thread, block, block.item.content)),
  };

  onSend = async (message, mode) => {
    const { editing } = this.state;
    if (editing) {
      await this.props.onFork(this.props.thread, editing, message);
      this.setState({ editing: null, draft: undefined });
      return;
    }
    this.setState({ isAtEnd: true });
    await this.props.thread.send(message, mode);
  };

  render({ thread, onToggleThreads, onToggleInspector, isInspecting, upload }, { shown, isAtEnd, draft, error, editing }) {
    const { view } = thread;
    const blocks = view.blocks.slice(-shown).filter((block) => !block.gone);
    const isEmpty = thread.isLoaded && view.blocks.length === 0 && !view.run;
    return html`<main class="talk">
      <header class="bar">
        <${IconButton} icon="menu" label="Conversations" class="icon-button narrow-only" onClick=${onToggleThreads} />
        <${Title} key=${thread.id} title=${view.thread?.title ?? ""} onRename=${(title) => this.act(() => this.props.onRename(thread, title))} />
        ${view.thread?.forked_from && html`<a class="icon-button" href=${`#/t/${encodeURIComponent(view.thread.forked_from)}`}
          aria-label="The original conversation" title="The original conversation"><${Icon} name="git-branch" /></a>`}
        <span class="quiet agent-name">${view.run?.agent ?? view.thread?.agent ?? ""}</span>
        <span class="grow"></span>
        <${IconButton} icon="trash-2" label="Delete the conversation" disabled=${!view.thread}
          onClick=${() => this.act(() => this.props.onDelete(thread))} />
        <${IconButton} icon="panel-right" label="Inspector" aria-pressed=${isInspecting} onClick=${onToggleInspector} />
      </header>
      <${Connection} thread=${thread} />
      <div class="lines" ref=${(element) => element && (this.list = element)} onScroll=${this.onScroll}
        tabindex="0" role="log" aria-label="Conversation" aria-live="off">
        <div class="column">
          ${shown < view.blocks.length && html`<button type="button" class="button earlier"
            onClick=${() => this.showEarlier()}>Earlier messages</button>`}
          ${!thread.isLoaded && !thread.error && html`<${Loading} />`}
          ${isEmpty && html`<p class="empty">Nothing has been said here yet.</p>`}
          ${blocks.map((block) => html`<${BlockLine} key=${block.key} block=${block} actions=${this.actions} />`)}
          ${view.steering.map((item) => html`<${Waiting} key=${item.id} item=${item} label="Read before the next step" />`)}
          <${Activity} view=${view} />
          ${view.queue.map((one) => html`<${Waiting} key=${one.runId} item=${one.item} label="Waits for its turn"
            onCancel=${() => this.act(() => thread.cancel(one.runId))} />`)}
          <${ProblemNote} error=${error} />
        </div>
      </div>
      ${!isAtEnd && html`<button type="button" class="to-end" aria-label="To the end" title="To the end"
        onClick=${() => this.setState({ isAtEnd: true }, this.toEnd)}><${Icon} name="arrow-down" /></button>`}
      <footer class="column">
        ${editing && html`<p class="note editing"><${Icon} name="git-branch" />
          The edited message continues in a copy of the conversation.
          <button type="button" class="small-button" onClick=${() => this.setState({ editing: null, draft: undefined })}>Keep the original</button>
        </p>`}
        <${Composer} key=${thread.id} upload=${upload} run=${editing ? null : view.run} draft=${draft}
          keptAs=${editing ? "" : thread.id} onSend=${this.onSend}
          onStop=${() => this.act(() => thread.cancel(view.run.id))}
          onFinish=${() => this.act(() => thread.finish(view.run.id))} />
      </footer>
    </main>`;
  }
}

/** The title of a conversation, which a person may change. */
class Title extends Component {
  state = { draft: null };

  edit = () => this.setState({ draft: this.props.title }, () => this.input?.select());

  save = (event) => {
    event.preventDefault();
    const { draft } = this.state;
    this.setState({ draft: null });
    if (draft?.trim() && draft.trim() !== this.props.title) this.props.onRename(draft.trim());
  };

  onKeyDown = (event) => {
    if (event.key === "Escape") this.setState({ draft: null });
  };

  render({ title }, { draft }) {
    if (draft !== null) {
      return html`<form class="title-form" onSubmit=${this.save}>
        <input type="text" aria-label="Title" maxlength="200" value=${draft} ref=${(element) => (this.input = element)}
          onInput=${(event) => this.setState({ draft: event.target.value })} onKeyDown=${this.onKeyDown} onBlur=${this.save} />
      </form>`;
    }
    return html`<h1>${title ? html`<${Untrusted} text=${title} />` : "New conversation"}</h1>
      <${IconButton} icon="pencil" label="Rename" onClick=${this.edit} />`;
  }
}

/** What stands between the reader and the server, if anything does. */
function Connection({ thread }) {
  if (thread.error) {
    return html`<div class="connection bad" role="alert"><${Icon} name="triangle-alert" />
      ${thread.error.status === 404 || thread.error.status === 410
        ? "This conversation does not exist, or no longer does." : sentenceOf(thread.error)}</div>`;
  }
  if (thread.status === "waiting" || (thread.status === "connecting" && thread.isLoaded)) {
    return html`<div class="connection" role="status"><${Icon} name="loader-circle" spin />
      ${navigator.onLine ? "Reconnecting…" : "Offline. The conversation continues on the server."}
      <button type="button" class="small-button" onClick=${() => thread.retry()}>Try now</button></div>`;
  }
  return null;
}

const Loading = () => html`<div class="loading" role="status"><span class="hidden-label">Loading</span>
  <i></i><i></i><i></i></div>`;

function Waiting({ item, label, onCancel }) {
  return html`<article class="line user waiting-message" aria-label=${label}>
    <div class="bubble"><span class="plain-text"><${Untrusted} text=${messageText(item)} /></span></div>
    <p class="facts"><${Icon} name="clock" size=${12} />${label}
      ${onCancel && html` <button type="button" class="small-button" onClick=${onCancel}>Remove</button>`}</p>
  </article>`;
}

const PHASES = { waiting: "Waiting for the model", text: "Writing", reasoning: "Thinking", calls: "Calling tools", answered: "Working" };

/** One line that says what the run is doing. */
function Activity({ view }) {
  const { run } = view;
  const seconds = useSeconds(run?.startedAt ?? null);
  if (!run) return null;
  const doing = run.status === "requires_action" ? "Waits for an answer from you"
    : run.status === "cancelling" ? "Stopping" : PHASES[run.phase] ?? "Working";
  return html`<p class="activity" role="status">
    ${run.status === "requires_action" ? html`<${Icon} name="clock" />` : html`<span class="pulse" aria-hidden="true"></span>`}
    <span>${run.notice || doing}</span>
    <span class="quiet" aria-hidden="true">${[seconds === null ? "" : seconds < 60 ? `${seconds} s` : duration(seconds), run.tokens ? `${tokens(run.tokens)} tokens` : ""].filter(Boolean).join(" · ")}</span>
  </p>`;
}

/** The seconds since a time, renewed each second. */
function useSeconds(since) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    if (since === null) return undefined;
    setNow(Date.now() / 1000);
    const timer = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, [since]);
  return since === null ? null : Math.max(0, Math.floor(now - since));
}

/** A conversation that does not exist yet: who answers, and the first message. */
export class NewConversation extends Component {
  state = { agent: "", error: null };

  onSend = async (message) => {
    await this.props.onStart(this.agent?.name, message);
  };

  offer = async (example) => {
    try {
      await this.onSend(example);
    } catch (error) {
      this.setState({ error });
    }
  };

  get served() {
    return this.props.agents.filter((one) => one.serves);
  }

  get agent() {
    const agents = this.served;
    return agents.find((one) => one.name === this.state.agent) ?? agents[0];
  }

  render({ onToggleThreads, upload }, { error }) {
    const { agent, served: agents } = this;
    return html`<main class="talk">
      <header class="bar">
        <${IconButton} icon="menu" label="Conversations" class="icon-button narrow-only" onClick=${onToggleThreads} />
        <h1>New conversation</h1>
      </header>
      <div class="lines"><div class="column welcome">
        ${agents.length > 1 && html`<div class="agents" role="radiogroup" aria-label="Agent">
          ${agents.map((one) => html`<label key=${one.name} class=${one === agent ? "agent chosen" : "agent"}>
            <input type="radio" name="agent" value=${one.name} checked=${one === agent}
              onChange=${() => this.setState({ agent: one.name })} />
            <${Icon} name="bot" /><span>${one.name}</span></label>`)}
        </div>`}
        ${agent && html`<h2>${agent.name}</h2>
          <p>${agent.description || "What would you like to know?"}</p>
          ${(agent.examples ?? []).length > 0 && html`<ul class="examples">
            ${agent.examples.map((text) => html`<li key=${text}>
              <button type="button" class="button" onClick=${() => this.offer(text)}>${text}</button></li>`)}
          </ul>`}
          <${ProblemNote} error=${error} />
          <p class="facts">${agent.model}${agent.tools.length ? ` · ${agent.tools.map((tool) => tool.name).join(", ")}` : ""}</p>`}
      </div></div>
      <footer class="column"><${Composer} key="new" keptAs="new" upload=${upload} run=${null} onSend=${this.onSend} /></footer>
    </main>`;
  }
}
