// Two views, and what they share.
import { Playground } from "./ask.js";
import { byId } from "./draw.js";
import { Status } from "./status.js";

const views = ["ask", "status"];
const headlines = { ask: byId("headline").textContent, status: "" };
let shown = "ask";

const headline = (view) => (said) => {
  headlines[view] = said;
  if (view === shown && byId("headline").textContent !== said) byId("headline").textContent = said;
};

const playground = new Playground({ headline: headline("ask"), speak: (said) => (byId("spoken").textContent = said) });
const status = new Status({
  headers: () => playground.headers,
  headline: headline("status"),
  heard: (told) => {
    playground.allow(told);
    const mode = told.mode === told.configured_mode ? told.mode : `${told.mode} (configured: ${told.configured_mode})`;
    byId("place").textContent = [told.calibration?.model ?? told.upstream?.models?.[0], `mode ${mode}`].filter(Boolean).join(" · ");
  },
});

function show(view, { focus = false } = {}) {
  shown = view;
  for (const name of views) {
    const tab = byId(`tab-${name}`);
    byId(name).hidden = name !== view;
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    if (focus && name === view) tab.focus();
  }
  byId("headline").textContent = headlines[view];
  document.title = `${view === "ask" ? "Playground" : "Status"} · justenough gateway`;
  status.show(view === "status");
}

for (const [at, name] of views.entries()) {
  byId(`tab-${name}`).addEventListener("click", () => {
    history.replaceState(null, "", `#${name}`);
    show(name);
  });
  byId(`tab-${name}`).addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: views.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(views[(to + views.length) % views.length], { focus: true });
  });
}
window.addEventListener("hashchange", () => views.includes(location.hash.slice(1)) && show(location.hash.slice(1)));

await status.refresh();
await playground.models();
show(views.includes(location.hash.slice(1)) ? location.hash.slice(1) : "ask");
document.documentElement.dataset.ready = "true";
