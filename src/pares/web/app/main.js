import { html, render } from "../vendor/preact.js";
import { App } from "./app.js";
import { startState } from "./state.js";
import { applyTheme } from "./theme.js";

applyTheme();
startState();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
