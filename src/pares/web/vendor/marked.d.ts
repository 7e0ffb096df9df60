export * from "./entry/marked.js";
