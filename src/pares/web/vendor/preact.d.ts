export { Component, Fragment, createContext, h, render } from "preact";
export { useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { type Signal, batch, computed, effect, signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
export declare const html: (strings: TemplateStringsArray, ...values: any[]) => any;
