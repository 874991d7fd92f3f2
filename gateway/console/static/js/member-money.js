// A member's balance and agreements: topped up, paid out, signed, ended. What a button did is shown at once.
import { say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const failed = document.getElementById("toast").dataset.failed;

async function send(address, method, body) {
  const response = await fetch(address, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error([answer.detail, answer.do].filter(Boolean).join(" → "));
  return answer;
}

async function perform(at, work) {
  const part = at.closest("[data-member-money]");
  try {
    await work();
    const form = part.querySelector("[data-money]");
    say(form.dataset.done);
    window.htmx.ajax("GET", part.getAttribute("hx-get"), { target: part, swap: "innerHTML" });
  } catch (error) {
    say(`${failed} (${error.message})`);
  }
}

function fenOf(text) {
  const [yuan, rest = ""] = text.split(".");
  return Number(yuan) * 100 + Number(rest.padEnd(2, "0"));
}

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-money]");
  if (!form) return;
  event.preventDefault();
  const { yuan, store, drawer, way } = Object.fromEntries(new FormData(form));
  const body = { fen: fenOf(yuan), store, drawer, way };
  perform(form, () => send(`${form.dataset.money}/${event.submitter.value}`, "POST", body));
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-agreement]");
  if (!button) return;
  const signs = button.dataset.agreement.endsWith("/agreements");
  perform(button, () => send(button.dataset.agreement, button.dataset.method, signs ? {} : undefined));
});
