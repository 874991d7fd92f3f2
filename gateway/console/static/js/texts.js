// Texts of this page, in its language; an unknown id is a bug and says so.

const known = JSON.parse(document.getElementById("texts").textContent);

export function t(id, values = {}) {
  if (!(id in known)) throw new Error(`no text ${id}`);
  return known[id].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** For ids that come from data, such as a state. */
export function textOr(id, fallback) {
  return id in known ? known[id] : fallback;
}

export function yuan(fen) {
  const yuans = Math.trunc(Math.abs(fen) / 100);
  return `${fen < 0 ? "−" : ""}¥${yuans}.${String(Math.abs(fen) % 100).padStart(2, "0")}`;
}
