// The page: which view is shown, the theme, the keys, and the link to the studio.

import { $, wrong } from "./dom.js";
import { api, changes, listen, readActive, store } from "./api.js";
import { startComposer } from "./composer.js";
import { drawTray, STATES, startGallery } from "./gallery.js";
import { startLive } from "./live.js";
import { leaveResult, showResult, startResult } from "./result.js";
import { leaveBatch, showBatch, startBatch } from "./batch.js";
import { showArrange, startArrange } from "./arrange.js";
import { toast } from "./dom.js";

const VIEWS = ["home-view", "result-view", "batch-view", "arrange-view"];
let place = 0; // scrolled so far, in the gallery

function show(view, title) {
  if (!$("home-view").hidden && view !== "home-view") place = scrollY;
  for (const id of VIEWS) $(id).hidden = id !== view;
  drawTray();
  scrollTo(0, view === "home-view" ? place : 0);
  if (title) $(title).focus({ preventScroll: true });
}

async function route() {
  const [, name, id] = location.hash.split("/");
  leaveResult();
  leaveBatch();
  try {
    if (name === "task" && id) {
      if ((await showResult(id)) === "batch") return location.replace(`#/batch/${id}`);
      show("result-view", "result-title");
    } else if (name === "batch" && id) {
      await showBatch(id);
      show("batch-view", "batch-title");
    } else if (name === "compose") {
      show("arrange-view", "arrange-title");
      await showArrange();
    } else show("home-view");
  } catch (error) {
    wrong(error);
    location.hash = "#/";
  }
}

// The system's theme, until somebody chooses the other one.
function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = localStorage.getItem("theme");
    document.documentElement.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    $("theme").setAttribute("aria-pressed", String(document.documentElement.dataset.theme === "dark"));
  };
  $("theme").addEventListener("click", () => {
    localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  dark.addEventListener("change", apply);
  apply();
}

function startKeys() {
  $("keys").addEventListener("click", () => $("help").showModal());
  $("help").addEventListener("click", ({ target }) => target === $("help") && $("help").close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && location.hash.length > 2) location.hash = "#/";
    if (event.target.closest("input, textarea, select, canvas")) return;
    const act = { n: () => $("prompt").focus(), "/": () => $("search").focus(), "?": () => $("help").showModal() }[event.key];
    if (!act) return;
    event.preventDefault();
    if (event.key !== "?" && $("home-view").hidden) {
      show("home-view");
      location.hash = "#/";
    }
    act();
  });
}

function startLink() {
  const box = $("link");
  changes.addEventListener("link", ({ detail: up }) => {
    box.dataset.state = up ? "up" : "down";
    box.textContent = up ? "connected" : "no answer, trying again";
  });
}

// Ends are told to whoever cannot see them.
function startNews() {
  const before = new Map();
  changes.addEventListener("task", ({ detail: { id, prompt, state } }) => {
    const known = before.get(id);
    before.set(id, state);
    if (!known || known === state || !["SUCCEEDED", "FAILED"].includes(state) || location.hash.endsWith(id)) return;
    toast(`${prompt}: ${STATES[state]}`, ["See it", `#/task/${id}`], state === "FAILED" ? "bad" : "good");
  });
}

async function main() {
  startTheme();
  startKeys();
  startLink();
  startNews();
  store.options = await api("GET", "options");
  listen();
  await readActive();
  startLive();
  startResult();
  startBatch();
  startArrange();
  await Promise.all([startComposer(), startGallery()]);
  addEventListener("hashchange", route);
  await route();
  if (!location.hash || location.hash === "#/") $("prompt").focus({ preventScroll: true });
  document.body.dataset.ready = "";
}

main().catch(wrong);
