export { render } from "preact";
export { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { type Signal, batch, computed, effect, signal, useSignalEffect } from "@preact/signals";
export declare const html: (strings: TemplateStringsArray, ...values: any[]) => any;
