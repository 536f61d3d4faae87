// The studio's API, and what this page knows of its tasks: kept true by one stream of events.

export async function api(method, path, body) {
  const writes = method !== "GET";
  const response = await fetch(`/api/${path}`, {
    method,
    headers: writes ? { "Content-Type": "application/json" } : {},
    body: body === undefined ? undefined : JSON.stringify(body),
  }).catch(() => {
    throw new Error("The studio does not answer: is it still running?");
  });
  if (response.status === 204) return null;
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error ?? `The studio answered with ${response.status}.`);
  return content;
}

const asking = new Set(); // what was told of tasks while each answer was on its way

// An answer; a function that gives what is newest of a task in it (what was told in the meantime, null if it is gone);
// and the ids of those that were told of.
export async function ask(path) {
  const told = new Set();
  asking.add(told);
  try {
    const answer = await api("GET", path);
    return [answer, (task) => (told.has(task.id) ? (store.tasks.get(task.id) ?? null) : task), told];
  } finally {
    asking.delete(told);
  }
}

export const fileOf = (task, name) => `/api/tasks/${task.id}/files/${name}?v=${task.stamp}`;

export const store = { tasks: new Map(), queue: [], options: null };

// "task" (detail: the task), "removed" (its id), "queue", "reload" (everything may be another), "link" (up or not)
export const changes = new EventTarget();

const announce = (kind, detail) => changes.dispatchEvent(new CustomEvent(kind, { detail }));

export function remember(task) {
  const known = store.tasks.get(task.id);
  if (known && known.stamp > task.stamp && known.state === task.state) return;
  store.tasks.set(task.id, task);
  for (const told of asking) told.add(task.id);
  announce("task", task);
}

export function forget(id) {
  store.tasks.delete(id);
  for (const told of asking) told.add(id);
  announce("removed", id);
}

export async function readActive() {
  const [[active, newest, told], waiting] = await Promise.all([ask("tasks?state=PENDING,IN_PROGRESS&size=100&sort=oldest"), api("GET", "queue")]);
  const there = new Set(active.tasks.map(({ id }) => id));
  for (const task of store.tasks.values()) if (["PENDING", "IN_PROGRESS"].includes(task.state) && !there.has(task.id) && !told.has(task.id)) store.tasks.delete(task.id);
  for (const task of active.tasks.map(newest)) if (task) store.tasks.set(task.id, task);
  store.queue = waiting.queue;
}

// The browser connects again by itself, and tells the server the last event that it saw.
export function listen() {
  const source = new EventSource("/api/events");
  const reload = async () => {
    await readActive();
    announce("reload");
  };
  source.addEventListener("hello", () => announce("link", true));
  source.addEventListener("reset", () => reload().then(() => announce("link", true), console.error));
  source.addEventListener("task", (event) => remember(JSON.parse(event.data)));
  source.addEventListener("queue", (event) => {
    store.queue = JSON.parse(event.data);
    announce("queue");
  });
  source.addEventListener("removed", (event) => forget(JSON.parse(event.data).id));
  source.addEventListener("error", () => {
    announce("link", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => (listen(), reload().catch(console.error)), 4000);
  });
}
