// The stage: a mesh, turned by dragging, under a light that can be dragged, shown in one of several ways.
// Whoever includes it calls `openStage` with the bytes of a GLB file, again for another one.

// As in the turntable and the contact sheet (video.py): light on the colours is soft, on the bare shape it is strong.
const MODES = {
  lit: { ambient: 0.6, diffuse: 0.45, white: 0, normals: 0 },
  albedo: { ambient: 1, diffuse: 0, white: 0, normals: 0 },
  textureless: { ambient: 0.3, diffuse: 0.7, white: 1, normals: 0 },
  normals: { ambient: 1, diffuse: 0, white: 0, normals: 1 },
  wireframe: { ambient: 1, diffuse: 0, white: 0, normals: 0 },
};
const FIELD_OF_VIEW = 40; // degrees, as all angles here; of the stage's shorter side
const AZIMUTH = 25;
const ELEVATION = 20;
const ROUND = 12; // seconds
const POSES = 24; // of everything that moves, for which there must be room
const KEY_STEP = 5;
const RADIANS = Math.PI / 180;

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const sun = document.getElementById("sun");
const turn = document.getElementById("turn");
const play = document.getElementById("play");
const modes = [...document.querySelectorAll("input[name=mode]")];

const camera = new three.PerspectiveCamera();
const look = Object.fromEntries(["ambient", "diffuse", "white", "normals"].map((name) => [name, { value: 0 }]));
look.light = { value: new three.Vector3() };
// Towards the light from the middle of the object, in the camera's axes: `key_light` of lights.py.
const HEADLIGHT = new three.Vector3(0.4, 0.6, 1);
const toLight = HEADLIGHT.clone().normalize();

let renderer, controls, scene, middle, radius;
let surfaces = [];
let lines = [];
let shadow;
let motion = null; // a mixer of all the file's animations, if it has any
let moving = false;
let scheduled = false;
let before = 0;

async function open(content) {
  renderer ??= new three.WebGLRenderer({ canvas, alpha: true, antialias: true });
  const { scene: loaded, animations } = await new three.GLTFLoader().parseAsync(content.buffer, "");
  const meshes = [];
  loaded.traverse((part) => part.isMesh && meshes.push(part));
  if (!meshes.length) throw new Error("the file holds no mesh");
  if (scene) clear();
  scene = loaded;
  motion = animations.length ? new three.AnimationMixer(scene) : null;
  for (const clip of animations) motion.clipAction(clip).play();
  const box = measure(meshes, Math.max(0, ...animations.map(({ duration }) => duration)));
  shadow = groundShadow(meshes, box);
  if (meshes.every((mesh) => mesh.material.isMeshBasicMaterial)) choose("albedo"); // the file's colours hold a light already
  for (const mesh of meshes) {
    if (!mesh.geometry.attributes.normal) {
      mesh.geometry = mesh.geometry.toNonIndexed(); // flat faces, as glTF has it
      mesh.geometry.computeVertexNormals();
    }
    mesh.material = surfaceMaterial(mesh.material, look);
    const wires = new three.Mesh(mesh.geometry, new three.MeshBasicMaterial({ wireframe: true, transparent: true, opacity: 0.6 }));
    mesh.add(wires);
    surfaces.push(mesh.material);
    lines.push(wires);
  }
  scene.add(shadow);
  if (motion && scene.children.length === 1 && turnsUpright(scene.children[0])) scene.children[0].attach(shadow);
}

// What the mesh before held of the graphics card's memory.
function clear() {
  scene.traverse((part) => part.geometry?.dispose());
  for (const { uniforms } of surfaces) for (const name of ["albedoMap", "normalMap"]) uniforms[name]?.value.dispose();
  for (const material of [...surfaces, ...lines.map((wires) => wires.material)]) material.dispose();
  shadow.material.map.dispose();
  surfaces = [];
  lines = [];
}

// The box of everything at rest; and the ball within which everything lies however it turns and moves (for so many seconds).
function measure(meshes, seconds) {
  const poses = Array.from({ length: motion ? POSES : 1 }, (_, i) => (seconds * i) / POSES);
  const box = poses.map((time) => boxAt(time)).reduce((all, one) => all.union(one));
  middle = box.getCenter(new three.Vector3());
  const corner = new three.Vector3();
  radius = 0;
  for (const time of poses) {
    const rest = boxAt(time);
    if (time === 0) box.copy(rest);
    for (const { geometry, matrixWorld } of meshes) {
      for (let i = 0; i < geometry.attributes.position.count; i++) {
        corner.fromBufferAttribute(geometry.attributes.position, i).applyMatrix4(matrixWorld);
        radius = Math.max(radius, corner.distanceTo(middle));
      }
    }
  }
  boxAt(0);
  return box;
}

// Whether all that a thing does is to turn about the vertical: then its shadow turns with it.
function turnsUpright(thing) {
  const place = thing.position.clone();
  const upright = Array.from({ length: POSES }, (_, i) => {
    motion.setTime((i * 7) / POSES);
    return !thing.quaternion.x && !thing.quaternion.z && thing.position.equals(place);
  });
  boxAt(0);
  return upright.every(Boolean);
}

function boxAt(time) {
  motion?.setTime(time);
  scene.updateMatrixWorld(true);
  return new three.Box3().setFromObject(scene, true);
}

// How far away the camera must be to see the ball whole.
function homeDistance() {
  return (1.05 * radius) / Math.sin((FIELD_OF_VIEW * RADIANS) / 2);
}

function goHome() {
  const away = new three.Vector3().setFromSphericalCoords(homeDistance(), (90 - ELEVATION) * RADIANS, AZIMUTH * RADIANS);
  camera.position.copy(middle).add(away);
  controls.target.copy(middle);
  controls.update();
  toLight.copy(HEADLIGHT).normalize();
  redraw();
}

function startControls() {
  controls = new three.OrbitControls(camera, canvas);
  controls.autoRotateSpeed = -60 / ROUND; // the camera goes towards the object's left, as in the turntable
  controls.addEventListener("change", redraw);
  controls.addEventListener("start", () => setTurning(false));
}

function fitControls() {
  controls.minDistance = 0.3 * homeDistance();
  controls.maxDistance = 4 * homeDistance();
  camera.near = 0.01 * radius;
  camera.far = 100 * radius;
  goHome();
}

function setTurning(on) {
  controls.autoRotate = on;
  turn.setAttribute("aria-pressed", String(on));
  before = performance.now();
  redraw();
}

function setMoving(on) {
  moving = on;
  play.setAttribute("aria-pressed", String(on));
  before = performance.now();
  redraw();
}

function choose(mode) {
  modes.find((input) => input.value === mode).checked = true;
  redraw();
}

// The sun is drawn where a ball that fills the stage turns its face to the light; (x, y) is that place, in radii, y upwards.
function moveLight(x, y) {
  const stretch = Math.max(1, Math.hypot(x, y));
  toLight.set(x / stretch, y / stretch, 0);
  toLight.z = Math.sqrt(Math.max(0, 1 - toLight.lengthSq()));
  redraw();
}

function lightRadius() {
  return 0.45 * Math.min(canvas.clientWidth, canvas.clientHeight);
}

function resize() {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  renderer.setSize(width, height, false);
  const half = Math.tan((FIELD_OF_VIEW * RADIANS) / 2);
  camera.aspect = width / height;
  camera.fov = (2 * Math.atan(half * Math.max(1, height / width))) / RADIANS;
  camera.updateProjectionMatrix();
  draw();
}

function redraw() {
  if (scheduled || !controls) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  if (controls.autoRotate || moving) {
    const now = performance.now();
    const passed = Math.min((now - before) / 1000, 0.1); // a page that comes back to sight goes on where it was
    if (controls.autoRotate) controls.update(passed);
    if (moving) motion.update(passed);
    before = now;
    redraw();
  }
  const mode = modes.find((input) => input.checked).value;
  for (const [name, value] of Object.entries(MODES[mode])) look[name].value = value;
  shadow.visible = MODES[mode].diffuse > 0;
  showLines(mode === "wireframe");
  placeLight(MODES[mode].diffuse > 0);
  renderer.render(scene, camera);
}

// The surfaces hide the lines behind them, but are not seen themselves.
function showLines(on) {
  for (const surface of surfaces) surface.colorWrite = !on;
  for (const wires of lines) {
    wires.visible = on;
    if (on) wires.material.color.setStyle(getComputedStyle(stage).color);
  }
}

function placeLight(matters) {
  const away = HEADLIGHT.length() * homeDistance();
  look.light.value.copy(toLight).multiplyScalar(away);
  look.light.value.z -= camera.position.distanceTo(controls.target);
  sun.hidden = !matters;
  sun.style.left = `${canvas.clientWidth / 2 + lightRadius() * toLight.x}px`;
  sun.style.top = `${canvas.clientHeight / 2 - lightRadius() * toLight.y}px`;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const chord = (event) => event.ctrlKey || event.metaKey || event.altKey; // such keys are the browser's

function viewKey(event) {
  if (chord(event)) return;
  const [x, y] = ARROWS[event.key] ?? [0, 0];
  if (x || y) {
    setTurning(false);
    controls.rotateLeft(-x * KEY_STEP * RADIANS);
    controls.rotateUp(y * KEY_STEP * RADIANS);
  } else if (event.key === "+" || event.key === "=") controls.dollyIn(0.9);
  else if (event.key === "-") controls.dollyOut(0.9);
  else if (event.key === " ") setTurning(!controls.autoRotate);
  else if (event.key === "Home") goHome();
  else if (modes[event.key - 1]) choose(modes[event.key - 1].value);
  else return;
  event.preventDefault();
}

function lightKey(event) {
  if (chord(event) || !ARROWS[event.key]) return;
  const [x, y] = ARROWS[event.key];
  moveLight(toLight.x + 0.1 * x, toLight.y + 0.1 * y);
  event.preventDefault();
}

function dragLight(event) {
  if (!sun.hasPointerCapture(event.pointerId)) return;
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left - box.width / 2, box.top + box.height / 2 - event.clientY];
  moveLight(x / lightRadius(), y / lightRadius());
}

function listen() {
  for (const input of modes) input.addEventListener("change", redraw);
  canvas.addEventListener("keydown", viewKey);
  canvas.addEventListener("webglcontextrestored", redraw);
  sun.addEventListener("keydown", lightKey);
  sun.addEventListener("pointerdown", (event) => sun.setPointerCapture(event.pointerId));
  sun.addEventListener("pointermove", dragLight);
  turn.addEventListener("click", () => setTurning(!controls.autoRotate));
  play.addEventListener("click", () => setMoving(!moving));
  document.getElementById("home").addEventListener("click", goHome);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(resize).observe(canvas);
}

async function openStage(content) {
  stage.setAttribute("aria-busy", "true");
  try {
    await open(content);
  } catch (error) {
    console.error(error);
    stage.classList.add("blind");
    stage.setAttribute("aria-busy", "false");
    return;
  }
  if (!controls) {
    startControls();
    listen();
  }
  fitControls();
  resize();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  play.hidden = !motion;
  setTurning(!still && !motion);
  setMoving(!still && Boolean(motion));
  stage.setAttribute("aria-busy", "false");
}
