// Keeps the status page at the present. Without it the page reloads itself.
"use strict";

const live = document.getElementById("live");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let stream = null, busy = false, again = false, poll = 0;

function say(text, kind) {
  if (live.textContent !== text) live.textContent = text;
  live.className = "live " + kind;
}

// reflect brings what lies outside of main in line with it.
function reflect() {
  const main = document.getElementById("status");
  document.title = main.dataset.title;
  document.documentElement.dataset.level = main.dataset.level;
  const icon = document.querySelector("link[rel=icon]"), href = "/favicon.svg?level=" + main.dataset.level;
  if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}

// morph makes a node equal to another and keeps what already is: focus,
// selection and running animations survive.
function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  const changed = from.hasAttribute("data-state") && from.dataset.state !== to.dataset.state;
  for (const a of [...from.attributes]) if (!to.hasAttribute(a.name)) from.removeAttribute(a.name);
  for (const a of to.attributes) if (from.getAttribute(a.name) !== a.value) from.setAttribute(a.name, a.value);
  const old = [...from.childNodes], fresh = [...to.childNodes];
  fresh.forEach((node, i) => (i < old.length ? morph(old[i], node) : from.append(node)));
  old.slice(fresh.length).forEach((node) => node.remove());
  if (changed && !calm.matches) from.animate([{ backgroundColor: "color-mix(in srgb, var(--warn) 22%, transparent)" }, {}], 1600);
}

// refresh fetches the present; a call during another one asks for one more.
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch("/fragment", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("status");
    morph(document.getElementById("status"), document.adoptNode(fresh));
    reflect();
    say("live", "on");
  } catch {
    say("no answer, trying again", "off");
  }
  busy = false;
  if (again) { again = false; refresh(); }
}

// follow listens for changes while somebody looks, and asks every five
// seconds where the stream is refused.
function follow() {
  stream?.close();
  clearInterval(poll);
  if (document.hidden) { say("paused", ""); return; }
  poll = setInterval(() => {
    if (stream.readyState === EventSource.OPEN) return;
    if (stream.readyState === EventSource.CLOSED) listen();
    refresh();
  }, 5000);
  listen();
}

function listen() {
  stream = new EventSource("/api/v1/events");
  stream.addEventListener("change", refresh);
  stream.addEventListener("tick", refresh);
  stream.onerror = refresh;
}

// The buttons of the demo work as plain forms too; here the page stays.
document.addEventListener("submit", async (e) => {
  const form = e.target, button = e.submitter;
  e.preventDefault();
  button?.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action, { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: form.elements.name.value, running: form.elements.running.value === "true" }) });
    if (!answer.ok) throw new Error((await answer.json()).error);
  } catch (err) {
    say(err.message, "off");
    button?.removeAttribute("aria-busy");
    return;
  }
  refresh();
});
document.addEventListener("visibilitychange", follow);

reflect();
follow();
