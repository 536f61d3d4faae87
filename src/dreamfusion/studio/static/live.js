// What is being made, and what waits.

import { $, clock, h, wrong } from "./dom.js";
import { api, changes, fileOf, store } from "./api.js";
import { Curve } from "./curve.js";

export const STATUS_NAMES = { aside: "set aside", failed: "failed", running: "running", stopped: "stopped", done: "done", waiting: "waiting" };

export const mayChange = (task) => !store.options.shared || task.owner === store.options.owner;

export const cancel = (task) => api("POST", `tasks/${task.id}/cancel`, {}).catch(wrong);

// A card of a task in progress; `update` keeps it true.
export class LiveCard {
  constructor(task) {
    this.pictures = ["Colour", "Geometry", "Normals"].map((name) => h("img", { alt: `${name} now`, class: name.toLowerCase(), hidden: true }));
    this.title = h("a", { class: "prompt", href: `#/task/${task.id}` });
    this.doing = h("p", { class: "doing" });
    this.health = h("p", { class: "problem", hidden: true });
    this.bar = h("progress", { max: 100, "aria-label": "Progress" });
    this.numbers = h("dl", { class: "numbers" });
    this.stop = h("button", { type: "button", onclick: () => cancel(this.task) }, "Cancel");
    this.curve = new Curve(560);
    const pictures = h("div", { class: "pictures" }, this.pictures, h("div", { class: "nothing", "aria-hidden": "true" }));
    const head = h("div", { class: "head" }, h("div", {}, this.title, this.doing), this.stop);
    this.element = h("article", { class: "card live" }, pictures, h("div", { class: "told" }, head, this.health, this.bar, this.numbers, this.curve.element));
    this.task = task;
    this.read();
  }

  async read() {
    const points = await api("GET", `tasks/${this.task.id}/curve`).catch(() => null);
    if (points && points.steps.length >= this.curve.points.steps.length) this.curve.set(points);
  }

  update(task) {
    this.task = task;
    this.title.textContent = task.prompt;
    this.doing.textContent = `${task.kind === "scene" ? "joint stage: " : ""}${task.doing || "starting"} · seed ${task.seed}`;
    this.health.textContent = task.health;
    this.health.hidden = !task.health;
    this.bar.value = task.progress;
    const left = task.seconds_left === null ? "–" : clock(task.seconds_left);
    const rows = { Step: `${task.step} / ${task.steps}`, "Steps a second": task.rate ? task.rate.toFixed(1) : "–", Left: left, Opacity: task.opacity.toFixed(2) };
    this.numbers.replaceChildren(...Object.entries(rows).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    this.stop.hidden = !mayChange(task);
    this.stop.disabled = task.doing === "stopping";
    if (task.files.includes("preview.png")) this.show(fileOf(task, "preview.png"));
    if (task.step) this.curve.add(task.step, task.losses);
  }

  // The next picture takes the place of the one before when it is whole.
  show(address) {
    if (this.address === address) return;
    this.address = address;
    const next = new Image();
    next.onload = () => {
      for (const picture of this.pictures) {
        picture.src = address;
        picture.hidden = false;
      }
    };
    next.src = address;
  }
}

// A batch in progress, whoever works on it, or a scene whose things are being made: its joint stage is as a run.
class ManyCard {
  constructor(task) {
    this.title = h("a", { class: "prompt", href: `#/${task.kind === "batch" ? "batch" : "task"}/${task.id}` });
    this.doing = h("p", { class: "doing" });
    this.bar = h("progress", { max: 100, "aria-label": "Progress", hidden: task.kind === "scene" });
    this.numbers = h("dl", { class: "numbers" });
    this.element = h("article", { class: "card told" }, h("div", {}, this.title, this.doing), this.bar, this.numbers);
  }

  update(task) {
    this.title.textContent = task.prompt;
    this.doing.textContent = task.doing || (task.kind === "batch" ? "a batch of another process" : "starting");
    this.bar.value = task.progress;
    const left = task.seconds_left === null ? "–" : clock(task.seconds_left);
    const counts = Object.entries(task.counts).map(([status, count]) => [STATUS_NAMES[status], count.toLocaleString("en")]);
    if (task.kind === "batch") this.numbers.replaceChildren(...[...counts, ["Left", left]].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }
}

// The card for a task, `known` if that still fits.
export function cardOf(task, known = null) {
  const Card = task.kind === "run" || (task.kind === "scene" && task.steps) ? LiveCard : ManyCard;
  return known instanceof Card ? known : new Card(task);
}

// A task that waits.
class WaitingLine {
  constructor(task) {
    this.place = h("span", { class: "place" });
    this.when = h("span", { class: "when" });
    const stop = h("button", { type: "button", class: "quiet", "aria-label": `Cancel ${task.prompt}`, title: "Cancel", onclick: () => cancel(task), hidden: !mayChange(task) }, "✕");
    this.element = h("li", {}, this.place, h("a", { href: `#/task/${task.id}` }, task.prompt), this.when, stop);
  }

  update(task) {
    const { place, seconds } = store.queue.find(({ id }) => id === task.id);
    this.place.textContent = place;
    const what = task.kind === "batch" ? `${task.steps.toLocaleString("en")} runs` : `${task.kind === "scene" ? "scene, " : ""}seed ${task.seed}`;
    this.when.textContent = `${what}${seconds === null ? "" : ` · done in about ${clock(seconds)}`}`;
  }
}

const [cards, lines] = [new Map(), new Map()];

// One element a task, kept from time to time: what is pressed, or in focus, must not go.
function fill(box, tasks, elements, make) {
  for (const id of elements.keys()) if (!tasks.some((task) => task.id === id)) elements.delete(id);
  const wanted = tasks.map((task) => {
    elements.set(task.id, make(task, elements.get(task.id)));
    elements.get(task.id).update(task);
    return elements.get(task.id).element;
  });
  for (const child of [...box.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((element, i) => box.children[i] !== element && box.insertBefore(element, box.children[i] ?? null));
}

export function drawNow() {
  const running = [...store.tasks.values()].filter(({ state }) => state === "IN_PROGRESS").sort((a, b) => a.started - b.started);
  const waiting = store.queue.map(({ id }) => store.tasks.get(id)).filter((task) => task?.state === "PENDING");
  fill($("live"), running, cards, cardOf);
  fill($("queue"), waiting, lines, (task, known) => known ?? new WaitingLine(task));
  $("waiting").textContent = waiting.length || "";
  $("live-part").hidden = !running.length;
  $("queue-part").hidden = !waiting.length;
  $("now").hidden = !running.length && !waiting.length;
  const first = running[0];
  document.title = first ? `${first.progress} % ${first.prompt} · studio` : "dreamfusion studio";
}

export function startLive() {
  let scheduled = false;
  const soon = () => {
    if (scheduled) return;
    scheduled = true;
    setTimeout(() => {
      scheduled = false;
      drawNow();
    }, 50); // not a frame: the title counts on while the tab is hidden
  };
  for (const kind of ["task", "removed", "queue", "reload"]) changes.addEventListener(kind, soon);
  drawNow();
}
