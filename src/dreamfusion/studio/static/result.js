// One task: while it grows its live card, then the object on the stage, its files, and what can be done with it.

import { $, clock, h, moment, toast, wrong } from "./dom.js";
import { api, ask, changes, fileOf, forget, remember, store } from "./api.js";
import { Curve } from "./curve.js";
import { chosen, STATES } from "./gallery.js";
import { cancel, cardOf, mayChange } from "./live.js";
import { takeOver, valueOf } from "./composer.js";
import { openStage } from "./viewer.js";

let task = null;
let live = null;
let staged = ""; // address of the mesh on the stage
const curve = new Curve();

export async function showResult(id) {
  task = null;
  live = null;
  for (const part of ["result-title", "result-state", "result-live", "result-actions"]) $(part).replaceChildren(); // of the one before
  for (const part of ["stage", "result-files"]) $(part).hidden = true;
  const [answer, newest] = await ask(`tasks/${encodeURIComponent(id)}`);
  const found = newest(answer) ?? answer;
  if (found.kind === "batch") return found.kind;
  if (!found.batch) store.tasks.set(found.id, found);
  draw(found);
  readCurve();
}

export function leaveResult() {
  task = null;
}

function draw(now) {
  const before = task;
  task = now;
  $("result-title").textContent = now.prompt;
  $("result-up").href = now.batch ? `#/batch/${now.batch}` : "#/";
  $("result-up").textContent = now.batch ? "← Batch" : "← Studio";
  $("result-state").textContent = STATES[now.state];
  $("result-state").className = `badge ${now.state.toLowerCase()}`;
  const going = now.state === "IN_PROGRESS";
  if (going) {
    const card = cardOf(now, live);
    if (card !== live) $("result-live").replaceChildren((live = card).element);
    live.update(now);
  } else {
    live = null;
    const shown = now.files.includes("mesh.glb") || (now.files.includes("scene.glb") && now.state === "SUCCEEDED");
    const picture = now.files.includes("preview.png") && !shown;
    $("result-live").replaceChildren(...[now.error, now.health].filter(Boolean).map((text) => h("p", { class: "problem" }, text)), ...(now.state === "PENDING" ? [h("p", { class: "card" }, now.batch ? "Nobody has begun it yet." : "It waits for its turn.")] : []), ...(picture ? [h("img", { class: "card last", alt: "Colour, geometry and normals at the last step", src: fileOf(now, "preview.png") })] : []));
  }
  if (before && before.state === now.state && String(before.files) === String(now.files) && (going || before.stamp === now.stamp)) return;
  drawActions();
  drawDownloads();
  drawFacts();
  drawMedia();
  $("result-curve").hidden = going || (now.kind === "scene" && !now.steps);
  if (before && !going) readCurve();
  stageMesh();
}

async function readCurve() {
  $("curve").replaceChildren(curve.element);
  if (!$("result-curve").hidden) curve.set(await api("GET", `tasks/${task.id}/curve`).catch(() => ({ steps: [], losses: {} })));
}

async function stageMesh() {
  const name = ["mesh.glb", "scene.glb"].find((name) => task.files.includes(name));
  const ready = name && task.state !== "IN_PROGRESS" && task.state !== "PENDING";
  $("stage").hidden = !ready;
  if (!ready) return;
  const address = fileOf(task, name);
  if (address === staged) return;
  $("stage").setAttribute("aria-busy", "true");
  const response = await fetch(address);
  if (!response.ok) return wrong(new Error("The mesh cannot be read."));
  const content = new Uint8Array(await response.arrayBuffer());
  if (!task || fileOf(task, name) !== address) return; // somebody went on
  staged = address;
  await openStage(content);
}

const button = (text, act, kind = "") => h("button", { type: "button", class: kind, onclick: () => Promise.resolve(act()).catch(wrong) }, text);

function drawActions() {
  const [own, run] = [mayChange(task) && !task.batch, task.kind === "run"];
  const going = ["PENDING", "IN_PROGRESS"].includes(task.state);
  const buttons = [
    run && button("Again with another seed", anotherSeed, going ? "" : "primary"),
    own && ["CANCELED", "FAILED"].includes(task.state) && button("Resume", resume),
    going && own && button("Cancel", () => cancel(task)),
    run && button("Change and make again", edit),
    task.files.includes("mesh.glb") && button("Compose with ...", compose),
    own && !going && button("Delete", remove, "danger"),
  ];
  const refinable = run && own && (task.state === "SUCCEEDED" || (task.refining && !going));
  $("result-actions").replaceChildren(...buttons.filter(Boolean), ...(refinable ? [refineForm()] : []));
}

// The second stage, and the weight of standing in it.
function refineForm() {
  const weight = h("input", { inputmode: "decimal", autocomplete: "off", placeholder: String(task.told.stability ?? 0), "aria-describedby": "stability-help" });
  const help = h("p", { class: "hint", id: "stability-help" }, "Weight of standing: how far the centre of mass is from well inside the base; 0: off. 1e6 is a good value.");
  const send = (event) => {
    event.preventDefault();
    refine(weight.value.trim()).catch(wrong);
  };
  return h("form", { class: "refine", novalidate: true, onsubmit: send }, h("button", {}, "Refine"), h("label", { class: "field" }, "Stability", weight), help);
}

async function anotherSeed() {
  const made = await api("POST", `tasks/${task.id}/retry`, { seed: Math.floor(Math.random() * 100_000) });
  remember(made);
  toast(`In the queue: ${made.prompt}, seed ${made.seed}`, ["See it", `#/task/${made.id}`]);
}

async function resume() {
  remember(await api("POST", `tasks/${task.id}/resume`, {}));
}

async function refine(stability) {
  remember(await api("POST", `tasks/${task.id}/refine`, stability ? { stability: valueOf(stability) } : {}));
}

async function edit() {
  const old = task;
  location.hash = "#/";
  await takeOver(old);
}

function compose() {
  chosen.set(task.id, task);
  location.hash = "#/compose";
}

function remove() {
  const doomed = task;
  $("confirm-text").textContent = `Delete “${doomed.prompt}” and all its files?`;
  $("confirm").returnValue = "no";
  $("confirm").addEventListener(
    "close",
    () => {
      if ($("confirm").returnValue !== "yes") return;
      api("DELETE", `tasks/${doomed.id}`).then(() => {
        forget(doomed.id);
        toast(`Deleted: ${doomed.prompt}`);
      }, wrong);
    },
    { once: true },
  );
  $("confirm").showModal();
}

const NAMES = { "mesh.glb": "GLB", "scene.glb": "GLB", "obj.zip": "OBJ", "mesh.ply": "PLY", "mesh.stl": "STL (print)", "mesh.usdz": "USDZ (Apple)", "turntable.mp4": "Video", "turntable.webp": "Animation", "sheet.png": "Sheet", "index.html": "Page", "scene.json": "Scene file", "config.json": "Settings", "all.zip": "Everything" };
const MADE = { "obj.zip": ["obj", "mesh.obj"], "mesh.ply": ["ply", "mesh.ply"], "mesh.stl": ["stl", "mesh.stl"], "mesh.usdz": ["usdz", "mesh.usdz"] };

function drawDownloads() {
  const meshed = task.files.includes("mesh.glb");
  const names = Object.keys(NAMES).filter((name) => task.files.includes(name) || (MADE[name] && meshed) || (name === "all.zip" && task.files.length > 1));
  $("downloads").replaceChildren(...names.map((name) => (MADE[name] && !task.files.includes(MADE[name][1]) ? maker(name) : saver(name))));
  $("result-files").hidden = !names.length;
}

const saver = (name) => h("a", { href: `/api/tasks/${task.id}/files/${name}?save`, download: "", title: name }, NAMES[name]);

// A format that is made when somebody wants it, and then saved.
function maker(name) {
  const here = task;
  const act = async ({ currentTarget: pressed }) => {
    pressed.disabled = true;
    pressed.classList.add("busy");
    try {
      const made = await api("POST", `tasks/${here.id}/exports`, { format: MADE[name][0] });
      remember(made);
      const link = h("a", { href: `/api/tasks/${made.id}/files/${name}?save`, download: "" });
      document.body.append(link);
      link.click();
      link.remove();
    } catch (error) {
      wrong(error);
      pressed.disabled = false;
      pressed.classList.remove("busy");
    }
  };
  return h("button", { type: "button", class: "make", title: `${name}: made now, which takes some seconds`, onclick: act }, NAMES[name]);
}

function drawFacts() {
  const took = task.started && task.finished > task.started ? clock(task.finished - task.started) : null;
  const run = { Seed: task.seed, Steps: task.step < task.steps ? `${task.step} of ${task.steps}` : task.steps, Preset: task.preset, Prior: task.prior, Negative: task.negative };
  const scene = { Prior: task.prior, "Joint stage": task.steps ? `${task.step < task.steps ? `${task.step} of ` : ""}${task.steps} steps` : null };
  const facts = { ...(task.kind === "run" ? run : scene), Made: moment(task.created), Took: took, Folder: task.folder };
  const rows = Object.entries(facts).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  $("facts").replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
}

function drawMedia() {
  const pictures = [["turntable.webp", "Turntable"], ["sheet.png", "From eight sides: colour, geometry, normals"]].filter(([name]) => task.files.includes(name) && task.state !== "IN_PROGRESS");
  $("result-media").replaceChildren(...pictures.map(([name, title]) => h("section", { class: name === "sheet.png" ? "card wide" : "card round-card" }, h("h2", {}, title), h("img", { src: fileOf(task, name), alt: `${title} of ${task.prompt}`, loading: "lazy" }))));
}

export function startResult() {
  changes.addEventListener("task", ({ detail }) => {
    if (task?.id === detail.id) draw(detail);
    else if (task?.batch === detail.id) api("GET", `tasks/${task.id}`).then((now) => task?.id === now.id && draw(now), wrong);
  });
  changes.addEventListener("reload", () => task && api("GET", `tasks/${task.id}`).then(draw, wrong));
  changes.addEventListener("removed", ({ detail }) => {
    if (task?.id === detail) location.hash = "#/";
  });
}
