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

export const fileOf = (task, name) => `/api/tasks/${task.id}/files/${name}?v=${task.stamp}`;

export const store = { tasks: new Map(), queue: [], options: null };

// "task" (detail: the task), "removed" (its id), "queue", "reload" (everything may be another), "link" (up or not)
export const changes = new EventTarget();

const announce = (kind, detail) => changes.dispatchEvent(new CustomEvent(kind, { detail }));

export function remember(task) {
  const known = store.tasks.get(task.id);
  if (known && known.stamp > task.stamp && known.state === task.state) return;
  store.tasks.set(task.id, task);
  announce("task", task);
}

export function forget(id) {
  store.tasks.delete(id);
  announce("removed", id);
}

export async function readActive() {
  const [active, waiting] = await Promise.all([api("GET", "tasks?state=PENDING,IN_PROGRESS&size=100&sort=oldest"), api("GET", "queue")]);
  for (const [id, task] of store.tasks) if (["PENDING", "IN_PROGRESS"].includes(task.state)) store.tasks.delete(id);
  for (const task of active.tasks) store.tasks.set(task.id, task);
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
