// Several finished objects on one ground: placed by dragging, by keys or by numbers, then made into a scene.

import { $, h, toast, wrong } from "./dom.js";
import { api, fileOf, remember } from "./api.js";
import { chosen, drawTray } from "./gallery.js";
import { groundShadow, surfaceMaterial } from "./viewer.js";

const RADIANS = Math.PI / 180;
const SIDE = 4; // metres of the ground
const STEP = { move: 0.05, turn: 15 }; // of a key: metres, degrees
const LIT = { ambient: 0.6, diffuse: 0.45, white: 0, normals: 0 };

let renderer, camera, controls, ground;
let things = []; // { task, group, shadow, box, x, z, turn, scale, fields }
let picked = null;
let scheduled = false;
const look = { ...Object.fromEntries(Object.entries(LIT).map(([name, value]) => [name, { value }])), light: { value: null } };

export async function showArrange() {
  begin();
  await fillChoices();
  for (const thing of things.filter(({ task }) => !chosen.has(task.id))) drop(thing);
  for (const task of chosen.values()) if (!things.some((thing) => thing.task.id === task.id)) await place(task);
  frame();
}

function begin() {
  if (renderer) return;
  const canvas = $("ground");
  renderer = new three.WebGLRenderer({ canvas, alpha: true, antialias: true });
  camera = new three.PerspectiveCamera(35, 1, 0.01, 100);
  camera.position.set(0, 1.9, 3.2);
  look.light.value = new three.Vector3(0.8, 1.6, 2);
  ground = new three.Mesh(new three.PlaneGeometry(SIDE, SIDE), new three.MeshBasicMaterial({ map: tiles(), transparent: true, depthWrite: false }));
  ground.rotation.x = -Math.PI / 2;
  const floor = ground;
  ground = new three.Mesh(new three.PlaneGeometry(0.001, 0.001), new three.MeshBasicMaterial({ visible: false })); // holds all of it
  ground.add(floor);
  controls = new three.OrbitControls(camera, canvas);
  controls.maxPolarAngle = 85 * RADIANS;
  controls.minDistance = 0.5;
  controls.maxDistance = 8;
  controls.target.set(0, 0.2, 0);
  controls.addEventListener("change", redraw);
  canvas.addEventListener("pointerdown", grab, { capture: true });
  canvas.addEventListener("pointermove", drag);
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, release);
  canvas.addEventListener("keydown", keys);
  new ResizeObserver(resize).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  controls.update();
}

// A picture of squares of ten centimetres.
function tiles() {
  const picture = document.createElement("canvas");
  picture.width = picture.height = 1024;
  const pen = picture.getContext("2d");
  const each = picture.width / (SIDE * 10);
  for (let i = 0; i <= SIDE * 10; i++) {
    pen.fillStyle = i % 10 === 0 ? "#88888899" : "#88888844";
    pen.fillRect(i * each - 0.5, 0, 1, picture.width);
    pen.fillRect(0, i * each - 0.5, picture.width, 1);
  }
  const map = new three.CanvasTexture(picture);
  map.anisotropy = 8;
  return map;
}

async function place(task) {
  const response = await fetch(fileOf(task, "mesh.glb"));
  if (!response.ok) throw new Error(`The mesh of ${task.prompt} cannot be read.`);
  const { scene: group } = await new three.GLTFLoader().parseAsync(await response.arrayBuffer(), "");
  group.updateMatrixWorld(true);
  const meshes = [];
  group.traverse((part) => part.isMesh && meshes.push(part));
  const box = new three.Box3().setFromObject(group, true);
  const shadow = groundShadow(meshes, box);
  group.add(shadow);
  for (const mesh of meshes) mesh.material = surfaceMaterial(mesh.material, look);
  ground.add(group);
  const wide = Math.max(box.max.x - box.min.x, 0.2) * 0.5;
  const thing = { task, group, box, x: things.length ? Math.min(1.4, freeSide(wide)) : 0, z: 0, turn: 0, scale: 0.5 };
  things.push(thing);
  $("objects").append(row(thing));
  settle(thing);
  pick(thing);
}

// To the right of what stands there.
function freeSide(wide) {
  const edge = Math.max(...things.map(({ x, box, scale }) => x + box.max.x * scale));
  return Math.round((edge + wide / 2 + 0.1) * 20) / 20;
}

function row(thing) {
  const field = (name, label, step, least) => {
    const input = h("input", { type: "number", step, min: least, value: thing[name], "aria-label": `${label} of ${thing.task.prompt}` });
    input.addEventListener("input", () => {
      if (Number.isFinite(input.valueAsNumber)) thing[name] = input.valueAsNumber;
      pick(thing);
      settle(thing, true);
    });
    thing.fields[name] = input;
    return h("label", { class: "field" }, label, input);
  };
  thing.fields = {};
  const away = h("button", { type: "button", class: "quiet", "aria-label": `Take ${thing.task.prompt} out`, onclick: () => drop(thing) }, "✕");
  const name = h("button", { type: "button", class: "thing", onclick: () => (pick(thing), $("ground").focus()) }, thing.task.prompt);
  const numbers = [field("x", "Right", 0.05), field("z", "Front", 0.05), field("turn", "Turned", 15), field("scale", "Size", 0.05, 0.01)];
  thing.row = h("div", { class: "object" }, h("div", { class: "head" }, name, away), h("div", { class: "numbers4" }, numbers));
  return thing.row;
}

function drop(thing) {
  ground.remove(thing.group);
  thing.row.remove();
  things = things.filter((other) => other !== thing);
  chosen.delete(thing.task.id);
  if (picked === thing) picked = null;
  drawTray();
  redraw();
}

// The object where its numbers say, and the numbers as they are unless somebody types them.
function settle(thing, typed = false) {
  const { group, x, z, turn, scale } = thing;
  group.position.set(x, 0, z);
  group.rotation.set(0, turn * RADIANS, 0);
  group.scale.setScalar(Math.max(scale, 0.01));
  if (!typed) for (const [name, input] of Object.entries(thing.fields)) input.value = Number(thing[name].toFixed(3));
  redraw();
}

function pick(thing) {
  picked = thing;
  for (const each of things) each.row.classList.toggle("picked", each === thing);
}

// The ray through a place of the canvas: where it begins, and its direction.
function ray(event) {
  const box = $("ground").getBoundingClientRect();
  const [x, y] = [((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2];
  const from = camera.position.clone();
  return { from, way: new three.Vector3(x, y, 0.5).unproject(camera).sub(from).normalize() };
}

function onGround({ from, way }) {
  if (way.y > -1e-3) return null;
  return from.clone().addScaledVector(way, -from.y / way.y);
}

// How far along a ray the box of a thing is, or Infinity (slabs, in the axes of the thing).
function distance(thing, { from, way }) {
  const turned = (v) => v.clone().applyAxisAngle(new three.Vector3(0, 1, 0), -thing.turn * RADIANS);
  const [start, along] = [turned(from.clone().sub(thing.group.position)).divideScalar(thing.scale), turned(way)];
  let [near, far] = [0, Infinity];
  for (const axis of ["x", "y", "z"]) {
    const [a, b] = [(thing.box.min[axis] - start[axis]) / along[axis], (thing.box.max[axis] - start[axis]) / along[axis]];
    near = Math.max(near, Math.min(a, b));
    far = Math.min(far, Math.max(a, b));
  }
  return near <= far ? near * thing.scale : Infinity;
}

let held = null; // { thing, dx, dz }

function grab(event) {
  if (event.button !== 0) return;
  const sight = ray(event);
  const [first] = things.map((thing) => [distance(thing, sight), thing]).filter(([far]) => far < Infinity).sort(([a], [b]) => a - b);
  const spot = onGround(sight);
  if (!first || !spot) return;
  const [, thing] = first;
  pick(thing);
  held = { thing, dx: thing.x - spot.x, dz: thing.z - spot.z };
  controls.enabled = false;
  $("ground").setPointerCapture(event.pointerId);
}

const within = (metres) => Math.max(-SIDE / 2, Math.min(SIDE / 2, metres));

function drag(event) {
  const spot = held && onGround(ray(event));
  if (!spot) return;
  held.thing.x = within(spot.x + held.dx);
  held.thing.z = within(spot.z + held.dz);
  settle(held.thing);
}

function release() {
  held = null;
  controls.enabled = true;
}

function keys(event) {
  if (!picked || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const round = { ",": 1, ".": -1 }[event.key];
  if (!way && !round) return;
  event.preventDefault();
  if (way) [picked.x, picked.z] = [within(picked.x + way[0] * STEP.move), within(picked.z + way[1] * STEP.move)];
  else picked.turn = (picked.turn + round * STEP.turn + 360) % 360;
  settle(picked);
}

function frame() {
  if (!things.length) return redraw();
  const middle = things.reduce((sum, { x }) => sum + x, 0) / things.length;
  const wide = Math.max(1.2, ...things.map(({ x }) => Math.abs(x - middle) * 2 + 0.8));
  controls.target.set(middle, 0.15, 0);
  camera.position.set(middle, 0.75 * wide, 1.6 * wide);
  controls.update();
  resize();
}

function resize() {
  const { clientWidth: width, clientHeight: height } = $("ground");
  if (!width || !height) return;
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  renderer.setSize(width, height, false);
  camera.aspect = width / height;
  camera.updateProjectionMatrix();
  redraw();
}

function redraw() {
  if (scheduled || !renderer) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    renderer.render(ground, camera);
  });
}

async function fillChoices() {
  const { tasks } = await api("GET", "tasks?state=SUCCEEDED&size=100");
  const usable = tasks.filter(({ files }) => files.includes("mesh.glb"));
  $("add-object").replaceChildren(h("option", { value: "" }, "choose ..."), ...usable.map((task) => h("option", { value: task.id }, `${task.prompt}, seed ${task.seed}`)));
  $("add-object").onchange = () => {
    const task = usable.find(({ id }) => id === $("add-object").value);
    $("add-object").value = "";
    if (!task || chosen.has(task.id)) return;
    chosen.set(task.id, task);
    place(task).then(frame, wrong);
  };
}

async function make(event) {
  event.preventDefault();
  $("scene-problem").hidden = true;
  $("make-scene").disabled = true;
  $("make-scene").classList.add("busy");
  const assets = things.map(({ task, x, z, turn, scale }) => ({ id: task.id, position: [x, 0, z], rotation: [0, turn, 0], scale }));
  try {
    const made = await api("POST", "scenes", { title: $("scene-title").value.trim(), assets });
    remember(made);
    toast(`Made: ${made.prompt}`);
    location.hash = `#/task/${made.id}`;
  } catch (error) {
    $("scene-problem").textContent = error.message;
    $("scene-problem").hidden = false;
  } finally {
    $("make-scene").disabled = false;
    $("make-scene").classList.remove("busy");
  }
}

export const startArrange = () => $("scene").addEventListener("submit", make);
