/** Styles that only screens need which are fetched later: whoever imports this waits until they are there. */

const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/app/commons.css" });
await new Promise((done) => {
  link.onload = link.onerror = done; // without them everything is there, only less well set
  document.head.append(link);
});

export {};
