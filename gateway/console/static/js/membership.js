// What may be done with a membership: each button shows what it would do, in money, and asks before it does it.
import { openDetail, say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const failed = document.getElementById("toast").dataset.failed;

async function answered(response) {
  const answer = await response.json();
  if (!response.ok) throw new Error([answer.detail, answer.do].filter(Boolean).join(" → "));
  return answer;
}

function confirmed(dialog, title, told) {
  const first = document.documentElement.lang.startsWith("zh") ? "zh" : "en";
  const second = first === "zh" ? "en" : "zh";
  dialog.querySelector("h2").textContent = title;
  const [one, other] = dialog.querySelectorAll(".act-sentence");
  one.textContent = told.sentence[first];
  other.textContent = told.sentence[second];
  for (const figure of dialog.querySelectorAll("[data-figure]")) {
    const fen = told[figure.dataset.figure];
    figure.hidden = figure.dataset.figure !== "charge_fen" && !fen;
    figure.querySelector("dd").textContent = (fen / 100).toFixed(2);
  }
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) =>
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }),
  );
}

async function act(button) {
  const acts = button.closest("[data-membership]");
  const dialog = acts.parentElement.querySelector("dialog.ask");
  const id = acts.dataset.membership;
  const address = `/api/v1/memberships/${encodeURIComponent(id)}/actions/${button.dataset.membershipAct}`;
  const body = JSON.parse(button.dataset.body);
  if (button.dataset.membershipAct === "change") body.plan = acts.querySelector("select").value;
  button.disabled = true;
  try {
    const told = await answered(await fetch(`${address}?${new URLSearchParams(body)}`));
    if (!(await confirmed(dialog, button.textContent, told))) return;
    const done = await answered(
      await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
        body: JSON.stringify(body),
      }),
    );
    say(done.code_text ? `${dialog.dataset.scan}: ${done.code_text}` : dialog.dataset.done);
    const drawer = document.getElementById("drawer");
    if (drawer.open) openDetail(`/memberships/${encodeURIComponent(id)}`);
    else setTimeout(() => location.reload(), 1200);
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-membership-act]");
  if (button) act(button);
});
