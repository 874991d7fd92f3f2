// Draws the screen document: a thin display, everything it shows is in the document.

import { t, textOr, yuan } from "./texts.js";

const byId = (id) => document.getElementById(id);

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function lineOf(line, remove) {
  const item = document.createElement("li");
  item.append(element("span", line.quantity > 1 ? `${line.name} × ${line.quantity}` : line.name), element("b", yuan(line.net_fen)));
  if (line.discount_fen) {
    item.append(element("span", line.why, "reason"), element("s", yuan(line.net_fen + line.discount_fen)));
  }
  if (remove) item.addEventListener("dblclick", () => remove(line.line));
  return item;
}

function total(name, text, className = "") {
  const row = document.createElement("div");
  if (className) row.className = className;
  row.append(element("dt", name), element("dd", text));
  return row;
}

function totals(screen) {
  if (!screen.lines.length) return [];
  const rows = [];
  if (screen.discount_fen) {
    rows.push(total(t("vt.gross"), yuan(screen.gross_fen)), total(t("vt.discount"), yuan(-screen.discount_fen)));
  }
  if (screen.paid) {
    for (const part of screen.paid) {
      rows.push(total(textOr(`tender.${part.kind}`, part.kind), yuan(part.fen)));
      if (part.change_fen) rows.push(total(t("vt.change"), yuan(part.change_fen)));
    }
  } else if (screen.cash_due_fen !== screen.due_fen) rows.push(total(t("vt.cash_due"), yuan(screen.cash_due_fen)));
  rows.push(total(t("vt.due"), yuan(screen.due_fen), "due"));
  return rows;
}

function membership(known) {
  if (!known) return [];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 8");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "bar");
  svg.setAttribute("aria-hidden", "true");
  for (const [name, width] of [["bar-back", 100], ["bar-used", Math.min(100, (100 * known.used_fen) / Math.max(known.fee_fen, 1))]]) {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("class", name);
    rect.setAttribute("width", width);
    rect.setAttribute("height", 8);
    rect.setAttribute("rx", 2);
    svg.append(rect);
  }
  const amounts = { used: yuan(known.used_fen), fee: yuan(known.fee_fen), now: yuan(known.if_settled_now_fen) };
  return [element("b", known.plan), svg, element("span", t("vt.used", amounts)), element("span", t("vt.uses_left", { left: known.uses_left }), "muted")];
}

function offers(screen, join) {
  return screen.offers.slice(0, 1).map((offer) => {
    const button = element("button", t("vt.join", { plan: offer.plan, fee: yuan(offer.fee_fen) }), "button offer");
    button.type = "button";
    if (offer.saves_now_fen) button.append(element("small", t("vt.saves_now", { saves: yuan(offer.saves_now_fen) })));
    button.addEventListener("click", join);
    return button;
  });
}

function collectionCode(screen) {
  const code = screen.prompt?.params?.code_url;
  byId("qr").hidden = !code;
  if (!code) {
    byId("qr").replaceChildren();
  } else if (byId("qr").firstChild?.dataset.code !== code) {
    const image = new Image();
    image.src = `/api/v1/qr.svg?${new URLSearchParams({ text: code })}`;
    image.alt = screen.prompt.text;
    image.dataset.code = code;
    byId("qr").replaceChildren(image);
  }
}

export function show(screen, { join, remove }) {
  byId("screen").dataset.state = screen.state;
  byId("greeting").textContent = screen.member ? t("vt.hello", { name: screen.member.name }) : "";
  byId("prompt").textContent = screen.prompt?.text ?? (screen.state === "closed" ? t("vt.tap") : "");
  collectionCode(screen);
  const open = !["paying", "paid", "closed", "reversing"].includes(screen.state);
  byId("lines").replaceChildren(...(screen.receipt ? [] : screen.lines.map((line) => lineOf(line, open ? remove : null))));
  byId("totals").replaceChildren(...totals(screen));
  byId("membership").replaceChildren(...membership(screen.membership));
  byId("offers").replaceChildren(...offers(screen, join));
  byId("receipt").hidden = !screen.receipt;
  byId("receipt").textContent = screen.receipt?.text ?? "";
  byId("state").className = `badge state-${screen.state}`;
  byId("state").textContent = textOr(`state.${screen.state}`, screen.state);
  byId("rev").textContent = t("vt.rev", { rev: screen.rev });
}
