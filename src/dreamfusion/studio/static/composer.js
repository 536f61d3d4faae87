// The prompt box: understands while one types, and sends what is to be made.

import { $, debounced, h, toast, wrong } from "./dom.js";
import { api, remember, store } from "./api.js";

let settings = []; // of the chosen preset
const changed = new Map(); // name of a setting -> text that was typed

const prior = () => store.options.priors.find(({ name }) => name === $("prior").value);
const pick = (list) => list[Math.floor(Math.random() * list.length)];
const article = (words) => `${/^[aeiou]/.test(words) ? "an" : "a"} ${words}`;

function idea() {
  const { nouns, colours } = prior();
  return article(Math.random() < 0.6 ? `${pick(colours)} ${pick(nouns)}` : pick(nouns));
}

function setPrompt(text) {
  $("prompt").value = text;
  grow();
  understand();
  $("prompt").focus();
}

function grow() {
  const box = $("prompt");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

// Words of the prior that begin like the one that is being typed.
function completions(text) {
  const last = text.match(/[^\s]+$/)?.[0].toLowerCase();
  if (!last || last.length < 2) return [];
  const { nouns, colours } = prior();
  return [...colours, ...nouns].filter((word) => word.startsWith(last) && word !== last).slice(0, 4);
}

const chip = (text, whole) => h("button", { type: "button", class: "chip", onclick: () => setPrompt(whole) }, text);

function ideas() {
  if (!prior()?.nouns.length) return [];
  return [h("span", { class: "said" }, "For example"), ...Array.from({ length: 4 }, idea).map((words) => chip(words, words))];
}

let asked = 0;
async function understand() {
  const text = $("prompt").value;
  const number = ++asked;
  if (!text.trim()) {
    $("joint-field").hidden = true;
    return $("understood").replaceChildren(...ideas());
  }
  const found = await api("GET", `understand?prior=${encodeURIComponent(prior().name)}&prompt=${encodeURIComponent(text)}`);
  if (number !== asked) return; // somebody typed on
  const parts = [];
  if (!found.error) {
    const otherwise = found.notes.length ? `The prior will make “${found.caption}” (${found.notes.join("; ")})` : "The prior understands";
    parts.push(h("span", { class: "said good" }, prior().nouns.length ? otherwise : "This prior reads any words"));
  }
  const unknown = new Map(found.words.filter(({ known }) => !known).map(({ word, nearest }) => [word, nearest]));
  for (const [word, nearest] of unknown) {
    parts.push(h("span", { class: "said bad" }, `does not know “${word}”`));
    for (const near of nearest) parts.push(chip(near, text.replace(new RegExp(`(?<![\\p{L}\\p{N}])${word}(?![\\p{L}\\p{N}])`, "giu"), near)));
  }
  if (found.error && !unknown.size) parts.push(h("span", { class: "said" }, found.error.replace(/[:,] (or )?use words it knows.*/, "")));
  for (const [, caption] of found.error.matchAll(/"([^"]+)"/g)) parts.push(chip(caption, caption));
  for (const word of completions(text)) parts.push(chip(`${word}`, text.replace(/[^\s]+$/, word)));
  if (PLACES.test(text)) parts.unshift(h("button", { type: "button", class: "chip scene", onclick: pressScene }, "Make a scene of it"));
  $("understood").replaceChildren(...parts);
  $("joint-field").hidden = !PLACES.test(text);
  $("joint").disabled = Boolean(prior().no_joint);
  $("joint-help").textContent = prior().no_joint || JOINT_HELP;
}

// "0.5" is a number, "a fox" a text, "[1, 2]" a list.
export function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function asked_for() {
  const wanted = { prompt: $("prompt").value.trim(), preset: $("preset").value, seed: valueOf($("seed").value || "0"), prior: $("prior").value };
  if ($("steps").value) wanted.steps = valueOf($("steps").value);
  if ($("negative").value.trim()) wanted.negative = $("negative").value.trim();
  for (const [name, text] of changed) {
    const [last, ...path] = name.split(".").reverse();
    let place = wanted;
    for (const part of path.reverse()) place = place[part] ??= {};
    place[last] = valueOf(text);
  }
  return wanted;
}

const JOINT_HELP = "Steps of a joint stage: all things learn together from the whole sentence; for priors that know sentences. 0: none.";
const PLACES = /\b(on|in|under|over|beside|by|near|behind|around|next to|in front of|left of|right of|with)\b/i;

// For a sentence with places in it: its things, and a scene of them.
async function makeScene() {
  $("problem").hidden = true;
  const body = { sentence: $("prompt").value.trim(), seed: valueOf($("seed").value || "0"), prior: $("prior").value };
  if (!$("joint").disabled) body.joint = valueOf($("joint").value || "0");
  try {
    const task = await api("POST", "sentences", body);
    remember(task);
    toast(`In the queue: ${task.prompt}`, ["See it", `#/task/${task.id}`]);
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
}

// Understanding a sentence takes a worker, which may have to start.
async function pressScene({ currentTarget: pressed }) {
  pressed.disabled = true;
  pressed.classList.add("busy");
  await makeScene();
  pressed.classList.remove("busy");
  pressed.disabled = false;
}

async function make(event) {
  event.preventDefault();
  $("problem").hidden = true;
  $("make").disabled = true;
  try {
    const task = await api("POST", "tasks", asked_for());
    remember(task);
    toast(`In the queue: ${task.prompt}, seed ${task.seed}`, ["See it", `#/task/${task.id}`]);
    $("seed").value = task.seed + 1; // the same again would be the same object
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  } finally {
    $("make").disabled = false;
  }
}

async function readSettings() {
  ({ settings } = await api("GET", `settings?preset=${encodeURIComponent($("preset").value)}`));
  $("steps").placeholder = settings.find(({ name }) => name === "steps").value;
  drawSettings();
}

const OWN_FIELDS = ["steps", "seed", "negative", "prior", "memory.embeddings"];

function drawSettings() {
  const words = $("filter").value.toLowerCase().split(/\s+/);
  const shown = settings.filter(({ name, help }) => !OWN_FIELDS.includes(name) && words.every((word) => `${name} ${help}`.toLowerCase().includes(word)));
  $("settings").replaceChildren(...shown.map(setting));
  $("changed").hidden = !changed.size;
  $("changed").textContent = `${changed.size} changed`;
}

function setting({ name, help, value, choices }) {
  const plain = typeof value === "string" ? value : JSON.stringify(value);
  const options = typeof value === "boolean" ? ["true", "false"] : choices;
  const given = changed.get(name) ?? plain;
  const change = ({ target }) => {
    if (target.value === plain || target.value === "") changed.delete(name);
    else changed.set(name, target.value);
    target.closest(".setting").classList.toggle("other", changed.has(name));
    $("changed").hidden = !changed.size;
    $("changed").textContent = `${changed.size} changed`;
  };
  const field = options.length
    ? h("select", { id: `setting-${name}`, onchange: change }, options.map((option) => h("option", { selected: option === given }, option)))
    : h("input", { id: `setting-${name}`, value: given, onchange: change, autocomplete: "off", spellcheck: "false" });
  return h("div", { class: `setting${changed.has(name) ? " other" : ""}` }, h("label", { for: `setting-${name}` }, h("b", {}, name), h("small", {}, help)), field);
}

// Take over the settings of a run for another one.
export async function takeOver(task) {
  $("preset").value = task.preset;
  changed.clear();
  await readSettings();
  $("seed").value = task.seed;
  $("steps").value = task.steps;
  $("negative").value = task.negative;
  if (store.options.priors.some(({ name }) => name === task.prior)) $("prior").value = task.prior;
  setPrompt(task.prompt);
}

export async function startComposer() {
  const { priors, presets } = store.options;
  $("preset").replaceChildren(...presets.map((name) => h("option", {}, name)));
  $("prior").replaceChildren(...priors.map(({ name }) => h("option", {}, name)));
  $("prior-field").hidden = priors.length < 2;
  $("create").addEventListener("submit", make);
  $("prompt").addEventListener("input", grow);
  $("prompt").addEventListener("input", debounced(() => understand().catch(wrong), 120));
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    $("create").requestSubmit();
  });
  $("surprise").addEventListener("click", () => setPrompt(prior().nouns.length ? idea() : "a red chair"));
  $("dice").addEventListener("click", () => ($("seed").value = Math.floor(Math.random() * 100_000)));
  $("preset").addEventListener("change", () => readSettings().catch(wrong));
  $("prior").addEventListener("change", () => {
    $("preset").value = prior().preset;
    Promise.all([readSettings(), understand()]).catch(wrong);
  });
  $("filter").addEventListener("input", debounced(drawSettings, 100));
  $("filter").addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  await Promise.all([readSettings(), understand()]);
}
