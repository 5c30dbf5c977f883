// The list of conversations: find one, begin one.

import { html, Component } from "./vendor/htm-preact.js";
import { ago } from "./format.js";
import { Icon, IconButton, ProblemNote } from "./ui.js";

const REFRESH = 4000;
const PAGE = 40;
const SEARCH_PAUSE = 200;

export class Threads extends Component {
  state = { list: [], next: null, search: "", found: null, error: null, isLoaded: false };

  componentDidMount() {
    this.refresh();
    this.timer = setInterval(() => !document.hidden && this.refresh(), REFRESH);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
    clearTimeout(this.searching);
  }

  componentDidUpdate(before) {
    if (before.changes !== this.props.changes) this.refresh();
  }

  async refresh() {
    const count = Math.max(PAGE, Math.min(this.state.list.length, 200));
    try {
      const { data, next } = await this.props.client.get("/threads", { limit: count });
      const rest = this.state.list.slice(count).filter((one) => !data.some((new_) => new_.id === one.id));
      this.setState({
        list: [...data, ...rest], next: rest.length ? this.state.next : next, error: null, isLoaded: true,
      });
    } catch (error) {
      this.setState({ error });
    }
  }

  more = async () => {
    try {
      const { data, next } = await this.props.client.get("/threads", { limit: PAGE, after: this.state.next });
      this.setState(({ list }) => ({
        list: [...list, ...data.filter((one) => !list.some((known) => known.id === one.id))], next,
      }));
    } catch (error) {
      this.setState({ error });
    }
  };

  onSearch = (event) => {
    const search = event.target.value;
    this.setState({ search, found: search ? this.state.found : null });
    clearTimeout(this.searching);
    if (search.trim()) this.searching = setTimeout(() => this.find(search), SEARCH_PAUSE);
  };

  async find(text) {
    try {
      const { data } = await this.props.client.get("/search", { text, limit: 30 });
      if (text === this.state.search) this.setState({ found: data, error: null });
    } catch (error) {
      if (text === this.state.search) this.setState({ error });
    }
  }

  render({ current, isDesk, waiting, onLogOut }, { list, next, search, found, error, isLoaded }) {
    const words = search.trim().toLowerCase();
    const shown = words ? list.filter((one) => one.title.toLowerCase().includes(words)) : list;
    const others = (found ?? []).filter((one) => !shown.some((known) => known.id === one.passage.thread_id));
    return html`<nav class="threads" aria-label="Conversations">
      <header class="bar">
        <a class="brand" href="#/">treadle</a><span class="grow"></span>
        <${IconButton} icon="moon" label="Dark or light" onClick=${toggleTheme} />
        ${onLogOut && html`<${IconButton} icon="log-out" label="Log out" onClick=${onLogOut} />`}
      </header>
      <div class="threads-top">
        <a class="button new" href="#/"><${Icon} name="plus" />New conversation</a>
        <a class=${isDesk ? "entry chosen" : "entry"} href="#/desk" aria-current=${isDesk ? "page" : undefined}>
          <${Icon} name="inbox" /><span class="entry-title">Desk</span>
          ${waiting > 0 && html`<span class="count" aria-label=${`${waiting} ${waiting === 1 ? "call waits" : "calls wait"}`}>${waiting}</span>`}
        </a>
        <label class="search"><${Icon} name="search" /><span class="hidden-label">Search</span>
          <input type="search" placeholder="Search" value=${search} onInput=${this.onSearch} /></label>
      </div>
      <div class="threads-list">
        <${ProblemNote} error=${error} onRetry=${() => this.refresh()} />
        ${isLoaded && !list.length && html`<p class="quiet empty">Your conversations will be here.</p>`}
        ${shown.map((one) => html`<${Entry} key=${one.id} thread=${one} isCurrent=${one.id === current} />`)}
        ${others.length > 0 && html`<h2>In messages</h2>
          ${others.map(({ passage }) => html`<a key=${passage.id} class="entry found" href=${`#/t/${passage.thread_id}`}>
            <${Icon} name="search" /><span class="entry-title">${passage.text.slice(0, 120)}</span></a>`)}`}
        ${words && found && !shown.length && !others.length && html`<p class="quiet empty">Nothing was found.</p>`}
        ${!words && next && html`<button type="button" class="button more" onClick=${this.more}>Earlier</button>`}
      </div>
    </nav>`;
  }
}

const STATUS = {
  in_progress: ["busy", "is answering"],
  queued: ["busy", "waits for its turn"],
  finishing: ["busy", "is finishing"],
  cancelling: ["busy", "is stopping"],
  requires_action: ["waits", "waits for you"],
  failed: ["bad", "failed"],
};

function Entry({ thread, isCurrent }) {
  const [kind, word] = STATUS[thread.status] ?? ["", ""];
  return html`<a class=${isCurrent ? "entry chosen" : "entry"} href=${`#/t/${thread.id}`}
    aria-current=${isCurrent ? "page" : undefined}>
    <span class="dot ${kind}" title=${word}></span>
    <span class="entry-title">${thread.title || "New conversation"}</span>
    ${thread.forked_from && html`<span class="quiet" title="a copy"><${Icon} name="git-branch" size=${12} /><span class="hidden-label">a copy</span></span>`}
    ${word && html`<span class="hidden-label">${word}</span>`}
    <time class="quiet">${ago(thread.updated_at)}</time>
  </a>`;
}

/** Sets the theme that was chosen before; without one it is that of the system. */
export function restoreTheme() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}

function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}
