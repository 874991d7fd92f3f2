// Kill switches: each asks why and is confirmed; one key per press, locked until it is answered.
import { say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const ask = document.getElementById("ask");
const form = ask.querySelector("form");
const failed = document.getElementById("toast").dataset.failed;

function confirmed(button, lift) {
  document.getElementById("ask-title").textContent = button.dataset.title;
  document.getElementById("ask-sure").textContent = button.dataset.sure;
  document.getElementById("ask-minutes").hidden = lift;
  form.reset();
  ask.returnValue = "";
  ask.showModal();
  return new Promise((done) => ask.addEventListener("close", () => done(ask.returnValue === "yes"), { once: true }));
}

async function order(button, body) {
  if (!(await confirmed(button, body.lift))) return;
  button.disabled = true;
  try {
    const minutes = form.elements.minutes.value;
    const response = await fetch("/api/v1/kill-switches", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
      body: JSON.stringify({
        ...body,
        reason: form.elements.reason.value,
        ...(minutes && !body.lift ? { minutes: Number(minutes) } : {}),
      }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error([answer.detail, answer.do].filter(Boolean).join(" → "));
    say(answer.ok ? ask.dataset.done : ask.dataset.missed);
    setTimeout(() => location.reload(), 2500);
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

for (const one of document.querySelectorAll("form[data-throw]")) {
  one.addEventListener("submit", (event) => {
    event.preventDefault();
    const { scope, name } = one.elements;
    const body = { switch: one.dataset.throw, scope: scope.value, name: name.value, lift: false };
    order(one.querySelector("button"), body);
  });
}

for (const button of document.querySelectorAll("button[data-lift]")) {
  const { kill, scope, name } = button.dataset;
  button.addEventListener("click", () => order(button, { switch: kill, scope, name, lift: true }));
}
