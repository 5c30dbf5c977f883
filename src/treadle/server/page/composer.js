// Where a person writes: a message, files with it, and what it does to a run in progress.

import { html, Component } from "./vendor/htm-preact.js";
import { Icon, IconButton, sentenceOf } from "./ui.js";

const MODES = [
  ["queue", "After this answer", "The message waits until the run has ended."],
  ["steer", "Now", "The model reads it before its next step."],
  ["cancel", "Instead", "The run is stopped, and the message is next."],
];
const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const MAX_FILE_BYTES = 50 * 1024 * 1024;

// What is being written survives a reload of its tab; `name` is the thread, "" keeps nothing.
const kept = (name) => (name && sessionStorage.getItem(`draft-${name}`)) || "";

function keep(name, text) {
  if (!name) return;
  try {
    if (text) sessionStorage.setItem(`draft-${name}`, text);
    else sessionStorage.removeItem(`draft-${name}`);
  } catch {
    // it is full; the text is in the field all the same
  }
}

export class Composer extends Component {
  state = { text: this.props.draft ?? kept(this.props.keptAs), mode: "queue", files: [], waiting: 0, error: null, isBusy: false };

  componentDidMount() {
    this.area?.focus({ preventScroll: true });
    this.fit();
  }

  componentDidUpdate(before) {
    if (before.draft !== this.props.draft && this.props.draft !== undefined) {
      this.setState({ text: this.props.draft }, () => this.area.focus());
    } else if (before.keptAs !== this.props.keptAs && this.props.keptAs) {
      this.setState({ text: kept(this.props.keptAs) });
    }
    this.fit();
  }

  fit() {
    const area = this.area;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 240)}px`;
  }

  /** Changes the text, and keeps it for a reload of the page. */
  write(text) {
    this.setState({ text });
    keep(this.props.keptAs, text);
  }

  send = async () => {
    const { text, mode, files, waiting, isBusy } = this.state;
    if (isBusy || waiting || (!text.trim() && !files.length)) return;
    const message = files.length ? [...(text.trim() ? [text] : []), ...files.map((one) => one.part)] : text;
    const { keptAs } = this.props; // afterwards it may be another thread
    this.setState({ isBusy: true, error: null });
    try {
      await this.props.onSend(message, this.props.run ? mode : "queue");
      keep(keptAs, "");
      this.setState({ text: "", files: [], mode: "queue" });
    } catch (error) {
      this.setState({ error }); // the text stays, so nothing that was typed is lost
    }
    this.setState({ isBusy: false });
  };

  onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.send();
    } else if (event.key === "Escape" && this.props.run) {
      this.props.onStop();
    }
  };

  /** Puts files on the server, so that a message names them by their ids. */
  attach = async (list) => {
    for (const file of [...list]) { // a list of an input is emptied with it
      if (file.size > MAX_FILE_BYTES) {
        this.setState({ error: new Error(`${file.name} is larger than 50 MB.`) });
        continue;
      }
      this.setState(({ waiting }) => ({ waiting: waiting + 1, error: null }));
      try {
        const { id } = await this.props.upload(file);
        const isImage = IMAGES.has(file.type);
        const part = { type: isImage ? "input_image" : "input_file", file_id: id };
        const preview = isImage ? URL.createObjectURL(file) : "";
        this.setState(({ files }) => ({ files: [...files, { name: file.name, part, preview }] }));
      } catch (error) {
        this.setState({ error });
      }
      this.setState(({ waiting }) => ({ waiting: waiting - 1 }));
    }
  };

  componentWillUnmount() {
    for (const { preview } of this.state.files) URL.revokeObjectURL(preview);
  }

  onPaste = (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      this.attach(event.clipboardData.files);
    }
  };

  onDrop = (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    this.attach(event.dataTransfer.files);
  };

  render({ run, onStop, onFinish }, { text, mode, files, waiting, error, isBusy }) {
    return html`<form class="composer" onSubmit=${(event) => { event.preventDefault(); this.send(); }}
      onDrop=${this.onDrop} onDragOver=${(event) => event.preventDefault()}>
      ${error && html`<p class="problem" role="alert"><${Icon} name="triangle-alert" />${sentenceOf(error)}</p>`}
      ${waiting > 0 && html`<p class="note" role="status"><${Icon} name="loader-circle" spin />Uploading…</p>`}
      ${files.length > 0 && html`<ul class="files">
        ${files.map((file, index) => html`<li key=${index}>
          ${file.preview ? html`<img src=${file.preview} alt="" />` : html`<${Icon} name="file" />`}
          <span>${file.name}</span>
          <${IconButton} icon="x" label=${`Remove ${file.name}`}
            onClick=${() => this.setState({ files: files.filter((one) => one !== file) })} />
        </li>`)}
      </ul>`}
      <label class="hidden-label" for="message">Message</label>
      <textarea id="message" rows="1" value=${text} placeholder=${run ? "Add something…" : "Message"}
        ref=${(element) => element && (this.area = element)}
        onInput=${(event) => this.write(event.target.value)}
        onKeyDown=${this.onKeyDown} onPaste=${this.onPaste}></textarea>
      <div class="composer-bar">
        <label class="icon-button" title="Attach files">
          <${Icon} name="paperclip" /><span class="hidden-label">Attach files</span>
          <input type="file" multiple hidden onChange=${(event) => { this.attach(event.target.files); event.target.value = ""; }} />
        </label>
        ${run && html`<div class="modes" role="radiogroup" aria-label="When the message is read">
          ${MODES.map(([value, label, title]) => html`<label key=${value} title=${title}
            class=${mode === value ? "mode chosen" : "mode"}>
            <input type="radio" name="mode" value=${value} checked=${mode === value}
              onChange=${() => this.setState({ mode: value })} />${label}
          </label>`)}
        </div>`}
        <span class="grow"></span>
        ${run && html`<button type="button" class="button" onClick=${onFinish} disabled=${run.status === "finishing"}
          title="End after the step in progress">${run.status === "finishing" ? "Finishing…" : "Finish"}</button>
          <button type="button" class="button" onClick=${onStop} disabled=${run.status === "cancelling"}
            title="Stop now (Esc)"><${Icon} name="circle-stop" />${run.status === "cancelling" ? "Stopping…" : "Stop"}</button>`}
        <button type="submit" class="button primary" aria-label="Send" title="Send (Enter)"
          disabled=${isBusy || waiting > 0 || (!text.trim() && !files.length)}><${Icon} name=${isBusy ? "loader-circle" : "send"} spin=${isBusy} /></button>
      </div>
    </form>`;
  }
}
