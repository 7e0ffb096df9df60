/**
 * Markdown as elements. What a model says is hostile input: marked only cuts it into tokens, and each token becomes an
 * element whose text is text. No HTML is written or parsed anywhere, so there is nothing to sanitize; addresses are
 * links for a few harmless schemes only, and nothing is ever loaded from them.
 */

import { html, useEffect, useMemo, useRef, useState } from "../vendor/preact.js";
import { Lexer } from "../vendor/marked.js";
import { t } from "./strings.js";
import { CopyButton } from "./ui.js";

const LINK_SCHEMES = ["http:", "https:", "mailto:"];
const MAX_DEPTH = 20;
/** A paragraph longer than anyone writes stays plain text: cutting it up takes time that grows with its square. */
const MAX_PROSE = 10_000;
const PIECES = new RegExp(`[^]{1,${MAX_PROSE}}`, "gu");
const MAX_HIGHLIGHT = 60_000;
const ENTITIES = new Map(Object.entries({
  amp: "&", apos: "'", copy: "©", deg: "°", euro: "€", gt: ">", hellip: "…", laquo: "«", ldquo: "“", lsquo: "‘",
  lt: "<", mdash: "—", middot: "·", minus: "−", nbsp: "\u00a0", ndash: "–", quot: '"', raquo: "»", rdquo: "”",
  rsquo: "’", times: "×",
}));

/** @param {string} text */
function withoutEntities(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w{2,8}));/gi, (whole, decimal, hex, name) => {
    const code = decimal ? Number(decimal) : hex ? parseInt(hex, 16) : 0;
    if (code) return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    return ENTITIES.get(name) ?? whole;
  });
}

/** @param {string} address @returns {string | null} */
export function safeLink(address) {
  const url = URL.canParse(address) ? new URL(address) : null; // without a base: nothing of this node's own is linked
  return url && LINK_SCHEMES.includes(url.protocol) ? url.href : null;
}

/**
 * Text as it is. What is longer than any screen is cut into pieces that are laid out when they come into view.
 * @param {string} text
 */
function plain(text) {
  if (text.length <= MAX_PROSE) return html`<p class="plain">${text}</p>`;
  const pieces = text.match(PIECES) ?? [];
  return html`<div>${pieces.map((piece) => html`<p class="plain piece">${piece}</p>`)}</div>`;
}

/** @param {any} node a scope or a string of highlight.js */
const painted = (node) => typeof node === "string"
  ? node
  : html`<span class=${node.scope ? `hl-${node.scope.split(".")[0]}` : undefined}>${node.children.map(painted)}</span>`;

/** @param {{code: string, language: string, closed: boolean}} props */
function Code({ code, language, closed }) {
  const [tree, setTree] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let wanted = true;
    if (closed && language && code.length <= MAX_HIGHLIGHT) {
      import("../vendor/highlight.js").then(({ highlight }) => wanted && setTree(highlight(code, language)));
    }
    return () => {
      wanted = false;
    };
  }, [code, language, closed]);
  const name = language || t("markdown.code");
  return html`
    <figure class="code">
      <figcaption><span>${name}</span><${CopyButton} text=${code} label=${t("markdown.copy_code")} words /></figcaption>
      <pre tabindex="0" aria-label=${t("markdown.code_in", { name })}><code>${tree ? painted(tree) : code}</code></pre>
    </figure>`;
}

/** @param {any} token @param {number} depth */
function list(token, depth) {
  const items = token.items.map((/** @type {any} */ item) => html`
    <li class=${item.task ? "task" : undefined}>
      ${item.task && html`<input type="checkbox" disabled checked=${item.checked} aria-label=${t("markdown.task")} /> `}
      ${blocks(item.tokens, depth + 1)}
    </li>`);
  return token.ordered ? html`<ol start=${token.start || 1}>${items}</ol>` : html`<ul>${items}</ul>`;
}

/** @param {any} token @param {number} depth */
function table(token, depth) {
  const align = (/** @type {number} */ i) => (token.align[i] ? `to-${token.align[i]}` : undefined);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${t("markdown.table")}><table>
      <thead><tr>${token.header.map((/** @type {any} */ cell, /** @type {number} */ i) => html`
        <th scope="col" class=${align(i)}>${inline(cell.tokens, depth + 1)}</th>`)}</tr></thead>
      <tbody>${token.rows.map((/** @type {any[]} */ row) => html`
        <tr>${row.map((cell, i) => html`<td class=${align(i)}>${inline(cell.tokens, depth + 1)}</td>`)}</tr>`)}</tbody>
    </table></div>`;
}

/**
 * @param {any} token
 * @param {number} depth
 * @param {boolean} closed whether nothing more can be added to it
 * @returns {any}
 */
function block(token, depth, closed = true) {
  if (depth > MAX_DEPTH) return plain(token.raw);
  switch (token.type) {
    case "space":
    case "def":
    case "checkbox":
      return null;
    case "heading":
      return html`<div class=${`h h${token.depth}`} role="heading"
        aria-level=${Math.max(3, Math.min(token.depth + 1, 6))}>
        ${inline(token.tokens, depth + 1)}</div>`;
    case "paragraph":
      return token.tokens[0]?.type === "long"
        ? plain(token.raw) : html`<p>${inline(token.tokens, depth + 1)}</p>`;
    case "text":
      return token.tokens ? inline(token.tokens, depth + 1) : withoutEntities(token.text);
    case "code":
      return html`<${Code} code=${token.text} language=${(token.lang ?? "").split(/\s/, 1)[0]} closed=${closed} />`;
    case "blockquote":
      return html`<blockquote>${blocks(token.tokens, depth + 1)}</blockquote>`;
    case "list":
      return list(token, depth);
    case "table":
      return table(token, depth);
    case "hr":
      return html`<hr />`;
    default:
      return plain(token.raw); // HTML above all: shown as the text it is
  }
}

/** @param {any[]} tokens @param {number} depth @returns {any[]} */
const blocks = (tokens, depth) => tokens.map((token) => block(token, depth));

/** @param {any} token @param {number} depth */
function span(token, depth) {
  if (token.type === "long") return plain(token.raw);
  if (depth > MAX_DEPTH) return token.raw;
  switch (token.type) {
    case "text":
      return token.tokens ? inline(token.tokens, depth + 1) : withoutEntities(token.text);
    case "escape":
      return token.text;
    case "strong":
      return html`<strong>${inline(token.tokens, depth + 1)}</strong>`;
    case "em":
      return html`<em>${inline(token.tokens, depth + 1)}</em>`;
    case "del":
      return html`<del>${inline(token.tokens, depth + 1)}</del>`;
    case "codespan":
      return html`<code>${token.text}</code>`;
    case "br":
      return html`<br />`;
    case "image":
      return html`<span class="unloaded">${t("markdown.image", { text: token.text, address: token.href })}</span>`;
    case "link": {
      const address = safeLink(token.href);
      const words = inline(token.tokens, depth + 1);
      return address
        ? html`<a href=${address} title=${address} target="_blank" rel="noopener noreferrer nofollow">${words}</a>`
        : html`${words} <span class="unloaded">(${token.href})</span>`;
    }
    case "checkbox":
      return null;
    default:
      return token.raw;
  }
}

/** @param {any[] | undefined} tokens @param {number} depth @returns {any[]} */
const inline = (tokens, depth) => (tokens ?? []).map((token) => span(token, depth));

/** @param {string} text @returns {any[]} */
function lex(text) {
  const lexer = new Lexer({ gfm: true, breaks: true });
  try {
    lexer.blockTokens(text, lexer.tokens);
    for (const { src, tokens } of lexer.inlineQueue) {
      if (src.length > MAX_PROSE) tokens.push({ type: "long", raw: src });
      else lexer.inlineTokens(src, tokens);
    }
    return lexer.tokens;
  } catch (fault) {
    // Nested deeper than the stack, also than that of compiling an expression.
    const isDeep = fault instanceof RangeError || (fault instanceof SyntaxError && /stack/i.test(fault.message));
    if (isDeep) return [{ type: "plain", raw: text }];
    throw fault;
  }
}

/** A growing text as blocks: those that are finished are built once, only the last one again and again. */
export class Blocks {
  constructor() {
    this.text = "";
    this.offset = 0;
    /** @type {any[]} */
    this.finished = [];
  }

  /** @param {string} text @param {boolean} live whether more may come @returns {any[]} */
  render(text, live) {
    text = text.replaceAll("\r\n", "\n");
    if (!text.startsWith(this.text)) {
      this.finished = [];
      this.offset = 0;
    }
    this.text = text;
    const tokens = lex(text.slice(this.offset));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    for (const token of tokens.splice(0, last)) {
      this.finished.push(block(token, 0));
      this.offset += token.raw.length;
    }
    return [...this.finished, ...tokens.map((token) => block(token, 0, !live))];
  }
}

/** @param {{text: string, live?: boolean}} props */
export function Markdown({ text, live = false }) {
  const growing = useRef(new Blocks());
  return html`<div class="markdown">${useMemo(() => growing.current.render(text, live), [text, live])}</div>`;
}
