// All runs under the root, also those of the command line: pages of cards, searched and sorted by the server.

import { $, ago, debounced, h, throttled, wrong } from "./dom.js";
import { ask, changes, fileOf, store } from "./api.js";

export const STATES = { PENDING: "waiting", IN_PROGRESS: "running", SUCCEEDED: "finished", FAILED: "failed", CANCELED: "stopped" };
export const chosen = new Map(); // tasks for a scene, by id

let page = 1;
let shown = []; // ids, in order
let reads = 0;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export async function readGallery() {
  const query = new URLSearchParams({ query: $("search").value, state: $("state").value, sort: $("sort").value, page });
  const mine = ++reads;
  const [found, newest] = await ask(`tasks?${query}`);
  if (mine !== reads) return; // a later one is on its way
  if (page > found.pages) {
    page = found.pages;
    return readGallery();
  }
  const tasks = found.tasks.map(newest).filter(Boolean);
  for (const task of tasks) store.tasks.set(task.id, task);
  shown = tasks.map(({ id }) => id);
  const focused = document.activeElement?.closest?.(".tile")?.dataset.id;
  $("cards").replaceChildren(...tasks.map(tile));
  if (focused) $("cards").querySelector(`[data-id="${focused}"] a`)?.focus({ preventScroll: true });
  $("total").textContent = found.total ? found.total.toLocaleString("en") : "";
  $("pages").hidden = found.pages < 2;
  $("where").textContent = `${found.page} of ${found.pages}`;
  $("before").disabled = found.page <= 1;
  $("after").disabled = found.page >= found.pages;
  const searched = $("search").value || $("state").value;
  $("empty").hidden = found.total > 0;
  $("empty").textContent = searched ? "Nothing is like that." : "Nothing here yet. Say what it shall be, above; the first object takes a minute or two.";
}

function tile(task) {
  const line = { scene: () => "scene", batch: () => batchLine(task) }[task.kind]?.() ?? `seed ${task.seed}`;
  const link = h(
    "a",
    { href: `#/${task.kind === "batch" ? "batch" : "task"}/${task.id}`, class: "look", "aria-label": `${task.prompt}, ${line}, ${STATES[task.state]}` },
    thumbnail(task),
    task.state !== "SUCCEEDED" && h("span", { class: `badge ${task.state.toLowerCase()}` }, STATES[task.state]),
    task.state === "IN_PROGRESS" && h("progress", { max: 100, value: task.progress, "aria-hidden": "true" }),
  );
  const add = task.files.includes("mesh.glb") && h("button", { type: "button", class: "add", "aria-pressed": String(chosen.has(task.id)), title: "Choose for a scene", "aria-label": `Choose ${task.prompt} for a scene`, onclick: () => choose(task) });
  return h("li", { class: "tile", "data-id": task.id }, link, add, h("p", { class: "name" }, task.prompt), h("p", { class: "meta" }, `${line} · ${ago(task.created)}`));
}

// How many runs a batch has, and how many went wrong.
function batchLine({ steps, counts }) {
  const wrong = (counts.failed ?? 0) + (counts.aside ?? 0);
  return `${steps.toLocaleString("en")} runs${wrong ? `, ${wrong.toLocaleString("en")} failed` : ""}`;
}

// The last picture; while pointed at, or in focus, the turntable.
function thumbnail(task) {
  const frame = h("span", { class: task.kind === "batch" ? "frame many" : "frame" });
  if (task.cover.length) {
    frame.append(...task.cover.map((id) => h("img", { src: `/api/tasks/${id}/files/preview.png`, alt: "", loading: "lazy", class: "colour" })));
    return frame;
  }
  if (!task.files.includes("preview.png")) {
    frame.append(h("span", { class: task.kind === "run" ? "glyph" : "glyph many", "aria-hidden": "true" }));
    return frame;
  }
  frame.append(h("img", { src: fileOf(task, "preview.png"), alt: "", loading: "lazy", class: "colour" }));
  if (!task.files.includes("turntable.webp")) return frame;
  frame.addEventListener("pointerenter", () => turn(frame, task));
  frame.addEventListener("pointerleave", () => frame.querySelector(".round")?.remove());
  return frame;
}

function turn(frame, task) {
  if (still.matches || frame.querySelector(".round")) return;
  const round = h("img", { src: fileOf(task, "turntable.webp"), alt: "", class: "round" });
  frame.append(round);
}

function choose(task) {
  if (chosen.has(task.id)) chosen.delete(task.id);
  else chosen.set(task.id, task);
  drawTray();
}

export function drawTray() {
  for (const button of document.querySelectorAll(".tile .add")) button.setAttribute("aria-pressed", String(chosen.has(button.closest(".tile").dataset.id)));
  $("tray").hidden = !chosen.size || !location.hash.match(/^(#\/?)?$/);
  $("tray-text").textContent = chosen.size === 1 ? "1 object for a scene" : `${chosen.size} objects for a scene`;
}

// Arrow keys go from card to card, as many as there are in a row.
function arrows(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
  const here = event.target.closest(".look");
  if (!step || !here || event.ctrlKey || event.metaKey || event.altKey) return;
  const links = [...$("cards").querySelectorAll(".look")];
  const next = links[links.indexOf(here) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

const columns = () => getComputedStyle($("cards")).gridTemplateColumns.split(" ").length;

export async function startGallery() {
  const read = () => readGallery().catch(wrong);
  const [again, typed] = [throttled(read, 250), debounced(read, 250)];
  const first = () => ((page = 1), typed());
  $("search").addEventListener("input", first);
  for (const id of ["state", "sort"]) $(id).addEventListener("change", first);
  const go = (step) => () => ((page += step), readGallery().then(() => $("gallery-title").scrollIntoView(), wrong));
  $("before").addEventListener("click", go(-1));
  $("after").addEventListener("click", go(1));
  $("cards").addEventListener("keydown", arrows);
  $("cards").addEventListener("focusin", ({ target }) => {
    const tile = target.closest(".tile");
    const task = tile && store.tasks.get(tile.dataset.id);
    if (target.matches(".look:focus-visible") && task?.files.includes("turntable.webp")) turn(tile.querySelector(".frame"), task);
  });
  $("cards").addEventListener("focusout", ({ target }) => target.closest(".tile")?.querySelector(".round")?.remove());
  $("tray-clear").addEventListener("click", () => (chosen.clear(), drawTray()));
  changes.addEventListener("task", ({ detail: task }) => {
    const old = shown.includes(task.id) && $("cards").querySelector(`[data-id="${task.id}"]`);
    if (!old) return again();
    const before = old.querySelector("progress");
    if (before && task.state === "IN_PROGRESS") before.value = task.progress;
    const look = `${task.state} ${task.files.length} ${task.cover.length} ${task.kind === "batch" ? batchLine(task) : ""} ${task.state === "IN_PROGRESS" ? "" : task.stamp}`;
    if (old.dataset.look === look) return;
    const focused = old.contains(document.activeElement);
    const fresh = tile(task);
    fresh.dataset.look = look;
    old.replaceWith(fresh);
    if (focused) fresh.querySelector("a").focus({ preventScroll: true });
  });
  changes.addEventListener("removed", ({ detail: id }) => {
    $("cards").querySelector(`[data-id="${id}"]`)?.remove();
    if (chosen.delete(id)) drawTray();
    again();
  });
  changes.addEventListener("reload", again);
  await readGallery();
}
