/** A conversation is a tree of messages; what is shown is one branch of it. */

/** @import { MessageNode } from "./types.js" */

/**
 * The messages from the first to `leaf`. Broken links end it.
 * @param {MessageNode[]} messages @param {string | null} leaf
 */
export function branch(messages, leaf) {
  const byId = new Map(messages.map((node) => [node.id, node]));
  /** @type {MessageNode[]} */
  const path = [];
  for (let id = leaf; id !== null;) {
    const node = byId.get(id);
    if (!node) break;
    byId.delete(id);
    path.push(node);
    id = node.parent_id;
  }
  return path.reverse();
}

/** The versions of one message, oldest first. @param {MessageNode[]} messages @param {MessageNode} node */
export const versions = (messages, node) =>
  messages.filter((other) => other.parent_id === node.parent_id && other.role === node.role);

/** The newest end of the branch that goes through a message. @param {MessageNode[]} messages @param {string} id */
export function newestLeaf(messages, id) {
  for (;;) {
    const child = messages.findLast((node) => node.parent_id === id);
    if (!child) return id;
    id = child.id;
  }
}
