// One rollout: its buttons ask first, one key per press, locked until answered; the ladder follows while it is live.
import { say } from "./console.js";
import { told } from "./refusals.js";

const FOLLOW_MS = 2000;
const REST_EVERY = 5; // looks: terminals and journal follow what moved, slower than the ladder
const token = document.querySelector('meta[name="csrf"]').content;
const toast = document.getElementById("toast");
const ask = document.getElementById("ask");
const reason = ask.querySelector("input");

function confirmed(button) {
  const why = button.dataset.why === "yes";
  document.getElementById("ask-title").textContent = button.dataset.title;
  document.getElementById("ask-sure").textContent = button.dataset.sure;
  document.getElementById("ask-why").hidden = !why;
  reason.required = why;
  reason.value = "";
  ask.returnValue = "";
  ask.showModal();
  return new Promise((done) => ask.addEventListener("close", () => done(ask.returnValue === "yes"), { once: true }));
}

async function post(address, body) {
  const response = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
    body: Object.keys(body).length ? JSON.stringify(body) : undefined,
  });
  if (!response.ok) throw new Error(told(await response.json()));
}

const pending = new Set();
let signedOut = false;
let behind = 0;

async function press(control, address, body, done = () => {}) {
  pending.add(address);
  control.disabled = true;
  try {
    await post(address, body);
    done();
    say(ask.dataset.done);
  } catch (error) {
    say(error instanceof TypeError ? toast.dataset.away : error.message);
  } finally {
    pending.delete(address);
    control.disabled = false;
    await look().catch(() => {});
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || pending.has(button.dataset.do) || !(await confirmed(button))) return;
  const { stage, successor, why } = button.dataset;
  const body = { ...(why === "yes" && { reason: reason.value }), ...(stage && { stage: Number(stage) }), ...(successor && { successor }) };
  await press(button, button.dataset.do, body);
});

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-attach]");
  if (!form) return;
  event.preventDefault();
  if (pending.has(form.dataset.attach)) return;
  const { reference } = form.elements;
  const body = { name: form.dataset.name, reference: reference.value };
  await press(form.querySelector("button"), form.dataset.attach, body, () => {
    reference.value = "";
    reference.blur();
  });
});

/** Take what is new, keep what somebody has opened, focused or begun to write. */
function take(id, html) {
  const old = document.getElementById(id);
  const next = new DOMParser().parseFromString(html, "text/html").getElementById(id);
  if (!next) return null;
  for (const opened of old.querySelectorAll("details[open][id]")) next.querySelector(`#${opened.id}`)?.setAttribute("open", "");
  if (next.outerHTML === old.outerHTML) return old;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const taken = document.adoptNode(next);
  old.replaceWith(taken);
  window.htmx.process(taken);
  if (focused) document.getElementById(focused)?.focus();
  return taken;
}

function busy(live) {
  return ask.open || pending.size > 0 || [...live.querySelectorAll("input")].some((one) => one.value);
}

async function fetched(address) {
  const response = await fetch(address, { headers: { "HX-Request": "true" } });
  if (response.status === 401) {
    signedOut = true;
    say(ask.dataset.signedOut);
  }
  if (!response.ok || response.redirected) throw new Error(String(response.status));
  return response.text();
}

/** Nobody reads in it, has opened or begun something there. */
function idle() {
  const rest = document.getElementById("rest");
  const read = [...rest.querySelectorAll(".timeline")].some((one) => one.scrollTop > 0);
  return !read && !rest.contains(document.activeElement) && !document.querySelector("dialog[open]") && getSelection().isCollapsed;
}

async function look() {
  const live = document.getElementById("live");
  if (document.hidden || busy(live)) return;
  const html = await fetched(live.dataset.follow);
  if (busy(live)) return;
  const taken = take("live", html);
  if (!taken) return;
  behind += taken !== live || behind > 0 ? 1 : 0;
  if (taken.dataset.at !== live.dataset.at || (behind >= REST_EVERY && idle())) {
    behind = 0;
    take("rest", await fetched(location.href));
  }
}

async function go() {
  const mark = () => document.querySelector("#live .live");
  try {
    if ("moves" in document.getElementById("live").dataset) await look();
    if (mark()) mark().dataset.state = "live";
  } catch {
    if (mark()) mark().dataset.state = "lost";
  }
  if (!signedOut) setTimeout(go, FOLLOW_MS);
}

setTimeout(go, FOLLOW_MS);
