// Privacy & audit: an action asks why and is confirmed; one key per press, locked until it is answered.
import { say } from "./console.js";

const token = document.querySelector('meta[name="csrf"]').content;
const ask = document.getElementById("ask");
const reason = ask.querySelector("input");
const failed = document.getElementById("toast").dataset.failed;

const ADDRESSES = {
  withdraw: (id) => `members/${id}/withdraw`,
  erase: (id) => `members/${id}/erasure`,
  export: (id) => `members/${id}/export`,
  link: (id) => `members/${id}/link`,
  approve: (id) => `requests/${id}/approve`,
  refuse: (id) => `requests/${id}/refuse`,
};

async function post(path, body) {
  const response = await fetch(`/api/v1/privacy/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
    body: body ? JSON.stringify(body) : undefined,
  });
  if (!response.ok) {
    const problem = await response.json();
    throw new Error(`${problem.detail} → ${problem.do}`);
  }
  return response;
}

function confirmed(button, needsReason) {
  document.getElementById("ask-title").textContent = button.dataset.title;
  document.getElementById("ask-sure").textContent = button.dataset.sure;
  document.getElementById("ask-why").hidden = !needsReason;
  reason.required = needsReason;
  reason.value = "";
  ask.returnValue = "";
  ask.showModal();
  return new Promise((done) => ask.addEventListener("close", () => done(ask.returnValue === "yes"), { once: true }));
}

async function save(response, id) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = `member-${id}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function act(button) {
  const { act: what, id } = button.dataset;
  const needsReason = what !== "approve" && what !== "link";
  if (what !== "link" && !(await confirmed(button, needsReason))) return;
  button.disabled = true;
  try {
    const response = await post(
      ADDRESSES[what](encodeURIComponent(id)),
      needsReason ? { reason: reason.value } : undefined,
    );
    if (what === "export") {
      await save(response, id);
      say(ask.dataset.done);
    } else if (what === "link") {
      const { url } = await response.json();
      const shown = document.createElement("input");
      shown.value = url;
      shown.readOnly = true;
      shown.setAttribute("aria-label", button.textContent);
      button.replaceWith(shown);
      shown.select();
    } else {
      say(ask.dataset.done);
      setTimeout(() => location.reload(), 1200);
    }
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
}

for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => act(button));

// One line for each database's audit: whole or not, and what the last checkpoint outside of it vouches for.
function stateOf(one, words) {
  if (one.fault) return `${words.broken} · ${one.fault}`;
  const kept = one.checkpoint
    ? `${words.vouched} ${one.checkpoint} · ${words.since} ${one.events - one.checkpoint} ${words.events}`
    : words.none;
  return `${words.whole} · ${one.events} ${words.events} · ${kept}`;
}

const check = document.getElementById("check-chain");
check.addEventListener("click", async () => {
  check.disabled = true;
  try {
    const checks = await (await post("audit/verify")).json();
    const state = document.getElementById("chain-state");
    state.textContent = checks.map((one) => stateOf(one, check.dataset)).join(" — ");
    state.className = `notice ${checks.some((one) => one.fault) ? "bad" : checks.every((one) => one.checkpoint) ? "" : "warn"}`;
    state.hidden = false;
  } catch (error) {
    say(`${failed} (${error.message})`);
  } finally {
    check.disabled = false;
  }
});
