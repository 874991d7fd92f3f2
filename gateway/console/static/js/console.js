// The shell: the drawer that htmx fills, the scope picker, the toast, and buttons that run something.

const drawer = document.getElementById("drawer");
const body = document.getElementById("drawer-body");
const toast = document.getElementById("toast");
const token = document.querySelector('meta[name="csrf"]').content;
let hideToast = 0;

// Buttons take no click before everything that answers it is there: a click is never lost in silence (shell.css).
document.addEventListener("DOMContentLoaded", () => (document.documentElement.dataset.ready = ""));

// On a phone the navigation is one row that scrolls: the page's own entry is in sight.
document.querySelector(".rail li [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

export function say(text) {
  toast.textContent = text;
  toast.dataset.shown = "";
  clearTimeout(hideToast);
  hideToast = setTimeout(() => delete toast.dataset.shown, Math.max(5000, 70 * text.length));
}

/** Show one address of ours in the drawer. */
export function openDetail(address) {
  window.htmx.ajax("GET", address, { target: "#drawer-body", swap: "innerHTML" });
}

document.addEventListener("htmx:after:swap", () => {
  if (body.childElementCount && !drawer.open) drawer.showModal();
  if (drawer.open) drawer.scrollTop = 0;
});
drawer.addEventListener("close", () => body.replaceChildren());
drawer.addEventListener("click", (event) => {
  if (event.target === drawer) drawer.close();
});
document.addEventListener("htmx:error", () => say(toast.dataset.away));

for (const picker of document.querySelectorAll("details.scope")) {
  document.addEventListener("click", (event) => {
    if (picker.open && !picker.contains(event.target)) picker.open = false;
  });
  picker.addEventListener("keydown", (event) => {
    if (event.key === "Escape") picker.open = false;
  });
}

for (const button of document.querySelectorAll("[data-command]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const response = await fetch(`/api/v1/terminals/${encodeURIComponent(button.dataset.terminal)}/commands`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
        body: JSON.stringify({ verb: button.dataset.command }),
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.detail);
      say(button.dataset.done);
      setTimeout(() => location.reload(), 2000);
    } catch (error) {
      say(`${toast.dataset.failed} (${error.message})`);
    } finally {
      button.disabled = false;
    }
  });
}

// One key per press, locked until it is answered: a bouncing button must not settle twice.
for (const button of document.querySelectorAll("[data-settle]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const region = new URLSearchParams(location.search).get("region");
      const query = region ? `?region=${encodeURIComponent(region)}` : "";
      const response = await fetch(`/api/v1/settlement/runs${query}`, {
        method: "POST",
        headers: { "X-CSRF-Token": token, "Idempotency-Key": crypto.randomUUID() },
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.detail);
      const totals = Object.entries(answer.totals).map(([name, value]) => `${name} ${value}`);
      say(`${button.dataset.done} · ${totals.join(" · ")}`);
      setTimeout(() => location.reload(), 1500);
    } catch (error) {
      say(`${toast.dataset.failed} (${error.message})`);
    } finally {
      button.disabled = false;
    }
  });
}
