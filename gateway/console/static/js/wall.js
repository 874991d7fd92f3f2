// The wall: tiles by server-sent events, drawn on a canvas, told again as a table, summed up in words.

import { openDetail } from "./console.js";
import { Picture, SHAPES } from "./wall-picture.js";
import { t, textOr, yuan } from "./texts.js";

const byId = (id) => document.getElementById(id);
const stores = JSON.parse(byId("wall-stores").textContent);
const chinese = document.documentElement.lang.startsWith("zh");
const shown = new Set(stores.map((store) => store.id));
const names = new Map(stores.map((store) => [store.id, chinese ? store.zh : store.en]));

const terminals = new Map();
const figures = new Map();
const cellsOf = new Map(stores.map((store) => [store.id, []]));
let businessNow = "";
// Regions with databases of their own have clocks of their own.
const region = new URLSearchParams(location.search).get("region") ?? "";
const clocks = {};
let waiting = [];

const BUSY = new Set(["open", "digits", "enrolling", "identified", "basket", "quoted", "paying", "reversing", "declined"]);
const TROUBLE = new Set(["declined", "reversing"]);
const ATTENTION_MAX = 8;

const stateOf = (tile) => (tile.online ? tile.state || "none" : "offline");
const label = (tile) => textOr(`state.${stateOf(tile)}`, stateOf(tile));

const picture = new Picture(byId("canvas"), stores.map((store) => ({ id: store.id, name: names.get(store.id) })), {
  cells: (store) => cellsOf.get(store),
  figures: (store) => figures.get(store),
  state: stateOf,
  label,
  yuan,
  sales: (count) => t("wall.sales", { sales: count }),
  tip: (tile) => t("wall.tip", { store: names.get(tile.store), terminal: tile.terminal, state: label(tile) }),
  open: openDetail,
});

function take(frame) {
  if (frame.full) {
    terminals.clear();
    figures.clear();
    for (const cells of cellsOf.values()) cells.length = 0;
  }
  const touched = new Set();
  for (const tile of frame.terminals) {
    if (!shown.has(tile.store)) continue;
    const cells = cellsOf.get(tile.store);
    const at = cells.findIndex((cell) => cell.terminal === tile.terminal);
    if (at < 0) {
      cells.push(tile);
      cells.sort((a, b) => (a.terminal < b.terminal ? -1 : 1));
    } else cells[at] = tile;
    terminals.set(tile.terminal, tile);
    touched.add(tile.store);
    if (!frame.full) picture.flash(tile.terminal);
  }
  for (const tile of frame.stores) {
    if (!shown.has(tile.store)) continue;
    figures.set(tile.store, tile);
    touched.add(tile.store);
  }
  Object.assign(clocks, frame.clocks);
  businessNow = region ? clocks[region] ?? "" : frame.business_now;
  waiting = frame.waiting.filter((slot) => !region || slot.startsWith(`${region}/`));
  if (frame.full) picture.layout();
  else picture.redraw(touched);
  schedule();
}

// Words and the table follow at most four times a second: a person reads no faster.
let planned = 0;
function schedule() {
  if (!planned) planned = setTimeout(() => { planned = 0; tell(); }, 250);
}

function tell() {
  const all = [...terminals.values()];
  const online = all.filter((tile) => tile.online).length;
  const visits = all.filter((tile) => tile.online && BUSY.has(tile.state)).length;
  const trouble = all.filter((tile) => !tile.online || TROUBLE.has(tile.state));
  const sum = (key) => [...figures.values()].reduce((total, tile) => total + tile[key], 0);
  byId("figure-online").textContent = `${online} / ${all.length}`;
  byId("figure-visits").textContent = visits;
  byId("figure-sales").textContent = sum("sales");
  byId("figure-takings").textContent = yuan(sum("takings_fen"));
  byId("figure-benefits").textContent = yuan(sum("discount_fen"));
  if (businessNow) {
    const at = new Date(businessNow);
    const zone = { timeZone: "Asia/Shanghai", hour12: false };
    const day = at.toLocaleDateString(chinese ? "zh-CN" : "en-GB", { ...zone, month: "short", day: "numeric" });
    const time = at.toLocaleTimeString("en-GB", { ...zone, hour: "2-digit", minute: "2-digit" });
    const small = document.createElement("small");
    small.textContent = day;
    byId("figure-clock").replaceChildren(time, " ", small);
  }
  byId("why").textContent = !stores.length ? t("wall.empty")
    : waiting.length ? t("wall.why_away")
    : trouble.length ? t("wall.why_trouble", { trouble: trouble.length })
    : visits ? t("wall.why_busy", { visits, online })
    : t("wall.why_quiet", { online });
  const live = byId("live");
  if (live.dataset.state === "live" || live.dataset.state === "away") mark(waiting.length ? "away" : "live");
  tellAttention(trouble);
  if (!byId("twin").hidden) tellTable(all);
}

function link(tile) {
  const anchor = document.createElement("a");
  anchor.href = `/wall/terminals/${encodeURIComponent(tile.terminal)}`;
  anchor.textContent = tile.terminal;
  anchor.addEventListener("click", (event) => {
    event.preventDefault();
    openDetail(anchor.getAttribute("href"));
  });
  return anchor;
}

function tellAttention(trouble) {
  const list = byId("attention");
  if (!trouble.length) {
    const item = document.createElement("li");
    item.className = "muted";
    item.textContent = t("attention.none");
    list.replaceChildren(item);
    return;
  }
  const rows = trouble.slice(0, ATTENTION_MAX).map((tile) => {
    const item = document.createElement("li");
    const what = document.createElement("span");
    what.className = "muted";
    what.textContent = `${names.get(tile.store)} · ${t(`attention.${tile.online ? tile.state : "offline"}`)}`;
    item.append(link(tile), document.createElement("br"), what);
    return item;
  });
  if (trouble.length > ATTENTION_MAX) {
    const more = document.createElement("li");
    more.className = "muted";
    more.textContent = t("attention.more", { more: trouble.length - ATTENTION_MAX });
    rows.push(more);
  }
  list.replaceChildren(...rows);
}

const rows = new Map();
function tellTable(all) {
  const table = byId("twin-table").tBodies[0];
  const seen = new Set();
  for (const tile of all.sort((a, b) => a.store.localeCompare(b.store) || a.terminal.localeCompare(b.terminal))) {
    seen.add(tile.terminal);
    let row = rows.get(tile.terminal);
    if (!row) {
      row = table.insertRow();
      for (let cell = 0; cell < 5; cell += 1) row.insertCell();
      row.cells[0].textContent = names.get(tile.store);
      row.cells[1].append(link(tile));
      row.cells[1].className = "code";
      row.cells[4].className = "number";
      rows.set(tile.terminal, row);
    }
    const badge = document.createElement("span");
    badge.className = `badge state-${stateOf(tile)}`;
    badge.textContent = label(tile);
    row.cells[2].replaceChildren(badge);
    row.cells[3].textContent = tile.member || "–";
    row.cells[4].textContent = tile.due_fen ? yuan(tile.due_fen) : "–";
  }
  for (const [terminal, row] of rows) {
    if (seen.has(terminal)) continue;
    row.remove();
    rows.delete(terminal);
  }
}

function mark(state) {
  const texts = { live: "wall.live", lost: "wall.lost", away: "wall.hosts_away", connecting: "wall.connecting" };
  byId("live").dataset.state = state;
  byId("live-text").textContent = t(texts[state]);
}

for (const tab of document.querySelectorAll("[data-view]")) {
  tab.addEventListener("click", () => {
    const table = tab.dataset.view === "table";
    byId("stage").hidden = table;
    byId("twin").hidden = !table;
    byId("tab-tiles").ariaSelected = String(!table);
    byId("tab-table").ariaSelected = String(table);
    if (table) tellTable([...terminals.values()]);
    else picture.layout();
  });
}

const legend = byId("legend");
for (const state of Object.keys(SHAPES)) {
  const badge = document.createElement("span");
  badge.className = `badge state-${state}`;
  badge.textContent = textOr(`state.${state}`, state);
  legend.append(badge);
}

const stream = new EventSource("/api/v1/wall/events");
for (const name of ["delta", "resync"]) {
  stream.addEventListener(name, (event) => {
    mark(waiting.length ? "away" : "live");
    take(JSON.parse(event.data));
  });
}
stream.addEventListener("error", () => mark("lost"));
window.addEventListener("pagehide", () => stream.close());
