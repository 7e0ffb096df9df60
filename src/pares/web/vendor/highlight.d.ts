export * from "./entry/highlight.js";
