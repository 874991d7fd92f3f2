// Draws stores and their terminals on one canvas. Three densities: words, bars, dots. Colour is never alone:
// every state has a shape, and where there is room a word.

const DENSITIES = [
  { upTo: 90, width: 196, height: 104, gap: 12, words: true },
  { upTo: 320, width: 92, height: 54, gap: 8, words: false },
  { upTo: Infinity, width: 36, height: 24, gap: 5, words: false },
];
const FLASH_MS = 900;

/** state -> [ink variable, ground variable, shape] */
export const SHAPES = {
  none: ["--ink-soft", "--sunken", "ring"],
  open: ["--violet", "--violet-soft", "disc"],
  quoted: ["--info", "--info-soft", "square"],
  paying: ["--warn", "--warn-soft", "triangle"],
  paid: ["--good", "--good-soft", "check"],
  declined: ["--bad", "--bad-soft", "cross"],
  offline: ["--ink-soft", "--sunken", "slash"],
};
const LIKE = { closed: "none", digits: "open", enrolling: "open", identified: "open", basket: "quoted", reversing: "paying" };
const shapeOf = (state) => (state in SHAPES ? state : LIKE[state] ?? "none");

export class Picture {
  constructor(canvas, stores, source) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.stores = stores;
    this.source = source;
    this.flashes = new Map();
    this.focus = -1;
    this.hover = -1;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.readColours();
    new ResizeObserver(() => this.layout()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.readColours(); this.drawAll(); });
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.setHover(-1));
    canvas.addEventListener("click", (event) => this.choose(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => { if (this.focus < 0 && this.stores.length) this.setFocus(0); });
    canvas.addEventListener("blur", () => this.setFocus(-1));
  }

  // A canvas cannot use light-dark(): let an element resolve each colour.
  readColours() {
    const probe = document.createElement("span");
    document.body.append(probe);
    const names = ["--ink", "--ink-soft", "--line", "--line-strong", "--surface", "--sunken", "--accent", "--good"];
    for (const [ink, ground] of Object.values(SHAPES)) names.push(ink, ground);
    this.colours = Object.fromEntries([...new Set(names)].map((name) => {
      probe.style.color = `var(${name})`;
      return [name, getComputedStyle(probe).color];
    }));
    probe.remove();
    this.font = getComputedStyle(document.body).fontFamily;
  }

  layout() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    const density = DENSITIES.find((entry) => this.stores.length <= entry.upTo);
    this.density = density;
    this.columns = Math.max(1, Math.floor((width + density.gap) / (density.width + density.gap)));
    this.tileWidth = (width - density.gap * (this.columns - 1)) / this.columns;
    const lines = Math.ceil(this.stores.length / this.columns);
    const height = Math.max(0, lines * (density.height + density.gap) - density.gap);
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawAll();
  }

  place(index) {
    const { gap, height } = this.density;
    return {
      x: (index % this.columns) * (this.tileWidth + gap),
      y: Math.floor(index / this.columns) * (height + gap),
      width: this.tileWidth,
      height,
    };
  }

  drawAll() {
    if (!this.density) return;
    this.stores.forEach((_, index) => this.drawStore(index));
  }

  redraw(ids) {
    if (!this.density) return;
    this.stores.forEach((store, index) => { if (ids.has(store.id)) this.drawStore(index); });
  }

  flash(terminal) {
    if (this.still) return;
    this.flashes.set(terminal, performance.now());
    if (!this.ticking) {
      this.ticking = true;
      requestAnimationFrame((now) => this.tick(now));
    }
  }

  tick(now) {
    const touched = new Set();
    this.stores.forEach((store) => {
      for (const cell of this.source.cells(store.id)) if (this.flashes.has(cell.terminal)) touched.add(store.id);
    });
    for (const [terminal, since] of this.flashes) if (now - since > FLASH_MS) this.flashes.delete(terminal);
    this.redraw(touched);
    if (this.flashes.size) requestAnimationFrame((next) => this.tick(next));
    else this.ticking = false;
  }

  cellPlace(place, count, n) {
    const { words } = this.density;
    const pad = words ? 10 : 3;
    const gap = words ? 6 : 2;
    const top = words ? 46 : this.density.height > 30 ? 20 : 3;
    const width = (place.width - 2 * pad - gap * (count - 1)) / Math.max(count, 1);
    return { x: place.x + pad + n * (width + gap), y: place.y + top, width, height: place.height - top - pad };
  }

  drawStore(index) {
    const { context, colours, density } = this;
    const store = this.stores[index];
    const place = this.place(index);
    const cells = this.source.cells(store.id);
    const figures = this.source.figures(store.id);
    const radius = density.words ? 12 : 6;
    context.clearRect(place.x - 3, place.y - 3, place.width + 6, place.height + 6);
    context.fillStyle = colours["--surface"];
    context.strokeStyle = index === this.focus ? colours["--accent"] : index === this.hover ? colours["--line-strong"] : colours["--line"];
    context.lineWidth = index === this.focus ? 2.5 : 1;
    context.beginPath();
    context.roundRect(place.x + 0.5, place.y + 0.5, place.width - 1, place.height - 1, radius);
    context.fill();
    context.stroke();
    if (density.words) this.drawWords(place, store, figures);
    else if (density.height > 30) this.write(store.name, place.x + 6, place.y + 13, place.width - 12, 11, 500, "--ink");
    cells.forEach((tile, n) => this.drawCell(this.cellPlace(place, cells.length, n), tile));
  }

  drawWords(place, store, figures) {
    const money = figures ? this.source.yuan(figures.takings_fen) : "–";
    const used = this.write(money, place.x + place.width - 12, place.y + 21, 90, 13, 620, "--ink", "right");
    this.write(store.name, place.x + 12, place.y + 21, place.width - 34 - used, 13, 600, "--ink");
    this.write(store.id, place.x + 12, place.y + 37, place.width - 80, 11, 400, "--ink-soft");
    if (figures) this.write(this.source.sales(figures.sales), place.x + place.width - 12, place.y + 37, 80, 11, 400, "--ink-soft", "right");
  }

  write(text, x, y, room, size, weight, colour, align = "left") {
    const { context } = this;
    context.font = `${weight} ${size}px ${this.font}`;
    context.textAlign = align;
    context.fillStyle = this.colours[colour];
    let shown = text;
    while (shown.length > 1 && context.measureText(shown === text ? shown : `${shown}…`).width > room) shown = shown.slice(0, -1);
    if (shown !== text) shown += "…";
    context.fillText(shown, x, y);
    return context.measureText(shown).width;
  }

  drawCell(place, tile) {
    const { context, colours } = this;
    const state = this.source.state(tile);
    const [ink, ground, shape] = SHAPES[shapeOf(state)];
    context.beginPath();
    context.roundRect(place.x, place.y, place.width, place.height, Math.min(8, place.height / 3));
    context.fillStyle = colours[ground];
    context.fill();
    const since = this.flashes.get(tile.terminal);
    if (since !== undefined) {
      const left = Math.max(0, 1 - (performance.now() - since) / FLASH_MS);
      context.globalAlpha = left;
      context.lineWidth = 2;
      context.strokeStyle = colours[ink];
      context.stroke();
      context.globalAlpha = 1;
    }
    const middle = place.x + place.width / 2;
    if (!this.density.words) {
      if (place.width > 7) this.drawShape(shape, middle, place.y + place.height / 2, Math.min(5, Math.min(place.width, place.height) / 3.2), colours[shape === "ring" ? "--line-strong" : ink]);
      return;
    }
    if (tile.due_fen && shape !== "check") this.write(this.source.yuan(tile.due_fen), middle, place.y + 18, place.width - 4, 11, 620, ink, "center");
    else this.drawShape(shape, middle, place.y + 14, 5, colours[ink]);
    this.write(this.source.label(tile), middle, place.y + place.height - 9, place.width - 4, 11, 500, ink, "center");
  }

  drawShape(shape, x, y, r, colour) {
    const { context } = this;
    context.strokeStyle = colour;
    context.fillStyle = colour;
    context.lineWidth = Math.max(1.5, r / 3);
    context.beginPath();
    if (shape === "disc" || shape === "ring" || shape === "slash") context.arc(x, y, r, 0, 7);
    if (shape === "square") context.rect(x - r, y - r, 2 * r, 2 * r);
    if (shape === "triangle") { context.moveTo(x, y - r); context.lineTo(x + r * 1.1, y + r); context.lineTo(x - r * 1.1, y + r); context.closePath(); }
    if (shape === "slash") { context.moveTo(x - r * 0.7, y + r * 0.7); context.lineTo(x + r * 0.7, y - r * 0.7); }
    if (shape === "check") { context.moveTo(x - r, y); context.lineTo(x - r * 0.2, y + r * 0.8); context.lineTo(x + r * 1.1, y - r * 0.8); }
    if (shape === "cross") { context.moveTo(x - r, y - r); context.lineTo(x + r, y + r); context.moveTo(x + r, y - r); context.lineTo(x - r, y + r); }
    if (shape === "disc" || shape === "square" || shape === "triangle") context.fill();
    else context.stroke();
  }

  hit(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    const index = Math.floor(y / (this.density.height + this.density.gap)) * this.columns + Math.floor(x / (this.tileWidth + this.density.gap));
    const store = this.stores[index];
    if (!store) return { index: -1 };
    const place = this.place(index);
    if (x < place.x || x > place.x + place.width || y > place.y + place.height) return { index: -1 };
    const cells = this.source.cells(store.id);
    const tile = cells.find((_, n) => {
      const cell = this.cellPlace(place, cells.length, n);
      return x >= cell.x && x <= cell.x + cell.width && y >= cell.y && y <= cell.y + cell.height;
    });
    return { index, store, tile };
  }

  point(event) {
    if (!this.density) return;
    const { index, store, tile } = this.hit(event);
    this.canvas.title = tile ? this.source.tip(tile) : store ? store.name : "";
    this.canvas.style.cursor = index >= 0 ? "pointer" : "default";
    this.setHover(index);
  }

  setHover(index) {
    if (index === this.hover) return;
    const before = this.hover;
    this.hover = index;
    for (const changed of [before, index]) if (changed >= 0) this.drawStore(changed);
  }

  setFocus(index) {
    const before = this.focus;
    this.focus = index;
    for (const changed of [before, index]) if (changed >= 0) this.drawStore(changed);
  }

  choose(event) {
    if (!this.density) return;
    const { store, tile } = this.hit(event);
    if (tile) this.source.open(`/wall/terminals/${encodeURIComponent(tile.terminal)}`);
    else if (store) this.source.open(`/wall/stores/${encodeURIComponent(store.id)}`);
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    if (event.key in steps) {
      const next = this.focus + steps[event.key];
      if (next >= 0 && next < this.stores.length) this.setFocus(next);
      event.preventDefault();
    }
    if (event.key === "Enter" && this.focus >= 0) this.source.open(`/wall/stores/${encodeURIComponent(this.stores[this.focus].id)}`);
  }
}
