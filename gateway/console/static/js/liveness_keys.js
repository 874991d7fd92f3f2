// Keys for signed liveness: one key per press, locked until it is answered; a revocation is asked about first.
import { say } from "./console.js";

const card = document.getElementById("liveness-keys");
const token = document.querySelector('meta[name="csrf"]').content;
const failed = document.getElementById("toast").dataset.failed;

async function order(button, path, body) {
  button.disabled = true;
  try {
    const address = `/api/v1/terminals/${encodeURIComponent(card.dataset.terminal)}/liveness-keys${path}`;
    const response = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error([answer.detail, answer.do].filter(Boolean).join(" → "));
    say(card.dataset.done);
    setTimeout(() => location.reload(), 1500);
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

card?.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { key, replace } = event.target.elements;
  order(event.target.querySelector("button"), "", { key: key.value, replace: replace.checked });
});

for (const button of card?.querySelectorAll("[data-revoke]") ?? []) {
  button.addEventListener("click", () => {
    if (confirm(button.dataset.sure)) order(button, "/revoke", { fingerprint: button.dataset.revoke });
  });
}
