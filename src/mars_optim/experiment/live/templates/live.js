// Keeps the page up to date: asks for what has changed, and says when nobody answers.
"use strict";

const texts = document.body.dataset;
const every = 1000 * Number(texts.every);
const slowest = Math.max(60000, every);
let version = texts.version, seen = new Date(), wait = every, timer = 0, over = false;

// Makes an element like a fresh one and touches only what differs: what is open stays open, what
// is scrolled stays there, and the keyboard keeps its place.
function patch(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) { old.data = fresh.data; return; }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  patchChildren(old, fresh);
}

function patchChildren(old, fresh) {
  const have = [...old.childNodes], want = [...fresh.childNodes];
  want.forEach((node, i) => i < have.length ? patch(have[i], node) : old.append(node));
  have.slice(want.length).forEach(node => node.remove());
}

function show(found) {
  for (const [id, html] of Object.entries(found.parts)) {
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    patchChildren(document.getElementById(id), fresh.content);
  }
  document.title = found.title;
  version = found.version;
  over = found.ended;
}

function say(text, lost) {
  const line = document.getElementById("connection");
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle("lost", lost);
}

function time(short) {
  const part = "2-digit";
  return seen.toLocaleTimeString([], short
    ? { hour: part, minute: part } : { hour: part, minute: part, second: part });
}

async function look() {
  clearTimeout(timer);
  try {
    const known = { "If-None-Match": `"${version}"` };
    const answer = await fetch("state.json",
      { headers: known, cache: "no-store", signal: AbortSignal.timeout(30000) });
    if (answer.status === 403) return say(texts.refused, true);
    if (answer.status !== 304) show(await answer.json());
    seen = new Date();
    wait = every;
    document.getElementById("seen").textContent = time(false);
    say(over ? texts.over : texts.updates, false);
  } catch {
    wait = Math.min(2 * wait, slowest);
    say(texts.lost.replace("[time]", time(true)), true);
  }
  if (!over) timer = setTimeout(look, document.hidden ? 4 * wait : wait);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && !over) look(); });
say(texts.updates, false);
timer = setTimeout(look, every);
