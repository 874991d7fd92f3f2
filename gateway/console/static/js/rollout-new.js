// A new rollout: the preview is the resolver's own answer; what is wrong in a policy is shown line by line.
import { say } from "./console.js";
import { told } from "./refusals.js";

const form = document.getElementById("rollout");
const { elements } = form;
const words = document.getElementById("words").dataset;
const texts = JSON.parse(document.getElementById("policy-texts").textContent);
const faults = document.getElementById("faults");
const said = document.getElementById("said");
const shown = document.getElementById("preview");
const copy = document.getElementById("copy");
const token = document.querySelector('meta[name="csrf"]').content;
let key = crypto.randomUUID();

const split = (text) => text.split(/[\s,，;；]+/).filter(Boolean);
const chosen = (select) => [...select.selectedOptions].map((one) => one.value);
const shipped = () => elements.policy.value && elements.yaml.value === texts[elements.policy.value];

/** Who is asked, as the API takes it. Throws for a label without a value. */
function selector() {
  const found = {};
  if (elements.reach.value === "all") found.all_stores = true;
  else {
    const labels = {};
    for (const line of elements.labels.value.split(/[\n,，;；]+/).map((one) => one.trim()).filter(Boolean)) {
      const [name, value] = line.split("=").map((one) => one.trim());
      if (!name || !value) throw new Error(words.noKey.replace("{}", line));
      (labels[name] ??= []).push(value);
    }
    if (Object.keys(labels).length) found.labels = labels;
    if (chosen(elements.regions).length) found.regions = chosen(elements.regions);
    if (split(elements.stores.value).length) found.stores = split(elements.stores.value);
  }
  if (split(elements.roles.value).length) found.roles = split(elements.roles.value);
  if (split(elements.without.value).length) found.excluded_stores = split(elements.without.value);
  return found;
}

/** A value as JSON where it is JSON, else as text. */
function value(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const read = { text: "", patch: null };

/** The patch that was written as YAML, read by the server; null when it was refused. */
async function patch() {
  const text = elements.patch.value;
  if (read.text !== text || !read.patch) {
    read.patch = await send("/api/v1/rollouts/patch", { text }, elements.patch);
    read.text = text;
  }
  return read.patch;
}

/** The caption of what stands in the part of the form that is shown and was left empty; "" when nothing was. */
function missing() {
  const part = form.querySelector(`[data-kind="${elements.kind.value}"]`);
  const fields = [...part.querySelectorAll("textarea, select, input:not([type=checkbox])")];
  const empty = fields.length ? fields.find((one) => !one.value.trim())?.closest("label").querySelector("span") : part;
  return (empty ?? (elements.yaml.value.trim() ? null : elements.policy.closest("label").querySelector("span")))?.textContent.trim();
}

const candidate = { said: "", made: null };

/** A file of prices, or plans, as a candidate of the chain's book; the same files are asked about once. */
async function kept(kind) {
  const files = [...elements[kind === "prices" ? "prices" : "plans"].files];
  const chain = elements.chain?.value ?? "";
  const whole = JSON.stringify([kind, chain, elements.force.checked, files.map((one) => [one.name, one.size, one.lastModified])]);
  if (candidate.said === whole && candidate.made) return candidate.made;
  candidate.made = null;
  if (kind === "prices") {
    const query = new URLSearchParams({ chain, force: elements.force.checked });
    candidate.made = await send(`/api/v1/rollouts/candidates/prices?${query}`, files[0], null, "text/csv");
  } else {
    const plans = [];
    for (const file of files) {
      const plan = await send("/api/v1/rollouts/patch", { text: await file.text() }, null);
      if (!plan) return null;
      plans.push(plan);
    }
    candidate.made = await send("/api/v1/rollouts/candidates/plans", { plans, chain }, null);
  }
  candidate.said = whole;
  return candidate.made;
}

async function artefact() {
  const kind = elements.kind.value;
  if (kind === "prices" || kind === "plan") {
    const made = await kept(kind);
    return made && { kind: "book", version: Number(made.version) };
  }
  if (kind === "config") return { kind, patch: await patch() };
  if (kind === "flag") return { kind, name: elements.flag.value.trim(), value: value(elements.value.value) };
  if (kind === "book") return { kind, version: Number(elements.book.value) };
  return { kind, release: elements.release?.value ?? "", fallback: elements.fallback?.value ?? "" };
}

/** What the API takes; null when the patch was refused. */
async function body() {
  const what = await artefact();
  if (!what || (what.kind === "config" && !what.patch)) return null;
  const policy = shipped() ? { policy: elements.policy.value } : { policy_yaml: elements.yaml.value };
  const chain = elements.chain ? { chain: elements.chain.value } : {};
  return { artefact: what, selector: selector(), ...policy, ...chain, seed: Number(elements.seed.value || 0) };
}

// ---------------------------------------------------------------- copy as

const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

function asCli(wanted) {
  const { artefact: what, selector: whom } = wanted;
  const parts = ["storeops rollout plan", `--policy ${wanted.policy ?? "my-policy.yaml"}`];
  if (whom.all_stores) parts.push("--select all");
  for (const [name, word] of [["regions", "region"], ["stores", "store"], ["roles", "role"]]) {
    for (const one of whom[name] ?? []) parts.push(`--select ${word}=${one}`);
  }
  for (const [name, values] of Object.entries(whom.labels ?? {})) {
    for (const one of values) parts.push(`--select label.${name}=${one}`);
  }
  for (const one of whom.excluded_stores ?? []) parts.push(`--select ${quoted(`!store=${one}`)}`);
  if (what.kind === "config") parts.push(`--config ${quoted(JSON.stringify(what.patch))}`);
  else if (what.kind === "flag") parts.push(`--flag ${quoted(`${what.name}=${JSON.stringify(what.value)}`)}`);
  else if (elements.kind.value === "prices") parts.push(`--prices ${quoted(elements.prices.files[0].name)}`, ...(elements.force.checked ? ["--force"] : []));
  else if (elements.kind.value === "plan") parts.push(...[...elements.plans.files].map((one) => `--plan ${quoted(one.name)}`));
  else if (what.kind === "book") parts.push(`--book ${what.version}`);
  else parts.push(`--software ${quoted(what.release)}`, `--fallback ${quoted(what.fallback)}`);
  if (wanted.chain) parts.push(`--chain ${wanted.chain}`);
  if (wanted.seed) parts.push(`--seed ${wanted.seed}`);
  return parts.join(" \\\n  ");
}

function asCurl(wanted) {
  return [
    `curl -b jar ${location.origin}/api/v1/rollouts`,
    `-H "Idempotency-Key: $(uuidgen)" -H "X-CSRF-Token: $TOKEN"`,
    `--json ${quoted(JSON.stringify(wanted))}`,
  ].join(" \\\n  ");
}

function copies(wanted) {
  document.getElementById("as-cli").textContent = asCli(wanted);
  document.getElementById("as-curl").textContent = asCurl(wanted);
  copy.hidden = false;
}

// ---------------------------------------------------------------- asked and answered

function tell(text, kind) {
  said.textContent = text;
  said.className = `notice ${kind}`;
  said.hidden = !text;
}

/** Select what is wrong, where it stands. */
function jump(area, line, column) {
  if (area === elements.yaml) document.getElementById("rules").open = true;
  const lines = area.value.split("\n");
  const at = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0) + column - 1;
  area.focus();
  area.setSelectionRange(at, at + Math.max(1, (lines[line - 1] ?? "").length - column + 1));
  area.scrollTop = Math.max(0, ((line - 4) * area.scrollHeight) / lines.length);
}

function wrong(problem, area) {
  shown.hidden = true;
  copy.hidden = true;
  const placed = (problem.errors ?? []).filter((one) => one.line);
  const [first, ...lines] = problem.detail.split("\n"); // a price file's faults stand in lines
  tell(told({ ...problem, detail: first }), "bad");
  faults.replaceChildren(
    ...placed.map((one) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button", className: "button" });
      button.textContent = `${words.line.replace("{}", `${one.line}:${one.column}`)} ${one.field}: ${one.problem}`;
      if (area) button.addEventListener("click", () => jump(area, one.line, one.column));
      item.append(button);
      return item;
    }),
    ...lines.map((one) => Object.assign(document.createElement("li"), { textContent: one })),
  );
  faults.hidden = placed.length + lines.length === 0;
  said.scrollIntoView({ block: "nearest" });
}

function cell(text, name = "") {
  return Object.assign(document.createElement("td"), { textContent: text, className: name });
}

function seen(stage) {
  const outlook = stage.outlook;
  if (!outlook) return words.none;
  const mde = outlook.mde === null ? "" : `±${(100 * outlook.mde).toFixed(0)} % · `;
  return mde + outlook.why[document.documentElement.lang.startsWith("zh") ? "zh" : "en"];
}

function previewed(plan) {
  tell(words.fine, "");
  faults.hidden = true;
  shown.querySelector("[data-field=plan_sha256]").textContent = plan.plan_sha256;
  const conflict = document.getElementById("conflict");
  conflict.textContent = plan.conflict ? words.conflict.replace("{}", plan.conflict) : "";
  conflict.hidden = !plan.conflict;
  const strange = document.getElementById("strange");
  strange.textContent = plan.strange.length ? words.strange.replace("{}", plan.strange.join("; ")) : "";
  strange.hidden = !plan.strange.length;
  const rows = plan.stages.map((stage, n) => {
    const row = document.createElement("tr");
    row.className = "group-start";
    const strata = Object.entries(stage.strata).map(([name, count]) => `${name || "–"} ${count}`).join(", ");
    row.append(cell(`${n + 1} · ${stage.name}`), cell(stage.stores, "number"), cell(stage.terminals, "number"), cell(strata), cell(seen(stage)));
    return row;
  });
  shown.querySelector("tbody").replaceChildren(...rows);
  shown.hidden = false;
  shown.scrollIntoView({ block: "nearest" });
}

/** `area`: where faults that have a line stand. */
async function send(address, wanted, area = elements.yaml, type = "application/json") {
  const response = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": type, "X-CSRF-Token": token, "Idempotency-Key": key },
    body: type === "application/json" ? JSON.stringify(wanted) : wanted,
  });
  const answer = await response.json();
  if (!response.ok) wrong(answer, area);
  return response.ok ? answer : null;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const left = missing();
  if (left) {
    tell(form.querySelector(`[data-kind="${elements.kind.value}"] label`) ? words.missing.replace("{}", left) : left, "warn");
    return;
  }
  const buttons = form.querySelectorAll("p.buttons button");
  for (const one of buttons) one.disabled = true;
  tell(words.working, "");
  try {
    const wanted = await body();
    if (!wanted) return;
    if (event.submitter.value === "preview") {
      const plan = await send("/api/v1/rollouts/preview", wanted);
      if (!plan) return;
      previewed(plan);
      copies(wanted);
    } else {
      const made = await send("/api/v1/rollouts", wanted);
      if (!made) return;
      say(words.made);
      location.assign(`/rollouts/${encodeURIComponent(made.id)}`);
    }
  } catch (error) {
    tell(error instanceof TypeError ? words.away : error.message, "bad");
  } finally {
    for (const one of buttons) one.disabled = false;
  }
});

// ---------------------------------------------------------------- the form follows itself

const POLICIES = { config: "configuration", flag: "configuration", software: "software", prices: "prices", plan: "prices", book: "prices" };

function follow() {
  for (const part of form.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== elements.kind.value;
  for (const part of form.querySelectorAll("[data-reach]")) part.hidden = part.dataset.reach !== elements.reach.value;
}

form.addEventListener("change", (event) => {
  if (event.target.name === "kind" && !("few" in form.dataset)) elements.policy.value = POLICIES[elements.kind.value];
  if (event.target.name === "policy" || event.target.name === "kind") {
    elements.yaml.value = texts[elements.policy.value] ?? elements.yaml.value;
    if (event.target.name === "policy" && !elements.policy.value) document.getElementById("rules").open = true;
  }
  follow();
});
form.addEventListener("input", () => {
  key = crypto.randomUUID();
  copy.hidden = true;
  shown.hidden = true; // it was of something else
});
elements.yaml.value = texts[elements.policy.value] ?? "";
follow();
