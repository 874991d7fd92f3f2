// Drawers: every button asks first; a press has one number, whatever the line does, and waits for its answer.
import { say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const ask = document.getElementById("till-ask");
const form = ask.querySelector("form");
const bad = document.getElementById("till-bad");
const failed = document.getElementById("toast").dataset.failed;
let pressed = null;
let number = "";

/** Yuan as people write them, in integer fen; NaN when it is none. Never a float of yuan. */
function fen(text) {
  const parts = /^(\d{1,7})(?:\.(\d{0,2}))?$/.exec(text.trim());
  return parts ? Number(parts[1]) * 100 + Number((parts[2] || "").padEnd(2, "0")) : NaN;
}

function open(button) {
  pressed = button;
  number = crypto.randomUUID();
  form.reset();
  bad.hidden = true;
  document.getElementById("till-title").textContent = button.dataset.title;
  document.getElementById("till-sure").textContent = button.dataset.sure;
  document.getElementById("till-who").textContent = button.dataset.who;
  document.getElementById("till-amount").hidden = !button.dataset.amount;
  document.getElementById("till-reason").hidden = !button.dataset.reason;
  // Who takes over is somebody else than who stood there.
  form.elements.by.value = button.dataset.do.endsWith("/hand-over") ? "" : localStorage.getItem("drawer-by") || "";
  ask.showModal();
}

function type(key) {
  const field = form.elements.amount;
  field.value = key === "back" ? field.value.slice(0, -1) : (field.value + key).slice(0, field.maxLength);
}

function wrong(text) {
  bad.textContent = text;
  bad.hidden = false;
}

async function submit(event) {
  if (event.submitter?.value === "no") return;
  event.preventDefault();
  const body = { by: form.elements.by.value.trim() };
  if (pressed.dataset.amount) {
    const amount = fen(form.elements.amount.value);
    if (Number.isNaN(amount)) return wrong(ask.dataset.bad);
    body[pressed.dataset.amount] = amount;
  }
  if (pressed.dataset.reason) body.reason = form.elements.reason.value;
  localStorage.setItem("drawer-by", body.by);
  for (const button of form.querySelectorAll("[type=submit]")) button.disabled = true;
  try {
    const response = await fetch(pressed.dataset.do, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": number },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) {
      // A refusal is final for this number: what is mended is another request.
      number = crypto.randomUUID();
      return wrong(`${answer.detail} → ${answer.do}`);
    }
    ask.close("yes");
    say(ask.dataset.done);
    const here = new URL(location.href);
    here.searchParams.delete("shift");
    if (answer.kind === "Z") here.searchParams.set("shift", answer.shift);
    location.assign(here);
  } catch (error) {
    wrong(`${failed} (${error.message})`);
  } finally {
    for (const button of form.querySelectorAll("[type=submit]")) button.disabled = false;
  }
}

form.addEventListener("submit", submit);
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => open(button));
for (const button of document.querySelectorAll("[data-key]")) button.addEventListener("click", () => type(button.dataset.key));
document.getElementById("print")?.addEventListener("click", () => window.print());
