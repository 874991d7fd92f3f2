// A terminal in the browser: what it shows is the screen document, what it sends are the protocol's events.

import { Camera, fromFile } from "./camera.js";
import { show } from "./terminal-screen.js";
import { t } from "./texts.js";
import { Wire } from "./wire.js";

const byId = (id) => document.getElementById(id);
const token = document.querySelector('meta[name="csrf"]').content;
const chinese = document.documentElement.lang.startsWith("zh");
const language = chinese ? "zh" : "en";
const consents = JSON.parse(byId("consents").textContent);
const granted = new Set();
const LOG_LINES_MAX = 60;

let screen = null;
let asked = 0;

function say(text) {
  byId("toast").textContent = text;
  byId("toast").dataset.shown = "";
  clearTimeout(asked);
  asked = setTimeout(() => delete byId("toast").dataset.shown, 6000);
}

function told(kind, document_) {
  const line = document.createElement("li");
  const sign = { sent: "→", reply: "←", again: "↻" }[kind];
  line.textContent = `${sign} ${kind === "again" ? t("vt.sent_again") : JSON.stringify(document_)}`;
  if (kind === "reply" && document_ && !document_.ok) line.className = "refused";
  byId("log").prepend(line);
  while (byId("log").childElementCount > LOG_LINES_MAX) byId("log").lastElementChild.remove();
}

const wire = new Wire(document.body.dataset.terminal, token, told);
const live = () => screen && screen.state !== "closed";
const session = () => (live() ? screen.session : null);
// A scan after the result page is the next customer's: without a session it opens one.
const scan = (code) => send("scan", { code, quantity: 1 }, screen?.state === "paid");

/** Newer by (session, rev); another session is newer by its own first screen. */
function take(next) {
  if (!next || (screen && next.session === screen.session && next.rev <= screen.rev)) return;
  if (!screen || next.session !== screen.session) granted.clear();
  screen = next;
  show(screen, { join: () => join(), remove: (line) => send("remove", { line }) });
  allow();
}

function allow() {
  const actions = new Set(screen?.actions ?? ["session.open"]);
  for (const button of document.querySelectorAll("[data-do='cancel']")) button.disabled = !actions.has("cancel");
  for (const button of document.querySelectorAll("[data-pay]")) button.disabled = !actions.has("confirm");
  byId("digits-form").hidden = !actions.has("digits");
  const code = byId("pay-code");
  if (code) code.hidden = !screen?.prompt?.params?.code_url;
}

// One message at a time: every button is locked until its reply is there.
let busy = false;
async function locked(work) {
  if (busy) return null;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    say(error.message);
    return null;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function heard(answer) {
  take(answer.screen);
  const error = answer.reply?.error;
  if (error) say([error.message, error.do].filter(Boolean).join(" · "));
  return Boolean(answer.reply?.ok);
}

const say_event = async (type, body, fresh = false) => heard(await wire.event(type, body, fresh ? null : session()));
const send = (type, body, fresh = false) => locked(() => say_event(type, body, fresh));

async function ask(purpose) {
  if (granted.has(purpose)) return true;
  const text = consents.find((entry) => entry.purpose === purpose);
  byId("consent-title").textContent = t(`consent.${purpose}`);
  byId("consent-text").textContent = text?.[language] ?? t(`consent.${purpose}_text`);
  const dialog = byId("consent");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => { dialog.addEventListener("close", resolve, { once: true }); });
  const yes = dialog.returnValue === "grant";
  if (!yes && dialog.returnValue !== "refuse") return false;
  const ok = await say_event("consent", { purpose, text: text?.version ?? "1", granted: yes });
  if (yes && ok) granted.add(purpose);
  return yes && ok;
}

async function recognise(jpegs) {
  await locked(async () => {
    if (!live() && !await say_event("session.open", {}, true)) return;
    if (!await ask("recognise")) return;
    for (const jpeg of jpegs) heard(await wire.face(jpeg, session()));
  });
}

async function join() {
  await locked(async () => {
    const offer = screen.offers[0];
    if (!await ask("membership")) return;
    await ask("recognise");
    const dialog = byId("enrol");
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => { dialog.addEventListener("close", resolve, { once: true }); });
    if (dialog.returnValue !== "enrol") return;
    const body = { plan: offer.id, guarantee: offer.guarantees[0] };
    const phone = dialog.querySelector("[name=phone]").value.trim();
    if (phone) body.phone = phone;
    if (document.body.dataset.demo) body.auth = await authorisation();
    await say_event("enrol", body);
  });
}

async function demo(path, body) {
  const response = await fetch(`/api/v1/demo/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify({ user: byId("customer").value, ...body }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.detail} · ${answer.do}`);
  return answer;
}

const authorisation = async () => ({ provider: "alipay", token: (await demo("face-token", {})).token });

function pay(kind) {
  return locked(async () => {
    const tender = { kind, fen: kind === "cash" ? screen.cash_due_fen : screen.due_fen };
    if (kind === "face") tender.auth = await authorisation();
    await say_event("confirm", { rev: screen.rev, tenders: screen.due_fen ? [tender] : [] });
  });
}

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => {
    const type = button.dataset.do;
    if (type === "session.open") send(type, {}, true);
    else if (type === "scan") scan(button.dataset.code);
    else send(type, {});
  });
}
for (const button of document.querySelectorAll("[data-pay]")) button.addEventListener("click", () => pay(button.dataset.pay));
byId("pay-code")?.addEventListener("click", () => locked(() => demo("pay", { qr_code: screen.prompt.params.code_url })));

byId("scan-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = event.target.elements.code;
  if (field.value.trim()) scan(field.value.trim());
  field.value = "";
});
byId("digits-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send("digits", { tail: event.target.elements.tail.value });
  event.target.reset();
});

const camera = new Camera(byId("video"));
byId("camera").addEventListener("click", async () => {
  try {
    await camera.start();
    byId("shoot").hidden = false;
  } catch {
    say(t("vt.no_camera"));
  }
});
byId("shoot").addEventListener("click", async () => recognise([await camera.shoot()]));
byId("photo").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  try {
    await recognise(await Promise.all(files.map(fromFile)));
  } catch {
    say(t("vt.bad_photo"));
  }
});

// The long poll: what other members of the lane do shows here too.
const leaving = new AbortController();
window.addEventListener("pagehide", () => { leaving.abort(); camera.stop(); });
async function watch() {
  while (!leaving.signal.aborted) {
    try {
      take(await wire.screen(screen?.session ?? "", screen?.rev ?? 0, leaving.signal));
      if (!screen) await new Promise((resolve) => { setTimeout(resolve, 500); });
    } catch {
      if (leaving.signal.aborted) return;
      byId("rev").textContent = t("vt.lost");
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
  }
}
allow();
watch();
