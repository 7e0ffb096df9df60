export * from "./entry/preact.js";
