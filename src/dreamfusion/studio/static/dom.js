// Elements and words. Nothing here or elsewhere turns text into markup.

export const $ = (id) => document.getElementById(id);

// An element with attributes (`onclick` and the like are listeners, true and false set and unset) and children.
export function h(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function clock(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function ago(time) {
  const seconds = Date.now() / 1000 - time;
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    if (seconds >= size) return words.format(-Math.floor(seconds / size), unit);
  }
  return "just now";
}

export const moment = (time) => new Date(time * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

export function debounced(call, milliseconds) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}

// Calls at most once in so many milliseconds, and always after the last wish: a stream of them cannot put it off.
export function throttled(call, milliseconds) {
  let timer;
  return () => {
    timer ??= setTimeout(() => ((timer = undefined), call()), milliseconds);
  };
}

// A note that goes by itself; `link` is [text, address].
export function toast(text, link, kind = "") {
  const note = h("p", { class: `toast ${kind}` }, text, link && h("a", { href: link[1] }, link[0]));
  $("toasts").append(note);
  setTimeout(() => note.remove(), 7000);
}

export const wrong = (error) => toast(error.message, null, "bad");
