// Ticks off what starts, and opens the console when everything is there.

const list = document.getElementById("parts");
const texts = JSON.parse(document.getElementById("texts").textContent);

// A region's part is named part/region.
function nameOf(part) {
  const [kind, region] = part.split("/");
  const name = texts[`part.${kind}`] ?? kind;
  return region ? `${name} · ${region}` : name;
}

function row(part) {
  const item = document.createElement("li");
  item.dataset.part = part.name;
  item.dataset.state = part.state;
  const cells = [
    ["part-mark", ""],
    ["part-name", nameOf(part.name)],
    ["part-detail", part.detail],
    ["part-ms", part.ms ? `${(part.ms / 1000).toFixed(1)} s` : ""],
  ];
  for (const [name, text] of cells) {
    const cell = document.createElement("span");
    cell.className = name;
    cell.textContent = text;
    if (name === "part-mark") {
      cell.role = "img";
      cell.ariaLabel = texts[`part_state.${part.state}`] ?? part.state;
    }
    item.append(cell);
  }
  return item;
}

async function look() {
  try {
    const report = await (await fetch("/startup.json")).json();
    if (report.ready) {
      location.reload();
      return;
    }
    if (report.parts.length) list.replaceChildren(...report.parts.map(row));
  } catch {
    // The gateway itself restarts: ask again.
  }
  setTimeout(look, 400);
}

look();
