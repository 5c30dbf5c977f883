// The page: who is logged in, which panel is open, and the data that all panels share.

import { html, render, Component } from "./vendor/htm-preact.js";
import { Client, Problem } from "/client.js";
import { Desk } from "./desk.js";
import { waitingCalls } from "./fold.js";
import { newKey } from "./format.js";
import { Inspector } from "./inspector.js";
import { notify } from "./notify.js";
import { Conversation, NewConversation } from "./talk.js";
import { OpenThread } from "./thread.js";
import { restoreTheme, Threads } from "./threads.js";
import { ProblemNote } from "./ui.js";

const DESK_REFRESH = 4000;
const client = new Client();

class App extends Component {
  state = {
    me: undefined, problem: null, agents: [], thread: null, isDesk: false, version: 0, changes: 0,
    calls: [], callsError: null, showsThreads: false,
    isInspecting: matchMedia("(min-width: 1200px)").matches && localStorage.getItem("inspecting") !== "no",
  };

  async componentDidMount() {
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", this.onKey);
    await this.begin();
  }

  /** Exchanges the key in the address, if there is one, and asks who this is. */
  begin = async () => {
    const key = new URLSearchParams(location.hash.replace(/^#\/?/, "")).get("key");
    if (key) history.replaceState(null, "", location.pathname);
    try {
      if (key) await logIn(key);
      const me = await client.get("/me");
      const { data } = await client.get("/agents");
      this.setState({ me, agents: data, problem: null }, () => this.route());
      this.loadCalls();
      this.desk ??= setInterval(() => !document.hidden && this.loadCalls(), DESK_REFRESH);
    } catch (error) {
      if (error instanceof Problem && error.status === 401) this.setState({ me: null, problem: key ? error : null });
      else {
        this.setState({ problem: error });
        setTimeout(this.begin, 2000);
      }
    }
  };

  onKey = (event) => {
    if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.querySelector(".threads input[type=search]")?.focus();
    } else if (event.key === "Escape" && this.state.showsThreads) {
      this.setState({ showsThreads: false });
    }
  };

  route() {
    if (!this.state.me) return;
    const [, name, id] = location.hash.split("/");
    const { thread } = this.state;
    this.setState({ isDesk: name === "desk", showsThreads: false });
    if (name !== "t") {
      thread?.close();
      this.setState({ thread: null });
    } else if (thread?.id !== decodeURIComponent(id)) {
      thread?.close();
      this.setState({ thread: this.open(decodeURIComponent(id)) });
    }
  }

  open(id) {
    let listed = "";
    let waited = 0;
    const opened = new OpenThread(client, id, this.toUser, () => {
      if (this.state.thread !== opened) return;
      const { view } = opened;
      const title = view.thread?.title || "treadle";
      const waiting = waitingCalls(view).length;
      document.title = `${waiting ? "Waits for you: " : view.run ? "… " : ""}${title}`;
      if (waiting > waited) notify(id, title);
      // What the list of conversations and the desk show of it.
      const now = `${view.ended} ${view.run?.status} ${waiting} ${title}`;
      const changes = this.state.changes + (now === listed ? 0 : 1);
      if (waiting !== waited) this.loadCalls();
      [listed, waited] = [now, waiting];
      this.setState({ version: this.state.version + 1, changes });
    });
    return opened;
  }

  /** Returns which argument of a tool is shown to the user. */
  toUser = (name) => {
    const tools = this.state.agents.flatMap((agent) => agent.tools);
    return tools.find((tool) => tool.name === name)?.to_user || "to_user";
  };

  loadCalls = async () => {
    try {
      const { data } = await client.get("/calls", { limit: 100 });
      this.setState({ calls: data, callsError: null });
    } catch (callsError) {
      this.setState({ callsError });
    }
  };

  start = async (agent, message) => {
    const { id } = await client.post("/threads", agent ? { agent } : {});
    const path = `/threads/${encodeURIComponent(id)}/messages`;
    await client.post(path, { message }, { idempotencyKey: newKey() });
    this.setState({ changes: this.state.changes + 1 });
    location.hash = `#/t/${encodeURIComponent(id)}`;
  };

  /** Copies a thread up to before the message of a run, and sends another in its place. */
  fork = async (thread, block, message) => {
    const path = `/threads/${encodeURIComponent(thread.id)}`;
    const run = await this.runOf(path, block.item.id);
    // The message is the event right before the start of its run.
    const copy = await client.post(`${path}/fork`, { at: run.first_seq - 2 });
    const copyPath = `/threads/${encodeURIComponent(copy.id)}/messages`;
    await client.post(copyPath, { message }, { idempotencyKey: newKey() });
    this.setState({ changes: this.state.changes + 1 });
    location.hash = `#/t/${encodeURIComponent(copy.id)}`;
  };

  rename = (thread, title) => client.request("PATCH", `/threads/${encodeURIComponent(thread.id)}`, { body: { title } });

  remove = async (thread) => {
    if (!confirm("Delete this conversation? It cannot be restored.")) return;
    await client.request("DELETE", `/threads/${encodeURIComponent(thread.id)}`);
    this.setState({ changes: this.state.changes + 1 });
    location.hash = "#/";
  };

  async runOf(path, messageId) {
    let after;
    do {
      const { data, next } = await client.get(`${path}/runs`, { after, limit: 200, order: "desc" });
      const found = data.find((run) => run.message_id === messageId && run.first_seq);
      if (found) return found;
      after = next;
    } while (after);
    throw new Error("Only a message that began an answer can be edited or sent again.");
  }

  toggleInspector = () => {
    const isInspecting = !this.state.isInspecting;
    localStorage.setItem("inspecting", isInspecting ? "yes" : "no");
    this.setState({ isInspecting });
  };

  toggleThreads = () => this.setState({ showsThreads: !this.state.showsThreads });

  logOut = async () => {
    await client.request("DELETE", "/session");
    this.state.thread?.close();
    this.setState({ me: null, thread: null, calls: [] });
  };

  render(_, state) {
    const { me, problem, agents, thread, isDesk, calls, callsError, changes, showsThreads, isInspecting } = state;
    if (me === undefined) return html`<div class="login"><${ProblemNote} error=${problem} onRetry=${this.begin} /></div>`;
    if (me === null) return html`<${Login} problem=${problem} onIn=${this.begin} />`;
    const inspects = isInspecting && thread !== null;
    return html`<div class="app ${showsThreads ? "shows-threads" : ""} ${inspects ? "inspects" : ""}">
      <a class="skip" href="#message">Skip to the message</a>
      <${Threads} client=${client} current=${thread?.id} isDesk=${isDesk} changes=${changes}
        waiting=${calls.length} onLogOut=${me.by ? this.logOut : null} />
      ${showsThreads && html`<button type="button" class="shade" aria-label="Close" onClick=${this.toggleThreads}></button>`}
      ${isDesk
        ? html`<${Desk} client=${client} calls=${calls} error=${callsError} onRetry=${this.loadCalls}
            onAnswered=${this.loadCalls} onToggleThreads=${this.toggleThreads} />`
        : thread
          ? html`<${Conversation} thread=${thread} version=${state.version} upload=${upload} onFork=${this.fork}
              onRename=${this.rename} onDelete=${this.remove}
              onToggleThreads=${this.toggleThreads} onToggleInspector=${this.toggleInspector} isInspecting=${inspects} />`
          : html`<${NewConversation} agents=${agents} upload=${upload} onStart=${this.start} onToggleThreads=${this.toggleThreads} />`}
      ${inspects && html`<${Inspector} thread=${thread} client=${client} agents=${agents} version=${state.version}
        onClose=${this.toggleInspector} />`}
    </div>`;
  }
}

const upload = (file) => client.request("POST", "/files", { body: file, query: { name: file.name } });

const logIn = (key) => new Client({ key }).post("/session");

class Login extends Component {
  state = { key: "", problem: this.props.problem };

  enter = async (event) => {
    event.preventDefault();
    try {
      await logIn(this.state.key.trim());
      await this.props.onIn();
    } catch (problem) {
      this.setState({ problem });
    }
  };

  render(_, { key, problem }) {
    return html`<form class="login" onSubmit=${this.enter}>
      <h1>treadle</h1>
      <p>Enter a key of this server. <code>treadle serve</code> prints one when it starts.</p>
      <label for="key">Key</label>
      <input id="key" type="password" autocomplete="current-password" value=${key}
        onInput=${(event) => this.setState({ key: event.target.value })} />
      <button type="submit" class="button primary" disabled=${!key.trim()}>Open</button>
      <${ProblemNote} error=${problem} />
    </form>`;
  }
}

restoreTheme();
render(html`<${App} />`, document.getElementById("app"));
