// Price files: one is checked, or asked about and then taken; what is wrong is listed line by line.
const form = document.getElementById("price-file");
const result = document.getElementById("price-result");
const said = result.querySelector("[data-said]");
const faults = result.querySelector(".price-faults");
const figures = result.querySelector("dl");
const jumps = result.querySelector(".table-box");
const ask = document.getElementById("ask");
const token = document.querySelector('meta[name="csrf"]').content;

function show(text, kind) {
  said.textContent = text;
  said.className = `notice ${kind}`;
  for (const part of [faults, figures, jumps]) part.hidden = true;
  result.hidden = false;
}

function refused(problem) {
  if (problem.code !== "prices_wrong") {
    show(`${form.dataset.refused}${problem.detail} → ${problem.do}`, "bad");
    return;
  }
  show(form.dataset.wrong, "bad");
  const [, ...lines] = problem.detail.split("\n");
  faults.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  faults.hidden = false;
}

function cell(text, name) {
  return Object.assign(document.createElement("td"), { textContent: text, className: name });
}

function changed(answer) {
  const { dataset } = form;
  const text = answer.dry_run ? dataset.dry : answer.version ? dataset.inForce.replace("{}", answer.version) : dataset.nothing;
  show(text, "");
  for (const one of figures.querySelectorAll("[data-figure]")) one.textContent = answer[one.dataset.figure].toLocaleString("en");
  figures.hidden = false;
  const rows = answer.jumps_shown.map((one) => {
    const row = document.createElement("tr");
    row.append(cell(one.code, "code"), cell((one.from_fen / 100).toFixed(2), "number"), cell((one.to_fen / 100).toFixed(2), "number"));
    return row;
  });
  jumps.querySelector("tbody").replaceChildren(...rows);
  jumps.hidden = rows.length === 0;
}

function sure() {
  ask.returnValue = "";
  ask.showModal();
  return new Promise((done) => ask.addEventListener("close", () => done(ask.returnValue === "yes"), { once: true }));
}

async function send(dry) {
  const { chain, file, effective, force } = form.elements;
  if (!file.files.length) {
    show(form.dataset.noFile, "warn");
    return;
  }
  if (!dry && !(await sure())) return;
  show(form.dataset.working, "");
  const query = new URLSearchParams({ dry_run: dry, force: force.checked, effective: effective.value });
  const response = await fetch(`/api/v1/chains/${encodeURIComponent(chain.value)}/prices?${query}`, {
    method: "POST",
    headers: { "Content-Type": "text/csv", "X-CSRF-Token": token },
    body: file.files[0],
  });
  const answer = await response.json();
  if (response.ok) changed(answer);
  else refused(answer);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const pressed = event.submitter;
  for (const button of form.querySelectorAll("button")) button.disabled = true;
  try {
    await send(pressed.value === "check");
  } catch (error) {
    show(`${document.getElementById("toast").dataset.away} (${error.message})`, "bad");
  } finally {
    for (const button of form.querySelectorAll("button")) button.disabled = false;
  }
});
form.elements.chain.addEventListener("change", () => location.assign(`?chain=${encodeURIComponent(form.elements.chain.value)}`));
