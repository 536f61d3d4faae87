// The losses of a run over its steps, on one logarithmic scale.

import { h } from "./dom.js";

const [HEIGHT, LEFT, BOTTOM] = [150, 34, 16];

export class Curve {
  constructor(width = 320) {
    this.width = width;
    this.element = h("div", { class: "curve" });
    this.points = { steps: [], losses: {} };
  }

  set({ steps, losses }) {
    this.points = { steps: [...steps], losses: Object.fromEntries(Object.entries(losses).map(([name, row]) => [name, [...row]])) };
    this.draw();
  }

  add(step, losses) {
    const { steps, losses: rows } = this.points;
    if (steps.length && step <= steps[steps.length - 1]) return;
    steps.push(step);
    for (const name of new Set([...Object.keys(rows), ...Object.keys(losses)])) {
      rows[name] ??= Array(steps.length - 1).fill(null);
      rows[name].push(losses[name] ?? null);
    }
    this.draw();
  }

  draw() {
    const { steps, losses } = this.points;
    const right = this.width - 4;
    const names = Object.keys(losses).filter((name) => losses[name].some((value) => value > 0));
    const values = names.flatMap((name) => losses[name].filter((value) => value > 0));
    if (steps.length < 2 || !values.length) {
      this.element.replaceChildren(h("p", { class: "hint" }, "No steps yet."));
      return;
    }
    const [low, high] = [Math.floor(Math.log10(Math.min(...values))), Math.ceil(Math.log10(Math.max(...values)) + 1e-9)];
    const x = (step) => LEFT + ((right - LEFT) * (step - steps[0])) / (steps[steps.length - 1] - steps[0]);
    const y = (value) => 6 + (HEIGHT - BOTTOM - 6) * (1 - (Math.log10(value) - low) / Math.max(1, high - low));
    const every = Math.ceil((high - low + 1) / 5);
    const ticks = Array.from({ length: high - low + 1 }, (_, i) => low + i).filter((tick) => (tick - low) % every === 0);
    const lines = ticks.flatMap((tick) => [
      h("svg:line", { class: "rule", x1: LEFT, x2: right, y1: y(10 ** tick), y2: y(10 ** tick) }),
      h("svg:text", { x: LEFT - 5, y: y(10 ** tick) + 3.5, "text-anchor": "end" }, String(Number((10 ** tick).toPrecision(1)))),
    ]);
    const paths = names.map((name, i) => {
      const points = losses[name].flatMap((value, k) => (value > 0 ? [`${x(steps[k]).toFixed(1)},${y(value).toFixed(1)}`] : []));
      return h("svg:polyline", { class: `line tone${i % 6}`, points: points.join(" ") });
    });
    const ends = [h("svg:text", { x: LEFT, y: HEIGHT - 3 }, `step ${steps[0]}`), h("svg:text", { x: right, y: HEIGHT - 3, "text-anchor": "end" }, String(steps[steps.length - 1]))];
    const last = names.map((name) => `${name} ${Number((losses[name].findLast((value) => value !== null) ?? 0).toPrecision(3))}`);
    const picture = h("svg:svg", { viewBox: `0 0 ${this.width} ${HEIGHT}`, role: "img", "aria-label": `Losses at the last step: ${last.join(", ")}` }, lines, paths, ends);
    const legend = h("ul", { class: "legend" }, names.map((name, i) => h("li", { class: `tone${i % 6}` }, name)));
    this.element.replaceChildren(picture, legend);
  }
}
