// Settlement: each button asks first, with a reason where one is kept, and is pressed once.
import { say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const ask = document.getElementById("ask");
const reason = ask.querySelector("input");
const failed = document.getElementById("toast").dataset.failed;

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

async function act(button) {
  if (!(await confirmed(button))) return;
  button.disabled = true;
  try {
    const body = { ...JSON.parse(button.dataset.body), reason: reason.value };
    const response = await fetch(button.dataset.do, {
      method: button.dataset.do.endsWith("/switch") ? "PUT" : "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${answer.detail} → ${answer.do}`);
    say(ask.dataset.done);
    setTimeout(() => location.reload(), 800);
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

async function forecast(button) {
  button.disabled = true;
  try {
    const response = await fetch(button.dataset.forecast);
    const answer = await response.json();
    if (!response.ok) throw new Error(`${answer.detail} → ${answer.do}`);
    const shown = document.getElementById(button.dataset.into);
    for (const place of shown.querySelectorAll("[data-field]")) {
      const value = answer[place.dataset.field];
      place.textContent = place.dataset.field.endsWith("_fen") ? (value / 100).toFixed(2) : value.toLocaleString("en");
    }
    shown.hidden = false;
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

for (const button of document.querySelectorAll("[data-forecast]")) button.addEventListener("click", () => forecast(button));
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => act(button));
