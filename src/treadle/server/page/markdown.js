// Markdown as safe HTML, for texts that are still growing.
//
// The text comes from a model, so it may be hostile: raw HTML is not parsed, what was made is
// sanitized all the same, images become links, and links show their address.

import DOMPurify from "./vendor/purify.js";
import MarkdownIt from "./vendor/markdown-it.js";

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true });
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });

const escape = markdown.utils.escapeHtml;
const rules = markdown.renderer.rules;

rules.image = (tokens, index) => {
  const address = tokens[index].attrGet("src") ?? "";
  return `<a href="${escape(address)}">${escape(tokens[index].content || "image")}</a>` +
    `<span class="host">${escape(hostOf(address))}</span>`;
};

rules.link_close = (tokens, index) => {
  const open = opening(tokens, index);
  const address = open?.attrGet("href") ?? "";
  const shown = tokens.slice(tokens.indexOf(open) + 1, index).map((one) => one.content).join("");
  const host = hostOf(address);
  return `</a>${host && !shown.includes(host) ? `<span class="host">${escape(host)}</span>` : ""}`;
};

rules.fence = (tokens, index) => codeBlock(tokens[index].content, tokens[index].info);
rules.code_block = (tokens, index) => codeBlock(tokens[index].content, "");

const codeBlock = (code, info) =>
  `<figure class="code"><figcaption><span>${escape(info.trim().split(/\s+/)[0] || "text")}</span>` +
  `<button type="button" data-copy>Copy</button></figcaption>` +
  `<pre tabindex="0"><code>${escape(code)}</code></pre></figure>`;

rules.table_open = () => `<div class="table" tabindex="0"><table>`;
rules.table_close = () => `</table></div>`;

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("title", node.getAttribute("href") ?? "");
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span", "div",
    "figure", "figcaption", "button",
  ],
  ALLOWED_ATTR: ["href", "class", "data-copy", "type", "start", "tabindex", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
};

function opening(tokens, index) {
  let depth = 0;
  for (let at = index; at >= 0; at -= 1) {
    if (tokens[at].type === "link_close") depth += 1;
    else if (tokens[at].type === "link_open" && (depth -= 1) === 0) return tokens[at];
  }
  return null;
}

function hostOf(address) {
  try {
    return new URL(address).host;
  } catch {
    return "";
  }
}

const clean = (tokens, env) =>
  DOMPurify.sanitize(markdown.renderer.render(tokens, markdown.options, env), ALLOWED);

/**
 * A text on its way into the document: only its last block is ever parsed and rendered again, and
 * only the end of the text is looked at, so that a delta costs the same however long the text is.
 */
export class GrowingMarkdown {
  #element;
  #chunk = 0; // what was taken of the chunks
  #offset = 0;
  #length = 0;
  #tail = ""; // the text of the last block
  #open = null; // the element of the last block
  #env = {};

  /** @param {HTMLElement} element the place of the text; its content belongs to this object */
  constructor(element) {
    this.#element = element;
  }

  /** Shows a text of which more will come; `chunks` grow at their end only. */
  grow(chunks) {
    let grown = "";
    for (; this.#chunk < chunks.length; this.#chunk += 1, this.#offset = 0) {
      const chunk = chunks[this.#chunk];
      grown += chunk.slice(this.#offset);
      this.#offset = chunk.length;
      if (this.#chunk === chunks.length - 1) break;
    }
    if (!grown) return;
    this.#length += grown.length;
    this.#tail += grown;
    if (this.#growCode(grown)) return;
    const tokens = markdown.parse(this.#tail, this.#env);
    const last = startOfLast(tokens);
    if (last > 0) {
      this.#close(tokens.slice(0, last));
      this.#tail = this.#tail.slice(lengthOfLines(this.#tail, tokens[last].map[0]));
    }
    if (!tokens.length) return;
    if (!this.#open) {
      this.#open = document.createElement("div");
      this.#open.className = "open";
      this.#element.append(this.#open);
    }
    this.#open.innerHTML = clean(tokens.slice(last), this.#env);
    this.#open.dataset.code = isOpenFence(tokens[last], this.#tail) ? "open" : "";
  }

  /** Shows a whole text, which is the text that grew or another one. */
  show(text) {
    const seen = this.#length - this.#tail.length;
    if (text.length < this.#length || !text.startsWith(this.#tail, seen)) {
      this.#element.replaceChildren();
      this.#open = null;
      this.#env = {};
      this.#tail = text;
    } else {
      this.#tail = text.slice(seen);
    }
    this.#length = text.length;
    this.#chunk = Infinity; // it does not grow any more
    this.#close(markdown.parse(this.#tail, this.#env));
  }

  /** Puts blocks into the document that are rendered for the last time. */
  #close(tokens) {
    this.#open?.remove();
    this.#open = null;
    this.#append(clean(tokens, this.#env));
  }

  /** Adds to a code block that is being written, without rendering it again. */
  #growCode(grown) {
    if (this.#open?.dataset.code !== "open" || /[`~]/.test(grown)) return false;
    const code = this.#open.querySelector("code");
    if (!code) return false;
    if (code.firstChild) code.firstChild.appendData(grown);
    else code.append(grown);
    return true;
  }

  #append(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    this.#element.append(template.content);
  }
}

/** The index of the first token of the last block. */
function startOfLast(tokens) {
  for (let at = tokens.length - 1; at >= 0; at -= 1) {
    if (tokens[at].level === 0 && tokens[at].nesting >= 0 && tokens[at].map) return at;
  }
  return 0;
}

/** Whether a block is code of which more lines may come; `tail` begins with it. */
function isOpenFence(token, tail) {
  if (token.type !== "fence") return false;
  const lines = tail.trimEnd().split("\n");
  return tail.includes("\n") && (lines.length < 2 || !lines.at(-1).trim().startsWith(token.markup));
}

function lengthOfLines(text, count) {
  let at = 0;
  for (let line = 0; line < count; line += 1) at = text.indexOf("\n", at) + 1;
  return at;
}
