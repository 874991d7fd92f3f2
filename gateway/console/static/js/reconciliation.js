// Reconciliation: each button asks first, is pressed once, and a day that stays open says why.
import { say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const ask = document.getElementById("ask");
const reason = ask.querySelector("input");
const failed = document.getElementById("toast").dataset.failed;
const region = new URLSearchParams(location.search).get("region");

function confirmed(button) {
  if (!button.dataset.sure) return Promise.resolve(true);
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

async function post(button) {
  const body = button.dataset.why ? { reason: reason.value } : undefined;
  if (button.dataset.remedy) body.remedy = button.dataset.remedy;
  const query = region ? `?region=${encodeURIComponent(region)}` : "";
  const response = await fetch(button.dataset.do + query, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
    body: body ? JSON.stringify(body) : undefined,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.detail} → ${answer.do}`);
  return answer;
}

function obstacles(button, answer) {
  const words = { not_over: "notOver", no_statement: "noStatement", open_lines: "openLines" };
  const told = answer.obstacles.map((one) => `${ask.dataset[words[one.code]]} (${one.what})`).join(" · ");
  const notice = button.closest("section").querySelector("[data-obstacles]");
  notice.textContent = `${ask.dataset.stays}${answer.day} · ${told}`;
  notice.hidden = false;
  const first = answer.obstacles.flatMap((one) => one.lines)[0];
  document.getElementById(`line-${first}`)?.scrollIntoView({ block: "center" });
}

async function act(button) {
  if (!(await confirmed(button))) return;
  button.disabled = true;
  try {
    const answer = await post(button);
    if (answer.closed === false && answer.obstacles) {
      obstacles(button, answer);
      return;
    }
    say(ask.dataset.done);
    setTimeout(() => location.reload(), 800);
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => act(button));
