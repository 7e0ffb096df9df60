import htm from "htm";
import { h } from "preact";

export { render } from "preact";
export { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal, useSignalEffect } from "@preact/signals";
/** JSX without a build step: html`<p class=${name}>text</p>` */
export const html = htm.bind(h);
