/** Line icons on an 18 px grid; words stand beside them or in the name of their button. */

import { html } from "../vendor/preact.js";

const PATHS = {
  add: "M9 3.5v11M3.5 9h11",
  back: "m11 4.5-4.5 4.5 4.5 4.5",
  chat: "M3 4.5h12v8.5H8.5L5 15.5V13H3z",
  check: "m4 9.5 3.2 3.2L14 5.5",
  close: "m4.5 4.5 9 9m0-9-9 9",
  copy: "M6.5 6.5h8v8h-8zM11.5 6V3.5h-8v8H6",
  cross: "m5.5 5.5 7 7m0-7-7 7",
  down: "m4.5 7 4.5 4.5L13.5 7",
  edit: "m3.5 14.5.8-3.2 7.7-7.8 2.5 2.5-7.8 7.7z",
  forward: "m7 4.5 4.5 4.5L7 13.5",
  get: "M9 3v8.5m-3.5-3.3L9 11.7l3.5-3.5M3.5 15h11",
  info: "M9 8.2v4.3M9 5.6v.1M15.5 9a6.5 6.5 0 1 1-13 0 6.5 6.5 0 0 1 13 0",
  inspect: "M12.2 7.8a4.4 4.4 0 1 1-8.8 0 4.4 4.4 0 0 1 8.8 0m-1.2 3.2 3.7 3.7",
  list: "M3 4.5h12M3 9h12M3 13.5h7",
  models: "M9 2.8 15 6v6.3l-6 3.2-6-3.2V6zM3 6l6 3.2L15 6M9 9.2v6.3",
  more: "M4 9h.1M9 9h.1M14 9h.1",
  network: "M9 2.8a2 2 0 1 1 0 4 2 2 0 0 1 0-4M4 11.2a2 2 0 1 1 0 4 2 2 0 0 1 0-4m10 0a2 2 0 1 1 0 4 2 2 0 0 1 0-4"
    + "M8 6.6l-3 4.8m5-4.8 3 4.8M6 13.2h6",
  pause: "M6.5 4.5v9m5-9v9",
  pc: "M2.5 4h13v8.5h-13zM6.5 15.5h5M9 12.5v3",
  play: "m6 4 7.5 5L6 14z",
  person: "M9 3a2.8 2.8 0 1 1 0 5.6A2.8 2.8 0 0 1 9 3M3.5 15.2c.5-3 2.7-4.4 5.5-4.4s5 1.4 5.5 4.4",
  retry: "M14.5 9a5.5 5.5 0 1 1-1.7-4M14.6 2.8v3h-3",
  send: "M9 14.5v-11M4.5 8 9 3.5 13.5 8",
  settings: "M3 5.5h7.5m3 0H15M3 12.5h1.5m3 0H15M12 4a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3"
    + "M6 11a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3",
  stop: "M5.5 5.5h7v7h-7z",
  temporary: "M9 3.5A5.5 5.5 0 1 1 3.5 9M9 6v3.2l2.2 1.4M3.7 6.6l.1-.2M5.6 4.4l.2-.1",
  trash: "M3.5 5h11M7 5V3.2h4V5m2.3 0-.6 9.8H5.3L4.7 5M7.6 8v4m2.8-4v4",
  warning: "M9 3 16 15H2zM9 7.5v3.4M9 12.8v.1",
};

/** @param {{name: keyof typeof PATHS}} props */
export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} />
  </svg>`;
