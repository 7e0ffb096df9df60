import htm from "htm";
import { h } from "preact";

export { Component, Fragment, createContext, h, render } from "preact";
export { useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
/** JSX without a build step: html`<p class=${name}>text</p>` */
export const html = htm.bind(h);
