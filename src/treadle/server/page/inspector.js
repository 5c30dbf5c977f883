// What is inside a thread: its runs and their time, its context, memory, jobs and events.

import { html, Component, useState } from "./vendor/htm-preact.js";
import { Diff } from "./blocks.js";
import { duration, inFuture, momentOf, price, timeOf, tokens } from "./format.js";
import { messageText, textOf } from "./fold.js";
import { timelineOf } from "./timeline.js";
import { CopyButton, Icon, IconButton, ProblemNote, sentenceOf, Untrusted, useLoaded } from "./ui.js";

const TABS = [
  ["runs", "Runs"],
  ["context", "Context"],
  ["memory", "Memory"],
  ["schedules", "Schedules"],
  ["jobs", "Jobs"],
  ["events", "Events"],
];

export class Inspector extends Component {
  state = { tab: localStorage.getItem("inspector") ?? "runs" };

  choose(tab) {
    localStorage.setItem("inspector", tab);
    this.setState({ tab });
  }

  render({ thread, client, agents, onClose }, { tab }) {
    const Panel = PANELS[tab] ?? Runs;
    return html`<aside class="inspector" aria-label="Inspector">
      <header class="bar">
        <div class="tabs" role="tablist">
          ${TABS.map(([name, label]) => html`<button key=${name} type="button" role="tab" id=${`tab-${name}`}
            aria-selected=${tab === name} class=${tab === name ? "tab chosen" : "tab"} onClick=${() => this.choose(name)}>
            ${label}</button>`)}
        </div>
        <${IconButton} icon="x" label="Close the inspector" onClick=${onClose} />
      </header>
      <div class="inspector-body" role="tabpanel" aria-labelledby=${`tab-${tab}`} tabindex="0">
        <${Panel} thread=${thread} client=${client} agents=${agents} />
      </div>
    </aside>`;
  }
}

// Runs

class Runs extends Component {
  state = { chosen: null };

  render({ thread, client }, { chosen }) {
    return html`<${RunList} thread=${thread} client=${client} chosen=${chosen}
      onChoose=${(id) => this.setState({ chosen: id })} />`;
  }
}

function RunList({ thread, client, chosen, onChoose }) {
  const { view } = thread;
  const { value, error } = useLoaded(
    () => client.get(`/threads/${thread.id}/runs`, { order: "desc", limit: 50 }),
    [thread.id, view.ended, view.run?.id],
  );
  const runs = value?.data ?? [];
  const open = chosen ?? runs[0]?.id;
  return html`<${ProblemNote} error=${error} />
    ${value && !runs.length && html`<p class="quiet">No runs yet.</p>`}
    ${runs.map((run) => html`<section key=${run.id} class="run">
      <button type="button" class="card-head" aria-expanded=${run.id === open} onClick=${() => onChoose(run.id === open ? "" : run.id)}>
        <${Icon} name=${run.id === open ? "chevron-down" : "chevron-right"} />
        <span class="card-name">${run.agents?.join(" → ") ?? run.agent}</span>
        <span class="card-state"><span class="status ${run.status}">${run.status.replace("_", " ")}</span></span>
      </button>
      ${run.id === open && html`<${RunDetails} run=${run} thread=${thread} client=${client} />`}
    </section>`)}`;
}

function RunDetails({ run, thread, client }) {
  const live = thread.view.run?.id === run.id ? thread.view.run : null;
  const { value, error } = useLoaded(
    () => eventsOfRun(client, thread.id, run),
    [run.id, run.status, live?.step, live?.phase, live?.status],
  );
  const { bars, seconds } = timelineOf(value ?? [], Date.now() / 1000);
  const usage = run.last_seq ? run.usage : usageSoFar(bars);
  const facts = [
    ["Id", run.id],
    ["Began", run.started_at ? momentOf(run.started_at) : ""],
    ["Took", duration(seconds)],
    ["Tokens", usage ? `${tokens(usage.input_tokens)} in, ${tokens(usage.output_tokens)} out` : ""],
    ["From the cache", usage?.cached_input_tokens ? cached(usage) : ""],
    ["Web searches", usage?.web_searches ?? ""],
    ["File searches", usage?.file_searches ?? ""],
    ["Containers of code", usage?.code_containers ?? ""],
    ["Cost", price(run.cost)],
    ["Stop reason", run.stop_reason ?? ""],
    ["Error", run.error?.message ?? ""],
  ].filter(([, text]) => text);
  return html`<div class="run-body">
    <${ProblemNote} error=${error} />
    <${Timeline} bars=${bars} seconds=${seconds} />
    <dl class="facts-list">${facts.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>
  </div>`;
}

async function eventsOfRun(client, threadId, run) {
  const events = [];
  let after = Math.max((run.first_seq ?? 1) - 2, 0);
  for (;;) {
    const page = await jsonEvents(client, threadId, after);
    events.push(...page.data.filter((event) => event.run_id === run.id));
    const over = events.some((event) => event.type.startsWith("run.") && event.seq === run.last_seq);
    if (!page.next || over || page.data.some((event) => run.last_seq && event.seq >= run.last_seq)) return events;
    after = page.next;
  }
}

async function jsonEvents(client, threadId, after) {
  const address = client.address(`/threads/${threadId}/events`, { after, limit: 500 });
  const response = await fetch(address, { headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`The server answered with ${response.status}.`);
  return response.json();
}

// What the responses of a run in progress used, whose sum is known at its end.
function usageSoFar(bars) {
  const used = bars.map((bar) => bar.usage).filter(Boolean);
  const sum = (name) => used.reduce((total, usage) => total + (usage[name] ?? 0), 0);
  return used.length && Object.fromEntries(
    ["input_tokens", "output_tokens", "cached_input_tokens"].map((name) => [name, sum(name)]),
  );
}

// The tokens of the input that the provider had cached, with their share.
const cached = ({ cached_input_tokens: count, input_tokens: all }) =>
  `${tokens(count)} (${Math.round((100 * count) / all)} %)`;

function Timeline({ bars, seconds }) {
  if (!bars.length) return null;
  const share = (part) => `${Math.max(0, Math.min(100, (100 * part) / seconds))}%`;
  return html`<ol class="timeline">
    ${bars.map((bar, index) => html`<li key=${index} title=${bar.detail}>
      <span class="timeline-label"><${Untrusted} text=${bar.label} /></span>
      <svg class="timeline-track" height="8" width="100%" aria-hidden="true">
        <rect class=${bar.kind} x=${share(bar.from)} width=${share(Math.max(bar.to - bar.from, seconds / 200))} y="0" height="8" rx="2" />
      </svg>
      <span class="quiet timeline-time">${duration(bar.to - bar.from)}
        ${bar.usage && html`<span title="tokens read and written"> · ${tokens(bar.usage.input_tokens)}/${tokens(bar.usage.output_tokens)}</span>`}
      </span>
    </li>`)}
  </ol>`;
}

// Context

function Context({ thread, client, agents }) {
  const { view } = thread;
  const { value, error } = useLoaded(async () => {
    const page = await lastEvents(client, thread.id, view);
    return page.filter((event) => event.type === "response.completed").at(-1) ?? null;
  }, [thread.id, view.ended, view.run?.step]);
  const agent = agents.find((one) => one.name === view.thread?.agent);
  const size = agent?.window ?? null;
  const used = value?.usage.input_tokens ?? 0;
  const counts = countByKind(view.blocks);
  return html`<${ProblemNote} error=${error} />
    ${value
      ? html`<h2>The last request</h2>
        <${Meter} used=${used} size=${size} />
        <p class="facts">${tokens(used)} tokens${size ? ` of ${tokens(size)}` : ""}
          ${value.frame_tokens && value.frame_tokens < used ? ` · about ${tokens(value.frame_tokens)} of them instructions and tools` : ""}
          ${value.usage.cached_input_tokens ? ` · ${cached(value.usage)} from the cache` : ""}</p>`
      : value === null && html`<p class="quiet">The model has not been asked yet.</p>`}
    <h2>What is in the conversation</h2>
    <dl class="facts-list">${counts.map(([label, count, characters]) => html`<div key=${label}>
      <dt>${label}</dt><dd>${count} · ${tokens(characters)} characters</dd></div>`)}</dl>
    ${agent && html`<h2>Tools that the model sees</h2>
      <ul class="tools">${agent.tools.map((tool) => html`<li key=${tool.name} title=${tool.description}>
        <code>${tool.name}</code>${tool.needs_approval ? " · asks first" : ""}${tool.external ? " · answered by people" : ""}</li>`)}</ul>`}`;
}

async function lastEvents(client, threadId, view) {
  const known = view.thread?.last_seq ?? 0;
  let after = Math.max(known - 200, 0);
  const events = [];
  for (;;) {
    const page = await jsonEvents(client, threadId, after);
    events.push(...page.data);
    if (!page.next) return events;
    after = page.next;
  }
}

function Meter({ used, size }) {
  const share = size ? Math.min(1, used / size) : 0;
  return html`<svg class="meter" height="10" width="100%" role="img"
    aria-label=${size ? `${Math.round(share * 100)} % of the window is used` : "The size of the window is unknown"}>
    <rect class="meter-back" width="100%" height="10" rx="3" />
    <rect class=${share > 0.85 ? "meter-high" : "meter-used"} width=${`${share * 100}%`} height="10" rx="3" />
  </svg>`;
}

function countByKind(blocks) {
  const kinds = { user: "Messages of people", text: "Answers", reasoning: "Reasoning", call: "Tool calls" };
  return Object.entries(kinds)
    .map(([kind, label]) => {
      const those = blocks.filter((block) => block.kind === kind && !block.gone);
      const size = those.reduce((sum, block) => sum + (block.arguments ?? textOf(block)).length +
        (typeof block.output === "string" ? block.output.length : 0) +
        (block.item && kind === "user" ? block.item.content.reduce((all, part) => all + (part.text ?? "").length, 0) : 0), 0);
      return [label, those.length, size];
    })
    .filter(([, count]) => count);
}

// Memory

function MemoryPanel({ thread, client }) {
  const { value, error } = useLoaded(() => client.get(`/threads/${thread.id}/memory`), [thread.id, thread.view.memory, thread.view.ended]);
  const blocks = value?.data ?? [];
  return html`<${ProblemNote} error=${error} />
    ${value && !blocks.length && html`<p class="quiet">This conversation has no memory blocks.</p>`}
    ${blocks.map((block) => html`<${MemoryBlock} key=${block.label} block=${block} thread=${thread} client=${client} />`)}`;
}

const BLOCK_CHARS = 5000;

class MemoryBlock extends Component {
  state = { changes: null, error: null, draft: null };

  async act(does) {
    try {
      await does();
      this.setState({ error: null });
    } catch (error) {
      this.setState({ error });
    }
  }

  get path() {
    return `/threads/${this.props.thread.id}/memory/${encodeURIComponent(this.props.block.label)}`;
  }

  load = () => this.act(async () => {
    const { data } = await this.props.client.get(`${this.path}/changes`);
    this.setState({ changes: data });
  });

  undo = (seq) => this.act(async () => {
    await this.props.client.post(`${this.path}/undo`, seq ? { seq } : {});
    await this.load();
  });

  save = () => this.act(async () => {
    await this.props.client.request("PUT", this.path, { body: { value: this.state.draft } });
    this.setState({ draft: null });
  });

  render({ block }, { changes, error, draft }) {
    const { value = "", limit = BLOCK_CHARS } = block; // left out where they are the default
    return html`<section class="memory">
      <h2>${block.label} ${block.read_only && html`<span class="quiet">read-only for the model</span>`}</h2>
      ${block.description && html`<p class="quiet">${block.description}</p>`}
      ${draft === null
        ? html`<pre class="plain"><${Untrusted} text=${value || "(empty)"} /></pre>`
        : html`<textarea rows="6" aria-label=${`Text of ${block.label}`} value=${draft}
            onInput=${(event) => this.setState({ draft: event.target.value })}></textarea>`}
      <${Meter} used=${value.length} size=${limit} />
      <p class="facts">${value.length.toLocaleString("en")} of ${limit.toLocaleString("en")} characters</p>
      ${error && html`<p class="problem" role="alert">${sentenceOf(error)}</p>`}
      <div class="buttons">
        ${draft === null
          ? html`<button type="button" class="small-button" onClick=${() => this.setState({ draft: value })}><${Icon} name="pencil" size=${14} />Edit</button>
            <button type="button" class="small-button" aria-expanded=${changes !== null}
              onClick=${() => (changes ? this.setState({ changes: null }) : this.load())}><${Icon} name="clock" size=${14} />Changes</button>
            <button type="button" class="small-button" onClick=${() => this.undo()}><${Icon} name="undo-2" size=${14} />Undo</button>`
          : html`<button type="button" class="small-button" onClick=${() => this.setState({ draft: null })}>Cancel</button>
            <button type="button" class="small-button" onClick=${this.save}><${Icon} name="check" size=${14} />Save</button>`}
      </div>
      ${changes && (changes.length ? [...changes].reverse().map((change) => html`<div key=${change.seq} class="change">
        <p class="facts">${change.operation} by ${change.by || change.author}, ${change.at ? timeOf(change.at) : ""}</p>
        <${Diff} event=${change} />
      </div>`) : html`<p class="quiet">No changes yet.</p>`)}
    </section>`;
  }
}

// Schedules

function Schedules({ thread, client }) {
  const [cancelled, setCancelled] = useState(0);
  const path = `/threads/${thread.id}/schedules`;
  const { value, error } = useLoaded(() => client.get(path), [thread.id, thread.view.schedules, cancelled]);
  const schedules = value?.data ?? [];
  const cancel = async (id) => {
    await client.request("DELETE", `${path}/${encodeURIComponent(id)}`);
    setCancelled(cancelled + 1);
  };
  return html`<${ProblemNote} error=${error} />
    ${value && !schedules.length && html`<p class="quiet">No message is scheduled for this conversation.</p>`}
    ${schedules.map((one) => html`<${ScheduleEntry} key=${one.id} schedule=${one} onCancel=${() => cancel(one.id)} />`)}`;
}

class ScheduleEntry extends Component {
  state = { isBusy: false, error: null };

  cancel = async () => {
    this.setState({ isBusy: true, error: null });
    try {
      await this.props.onCancel();
    } catch (error) {
      this.setState({ error, isBusy: false });
    }
  };

  render({ schedule }, { isBusy, error }) {
    const { item, due_at: dueAt, cron, tz, agent, author, by } = schedule;
    const facts = [
      ["Next", `${momentOf(dueAt)} (${inFuture(dueAt)})`],
      ["Repeats", cron ? `${cron} (${tz || "UTC"})` : "once"],
      ["Agent", agent ?? ""],
      ["Made by", by || (author === "model" ? "the model" : "")],
    ].filter(([, text]) => text);
    return html`<section class="memory schedule">
      <pre class="plain"><${Untrusted} text=${messageText(item) || "(files)"} /></pre>
      <dl class="facts-list">${facts.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd><${Untrusted} text=${text} /></dd></div>`)}</dl>
      <${ProblemNote} error=${error} />
      <div class="buttons"><button type="button" class="small-button" disabled=${isBusy} onClick=${this.cancel}>
        <${Icon} name="x" size=${14} />Cancel</button></div>
    </section>`;
  }
}

// Jobs

function Jobs({ thread, client }) {
  const jobs = [...thread.view.jobs.values()];
  if (!jobs.length) return html`<p class="quiet">No jobs were started since this page was opened.</p>`;
  const children = (parent) => jobs.filter((job) => (job.parent ?? "") === parent || (parent === "" && !thread.view.jobs.has(job.parent ?? "")));
  const tree = (parent) => {
    const those = children(parent).filter((job) => job.id !== parent);
    return those.length > 0 && html`<ul class="job-tree">${those.map((job) => html`<li key=${job.id}>
      <span class="status ${job.status}">${job.status}</span> <${Untrusted} text=${job.name} />
      ${job.agent && html` <span class="quiet">${job.agent}</span>`}
      ${job.seconds ? html` <span class="quiet">${duration(job.seconds)}</span>` : ""}
      ${job.message && html`<p class="problem"><${Untrusted} text=${job.message} /></p>`}
      ${job.status === "running" && html` <button type="button" class="small-button"
        onClick=${() => client.post(`/threads/${thread.id}/jobs/${job.id}/cancel`)}>Cancel</button>`}
      ${tree(job.id)}
    </li>`)}</ul>`;
  };
  return tree("");
}

// Events

class Events extends Component {
  state = { filter: "" };

  render({ thread }, { filter }) {
    const log = thread.log.filter(({ event }) => event.type.includes(filter)).slice(-300).reverse();
    return html`<div class="buttons">
        <${CopyButton} label="as curl" text=${() => asCurl(thread)} />
        <${CopyButton} label="as Python" text=${() => asPython(thread)} />
      </div>
      <label class="search"><${Icon} name="search" /><span class="hidden-label">Filter by type</span>
        <input type="search" placeholder="Type" value=${filter} onInput=${(event) => this.setState({ filter: event.target.value })} /></label>
      ${!log.length && html`<p class="quiet">Events that arrive while this page is open are listed here.</p>`}
      <ol class="events">${log.map(({ event, position, at }) => html`<li key=${position}>
        <details><summary><code>${event.type}</code><span class="quiet">${position} · ${timeOf(at)}</span></summary>
          <pre class="plain" tabindex="0"><${Untrusted} text=${JSON.stringify(event, null, 2)} /></pre></details>
      </li>`)}</ol>`;
  }
}

const asCurl = (thread) =>
  `curl -N "${location.origin}/api/v1/threads/${thread.id}/events" -H "Authorization: Bearer $TREADLE_KEY"`;

const asPython = (thread) => `import asyncio

from treadle.client import Client


async def main():
    async with Client("${location.origin}") as client:  # the key is in TREADLE_KEY
        thread = await client.connect("${thread.id}")
        async for event in thread.subscribe():
            print(event)


asyncio.run(main())
`;

const PANELS = {
  runs: Runs, context: Context, memory: MemoryPanel, schedules: Schedules, jobs: Jobs, events: Events,
};
