// The desk: all calls that wait for a person, over all conversations.

import { html, Component } from "./vendor/htm-preact.js";
import { BlockLine } from "./blocks.js";
import { ask, canAsk } from "./notify.js";
import { answerCall } from "./thread.js";
import { Icon, IconButton, ProblemNote } from "./ui.js";

export class Desk extends Component {
  state = { answered: new Set() };

  actionsFor(call) {
    const act = async (type, fields) => {
      await answerCall(this.props.client, call.thread_id, { type, call_id: call.call.call_id, ...fields });
      this.setState(({ answered }) => ({ answered: new Set(answered).add(call.call.call_id) }));
      this.props.onAnswered();
    };
    return {
      approve: (_, edited) => act("approve", { arguments: edited }),
      deny: (_, reason) => act("deny", { reason }),
      answer: (_, output) => act("output", { output }),
    };
  }

  render({ calls, error, onToggleThreads, onRetry }, { answered }) {
    const shown = calls.filter((one) => !answered.has(one.call.call_id));
    return html`<main class="talk">
      <header class="bar">
        <${IconButton} icon="menu" label="Conversations" class="icon-button narrow-only" onClick=${onToggleThreads} />
        <h1>Desk</h1><span class="quiet">${shown.length ? `${shown.length} ${shown.length === 1 ? "call waits" : "calls wait"} for a person` : ""}</span>
        <span class="grow"></span>
        ${canAsk() && html`<button type="button" class="small-button" onClick=${async () => { await ask(); this.setState({}); }}>
          <${Icon} name="clock" size=${14} />Notify me</button>`}
      </header>
      <div class="lines" tabindex="0"><div class="column">
        <${ProblemNote} error=${error} onRetry=${onRetry} />
        ${!shown.length && !error && html`<p class="empty"><${Icon} name="check" />Nothing waits for a person.</p>`}
        ${shown.map((one) => html`<section key=${`${one.thread_id}-${one.call.call_id}`} class="desk-call">
          <p class="facts"><a href=${`#/t/${one.thread_id}`}>${one.agent}</a>
            ${one.expires_at ? ` · expires ${new Date(one.expires_at * 1000).toLocaleString("en")}` : ""}</p>
          <${BlockLine} block=${blockOf(one)} actions=${this.actionsFor(one)} />
        </section>`)}
      </div></div>
    </main>`;
  }
}

const blockOf = ({ call, awaits, expires_at }) => ({
  kind: "call",
  key: call.call_id,
  callId: call.call_id,
  name: call.name,
  arguments: call.arguments,
  proposed: "",
  toUser: "",
  toUserField: "",
  awaits,
  status: "waiting",
  expiresAt: expires_at ?? null,
  progress: "",
  output: null,
});
