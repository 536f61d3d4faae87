// What is being made, and what waits.

import { $, clock, h, wrong } from "./dom.js";
import { api, changes, fileOf, store } from "./api.js";
import { Curve } from "./curve.js";

export const mayChange = (task) => !store.options.shared || task.owner === store.options.owner;

export const cancel = (task) => api("POST", `tasks/${task.id}/cancel`, {}).catch(wrong);

// A card of a task in progress; `update` keeps it true.
export class LiveCard {
  constructor(task) {
    this.pictures = ["Colour", "Geometry", "Normals"].map((name) => h("img", { alt: `${name} now`, class: name.toLowerCase(), hidden: true }));
    this.title = h("a", { class: "prompt", href: `#/task/${task.id}` });
    this.doing = h("p", { class: "doing" });
    this.bar = h("progress", { max: 100, "aria-label": "Progress" });
    this.numbers = h("dl", { class: "numbers" });
    this.stop = h("button", { type: "button", onclick: () => cancel(this.task) }, "Cancel");
    this.curve = new Curve();
    const pictures = h("div", { class: "pictures" }, this.pictures, h("div", { class: "nothing", "aria-hidden": "true" }));
    const head = h("div", { class: "head" }, h("div", {}, this.title, this.doing), this.stop);
    this.element = h("article", { class: "card live" }, pictures, h("div", { class: "told" }, head, this.bar, this.numbers, this.curve.element));
    this.update(task);
    this.read();
  }

  async read() {
    const points = await api("GET", `tasks/${this.task.id}/curve`).catch(() => null);
    if (points && points.steps.length >= this.curve.points.steps.length) this.curve.set(points);
  }

  update(task) {
    this.task = task;
    this.title.textContent = task.prompt;
    this.doing.textContent = `${task.doing || "starting"}${task.seed ? ` · seed ${task.seed}` : ""}`;
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

const cards = new Map();

export function drawNow() {
  const running = [...store.tasks.values()].filter(({ state }) => state === "IN_PROGRESS").sort((a, b) => a.started - b.started);
  for (const [id] of cards) if (!running.some((task) => task.id === id)) cards.delete(id);
  for (const task of running) {
    if (cards.has(task.id)) cards.get(task.id).update(task);
    else cards.set(task.id, new LiveCard(task));
  }
  const elements = running.map(({ id }) => cards.get(id).element);
  if (elements.length !== $("live").children.length || elements.some((element, i) => $("live").children[i] !== element)) $("live").replaceChildren(...elements);
  const waiting = store.queue.flatMap((entry) => (store.tasks.get(entry.id)?.state === "PENDING" ? [[entry, store.tasks.get(entry.id)]] : []));
  const focused = document.activeElement?.dataset?.cancel;
  $("queue").replaceChildren(...waiting.map(waitingLine));
  if (focused) document.querySelector(`[data-cancel="${CSS.escape(focused)}"]`)?.focus();
  $("waiting").textContent = waiting.length || "";
  $("live-part").hidden = !running.length;
  $("queue-part").hidden = !waiting.length;
  $("now").hidden = !running.length && !waiting.length;
  const first = running[0];
  document.title = first ? `${first.progress} % ${first.prompt} · studio` : "dreamfusion studio";
}

function waitingLine([{ place, seconds }, task]) {
  const when = seconds === null ? "" : `done in about ${clock(seconds)}`;
  const stop = h("button", { type: "button", class: "quiet", "data-cancel": task.id, "aria-label": `Cancel ${task.prompt}`, title: "Cancel", onclick: () => cancel(task), hidden: !mayChange(task) }, "✕");
  return h("li", {}, h("span", { class: "place" }, place), h("a", { href: `#/task/${task.id}` }, task.prompt), h("span", { class: "when" }, `seed ${task.seed}${when && ` · ${when}`}`), stop);
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
