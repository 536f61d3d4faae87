// A batch: how all of its runs stand, those that went wrong first, a page of them at a time.

import { $, clock, debounced, h, throttled, wrong } from "./dom.js";
import { api, changes, remember, store } from "./api.js";
import { cancel, mayChange, STATUS_NAMES } from "./live.js";
import { STATES } from "./gallery.js";

let task = null;
let status = ""; // of the runs that are shown; all of them if empty
let page = 1;
let reads = 0;
let shown = ""; // the batch that was seen last: coming back to it shows the same page

export async function showBatch(id) {
  const found = await api("GET", `tasks/${encodeURIComponent(id)}`);
  if (found.kind !== "batch") throw new Error("This is no batch.");
  if (shown !== id) [status, page, $("batch-search").value] = ["", 1, ""];
  shown = id;
  store.tasks.set(found.id, found);
  draw(found);
  await readRuns();
}

export function leaveBatch() {
  task = null;
}

function draw(now) {
  task = now;
  $("batch-title").textContent = now.prompt;
  $("batch-state").textContent = STATES[now.state];
  $("batch-state").className = `badge ${now.state.toLowerCase()}`;
  $("batch-progress").value = now.progress;
  const left = now.seconds_left === null ? "" : `, about ${clock(now.seconds_left)} left`;
  $("batch-doing").textContent = [`${now.step.toLocaleString("en")} of ${now.steps.toLocaleString("en")} made${left}`, doing(now)].filter(Boolean).join(" · ");
  $("batch-problem").textContent = now.error;
  $("batch-problem").hidden = !now.error;
  const focused = document.activeElement?.dataset?.count;
  const all = ["", ...Object.keys(STATUS_NAMES).filter((name) => now.counts[name] || name === status)];
  $("batch-counts").replaceChildren(...all.map(counter));
  if (focused !== undefined) $("batch-counts").querySelector(`[data-count="${focused}"]`)?.focus();
  drawActions();
}

function doing({ state, doing }) {
  if (state === "PENDING") return "waits until no other task does";
  return state === "IN_PROGRESS" ? doing || "another process works on it" : "";
}

function counter(name) {
  const count = name ? (task.counts[name] ?? 0) : task.steps;
  const act = () => {
    [status, page] = [name, 1];
    draw(task);
    readRuns().catch(wrong);
  };
  return h("button", { type: "button", class: `chip ${name}`, "data-count": name, "aria-pressed": String(status === name), onclick: act }, `${STATUS_NAMES[name] ?? "all"} ${count.toLocaleString("en")}`);
}

const button = (text, act, kind = "") => h("button", { type: "button", class: kind, onclick: () => Promise.resolve(act()).catch(wrong) }, text);

function drawActions() {
  const [own, { counts, state, folder }] = [mayChange(task), task];
  const resting = state === "CANCELED" || state === "FAILED";
  const left = ["failed", "stopped", "running", "waiting"].some((name) => counts[name]);
  const table = task.files.includes("summary.csv") && h("a", { href: `/api/tasks/${task.id}/files/summary.csv?save`, download: "", class: "file" }, "Table (CSV)");
  const going = state === "PENDING" || (state === "IN_PROGRESS" && task.doing);
  const buttons = [
    table,
    own && going && button("Stop", () => cancel(task)),
    own && resting && counts.aside && button(`Try the ${counts.aside.toLocaleString("en")} set aside again`, () => goOn(true), left ? "" : "primary"),
    own && resting && left && button("Go on", () => goOn(false), "primary"),
  ];
  $("batch-actions").replaceChildren(...buttons.filter(Boolean));
  const quoted = /^[\w./-]+$/.test(folder) ? folder : `'${folder.replaceAll("'", "'\\''")}'`;
  $("batch-command").textContent = `dreamfusion batch ${quoted}`;
  $("batch-aside").hidden = !counts.aside;
}

async function goOn(set_aside) {
  remember(await api("POST", `tasks/${task.id}/resume`, { set_aside }));
}

async function readRuns() {
  const [id, mine] = [task.id, ++reads];
  const query = new URLSearchParams({ query: $("batch-search").value, page, ...(status && { status }) });
  const found = await api("GET", `tasks/${id}/runs?${query}`);
  if (mine !== reads || task?.id !== id) return; // a later one is on its way
  if (page > found.pages) {
    page = found.pages;
    return readRuns();
  }
  const focused = document.activeElement?.closest?.(".tile")?.dataset.id;
  $("batch-runs").replaceChildren(...found.runs.map(tile));
  if (focused) $("batch-runs").querySelector(`[data-id="${focused}"] a`)?.focus({ preventScroll: true });
  $("batch-empty").hidden = found.total > 0;
  $("batch-pages").hidden = found.pages < 2;
  $("batch-where").textContent = `${found.page.toLocaleString("en")} of ${found.pages.toLocaleString("en")}`;
  $("batch-before").disabled = found.page <= 1;
  $("batch-after").disabled = found.page >= found.pages;
}

function tile(run) {
  const frame = h("span", { class: "frame" }, run.picture ? h("img", { src: `/api/tasks/${run.id}/files/preview.png?v=${run.beat}`, alt: "", loading: "lazy", class: "colour" }) : h("span", { class: "glyph", "aria-hidden": "true" }));
  const link = h(
    "a",
    { href: `#/task/${run.id}`, class: "look", "aria-label": `${run.prompt}, seed ${run.seed}, ${STATUS_NAMES[run.status]}` },
    frame,
    run.status !== "done" && h("span", { class: `badge ${["failed", "aside"].includes(run.status) ? "failed" : run.status === "running" ? "in_progress" : ""}` }, STATUS_NAMES[run.status]),
    run.status === "running" && h("progress", { max: run.steps, value: run.step, "aria-hidden": "true" }),
  );
  const took = run.seconds ? ` · ${clock(run.seconds)}` : "";
  const again = run.failures ? ` · failed ${run.failures} times` : "";
  const note = run.error && h("p", { class: "why" }, run.error);
  return h("li", { class: "tile", "data-id": run.id }, link, h("p", { class: "name" }, run.prompt), h("p", { class: "meta" }, `seed ${run.seed} · line ${run.line}${took}${again}`), note);
}

export function startBatch() {
  const read = () => task && readRuns().catch(wrong);
  const [again, typed] = [throttled(read, 1000), debounced(read, 250)];
  $("batch-search").addEventListener("input", () => ((page = 1), typed()));
  const go = (step) => () => ((page += step), readRuns().then(() => $("batch-counts").scrollIntoView(), wrong));
  $("batch-before").addEventListener("click", go(-1));
  $("batch-after").addEventListener("click", go(1));
  changes.addEventListener("task", ({ detail }) => {
    if (task?.id !== detail.id) return;
    draw(detail);
    again();
  });
  changes.addEventListener("reload", () => task && showBatch(task.id).catch(wrong));
  changes.addEventListener("removed", ({ detail }) => {
    if (task?.id === detail) location.hash = "#/";
  });
}
