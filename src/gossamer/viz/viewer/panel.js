// @ts-check
/*
 * One panel on the page: a heading, a count, and a window onto the circuit that scrolls sideways. Only what the
 * window shows is drawn: as SVG up to MOST_SVG lines in all, on a canvas beyond.
 */

const MOST_SVG = 2500;

/** @typedef {{layer: number, query: number, key: number}} LineKey */
/**
 * @typedef {object} Panel
 * @property {PanelData} data @property {HTMLElement} root @property {HTMLElement} count @property {HTMLElement} shared  what of the lines the window shows, in words
 * @property {Overview} overview @property {boolean} seek  whether the window has yet to move to the answer
 * @property {HTMLElement} scroller @property {HTMLElement} spacer @property {HTMLElement} stage
 * @property {HTMLCanvasElement} canvas @property {SVGSVGElement} svg
 * @property {View | null} view @property {Uint8Array} live @property {Lines} lines @property {Ranks} ranks @property {Grid} grid @property {number} left  how far the window is scrolled @property {number[]} chosen  those drawn, not as mist @property {CutLine[]} cut  lines taken out, drawn as such
 * @property {(position: number) => boolean} isWrong
 */

/** @template {keyof HTMLElementTagNameMap} K @param {K} tag @param {Record<string, string>} [attrs] @param {...(Node | string)} children @returns {HTMLElementTagNameMap[K]} */
function make(tag, attrs = {}, ...children) {
  const element = document.createElement(tag);
  for (const name in attrs) element.setAttribute(name, attrs[name]);
  element.append(...children);
  return element;
}

/** @param {PanelData} data @returns {Panel} */
function makePanel(data) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const svg = /** @type {SVGSVGElement} */ (toDom({ tag: "svg", attrs: { role: "group" } }));
  const stage = make("div", { class: "stage" }, canvas, svg), spacer = make("div", { class: "spacer" }, stage);
  const scroller = make("div", { class: "scroller", id: `window-${data.name}` }, spacer), count = make("p", { class: "count" }), shared = make("p", { class: "count shared" });
  const root = make("section", { class: "panel", id: `panel-${data.name}`, "aria-labelledby": `title-${data.name}` },
    make("h2", { id: `title-${data.name}` }, data.title), count, shared);
  const overview = makeOverview(scroller, data.title), none = /** @type {any} */ (null);
  root.append(overview.root, scroller);
  return { data, root, count, shared, overview, seek: true, scroller, spacer, stage, canvas, svg, view: none, live: none, lines: none, ranks: none, grid: none, left: 0, chosen: [], cut: [], isWrong: () => false };
}

/** Give a panel a new prompt's view. @param {Panel} panel @param {View} view @param {string[] | null} expected the answer, or null */
function setView(panel, view, expected) {
  panel.view = view;
  panel.seek = true;
  panel.live = liveMask(view);
  panel.isWrong = (p) => !!expected && view.outputs.includes(p) && expected[p] !== view.answers[p];
}

/** @param {Panel} panel @param {Filter} filter */
function filterPanel(panel, filter) {
  if (!panel.view) return;
  const { view, live, data } = panel;
  panel.lines = linesOf(view.edges, shownMask(view, filter, live), live);
  panel.ranks = ranksOf(view, panel.lines);
  // Of too many edges those that reach the answer are kept first: so if one that does not is here, all that do are.
  const alive = live.reduce((sum, x) => sum + x, 0), offPath = alive < view.edges.n ? view.open - alive : 0, missing = view.open - view.edges.n, number = (/** @type {number} */ x) => x.toLocaleString("en");
  const percent = (100 * view.open) / Math.max(1, view.visible);
  const parts = [`${number(view.open)} of ${number(view.visible)} attention edges open${data.least > 0 ? ` with a weight of ${data.least} and more` : ""}` + (percent < 99.95 ? ` (${percent.toPrecision(2)} %)` : "")];
  const { closed, neurons, layers, heads } = data, [kept, whole] = [0, 1].map((i) => neurons.reduce((sum, pair) => sum + pair[i], 0));
  if (closed.length) parts.push(`${number(closed.length)} of ${number(layers * heads)} heads closed`);
  if (whole) parts.push(`${number(kept)} of ${number(whole)} neurons left`);
  let sink = 0;
  for (let i = 0; i < view.edges.n; i++) sink += Number(isSink(view.edges.key[i], view.edges.query[i]));
  if (filter.paleSink) parts.push(`${number(sink)} of them read position 0 and are faded`);
  if (offPath) parts.push(`${number(offPath)} never reach the answer${filter.liveOnly ? " and are hidden" : ""}`);
  const some = panel.lines.edges === view.edges.n ? "drawn" : `${number(panel.lines.edges)} shown,`;
  parts.push(`${some} as ${number(panel.lines.n)} ${panel.lines.n === 1 ? "line" : "lines"}`);
  if (missing) parts.push(`${number(missing)} of the open edges are not in this page, which keeps those that reach the answer and then the heaviest`);
  panel.count.textContent = parts.join("; ");
  Object.assign(panel.root.dataset, { open: view.open, edges: panel.lines.edges, lines: panel.lines.n, answers: view.answers.slice(0, 64).join("") });
}

/** Draw what the window shows. @param {Panel} panel @param {number} width @param {number} tall @param {number} widest @param {{zoom: number, most: number, paleSink: boolean, through: Stop | null}} state @param {Theme} theme @param {boolean} moving */
function paintPanel(panel, width, tall, widest, { zoom, through, ...ink }, theme, moving) {
  const { view, data, svg } = panel;
  if (!view) return;
  const old = panel.grid, grid = (panel.grid = gridFor(view, data.layers, width, tall, zoom, widest)), held = panel.left; // as last drawn: a window that grew has moved the scroll already
  panel.spacer.style.width = `${Math.max(grid.width, grid.full)}px`;
  panel.stage.style.width = `${grid.width}px`;
  panel.spacer.style.height = panel.stage.style.height = `${grid.height}px`;
  const wide = grid.full > grid.width + 1;
  if (panel.seek && view.outputs.length) panel.scroller.scrollLeft = xOf(grid, Math.max(...view.outputs)) + grid.pitch + 14 - grid.width;
  else if (old && (old.full !== grid.full || old.width !== grid.width)) panel.scroller.scrollLeft = heldScroll(old, grid, held);
  panel.seek = false;
  frameOverview(panel.overview, panel.scroller, grid);
  if (wide) panel.scroller.tabIndex = 0;
  else panel.scroller.removeAttribute("tabindex");
  const focused = svg.contains(document.activeElement) ? /** @type {Element} */ (document.activeElement).id : "";
  svg.setAttribute("viewBox", `0 0 ${grid.width} ${grid.height}`);
  svg.setAttribute("width", String(grid.width));
  svg.setAttribute("height", String(grid.height));
  svg.setAttribute("aria-label", describe(panel));
  const shapes = panelShapes(panel, theme, ink, panel.lines.n > MOST_SVG, moving);
  svg.replaceChildren(...shapes.map(toDom), toDom({ tag: "g", attrs: { class: "overlay" } }));
  nameTokens(panel, through);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** Where to scroll so that a window of another size or column width shows the same place: its end, or else its middle. @param {Grid} old @param {Grid} grid @param {number} left */
function heldScroll(old, grid, left) {
  if (left + old.width > old.full - 2) return grid.full;
  return ((left + old.width / 2 - old.gutter) / old.pitch) * grid.pitch + grid.gutter - grid.width / 2;
}

/** Everything in the window, bottom to top; with `onCanvas` the edges go there instead. @param {Panel} panel @param {Theme} theme @param {{most: number, paleSink: boolean}} ink @param {boolean} onCanvas @param {boolean} [moving] @returns {Shape[]} */
function panelShapes(panel, theme, { most, paleSink }, onCanvas, moving = false) {
  const view = /** @type {View} */ (panel.view), { grid, lines, canvas, isWrong } = panel;
  const left = (panel.left = panel.scroller.scrollLeft), columns = columnsShown(grid, left);
  const share = shareOf(grid, view, lines, panel.ranks, left, most, paleSink, moving);
  panel.chosen = share.drawn;
  if (!moving) panel.shared.textContent = shareWords(share);
  panel.root.dataset.drawn = String(panel.chosen.length);
  panel.root.dataset.mode = onCanvas ? "canvas" : "svg";
  const under = [
    ...(grid.pitch < 6 ? [] : streamShapes(grid, view, lines, panel.chosen, columns, left, theme)),
    ...mistShapes(grid, view, lines, share.sink, left, theme, "sink"),
    ...mistShapes(grid, view, lines, share.mist, left, theme),
    ...edgeShapes(grid, view, lines, panel.chosen, left, theme),
  ];
  const nodes = grid.pitch < 6 ? [] : nodeShapes(grid, view, lines, panel.chosen, columns, left, theme);
  canvas.hidden = !onCanvas;
  if (onCanvas) {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = grid.width * ratio;
    canvas.height = grid.height * ratio;
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    paintLines(pen, under);
    paintDots(pen, nodes);
  }
  return [
    ...(onCanvas ? [] : [...under, ...nodes]),
    ...cutShapes(grid, panel.cut, columns, left, theme),
    ...tokenShapes(grid, view, "input", columns, left, theme, isWrong),
    ...tokenShapes(grid, view, "answer", columns, left, theme, isWrong),
    ...rowNames(grid, left, theme),
  ];
}

/** The panel in words. @param {Panel} panel */
function describe(panel) {
  const view = /** @type {View} */ (panel.view), most = 40;
  /** @param {string[]} words */
  const row = (words) => words.slice(0, most).map(shownToken).join(" ") + (words.length > most ? " and more" : "");
  return `${panel.data.title}: input ${row(view.tokens)}; output ${row(view.answers)}; ${panel.count.textContent}`;
}

/** Make tokens reachable: one tab stop per row, the rest by arrow keys. @param {Panel} panel @param {Stop | null} through */
function nameTokens(panel, through) {
  const view = /** @type {View} */ (panel.view), last = { input: false, answer: false };
  for (const token of panel.svg.querySelectorAll(".token")) {
    const kind = token.classList.contains("input") ? "input" : "answer", position = Number(token.getAttribute("data-position"));
    const row = kind === "input" ? 0 : panel.data.layers, on = !!through && through.row === row && through.position === position;
    const word = shownToken((kind === "input" ? view.tokens : view.answers)[position]);
    token.id = `${panel.data.name}-${kind}-${position}`;
    token.setAttribute("role", "button");
    token.setAttribute("tabindex", on || !last[kind] ? "0" : "-1");
    token.setAttribute("aria-pressed", String(on));
    token.setAttribute("aria-label", `${kind} ${word}, position ${position}: show only paths ${kind === "input" ? "out of" : "into"} it`);
    last[kind] = true;
  }
}

/** Mark a line, its ends, and the chosen node. @param {Panel} panel @param {LineKey | null} marked @param {Stop | null} through @param {Theme} theme */
function markPanel(panel, marked, through, theme) {
  panel.svg.querySelector(".overlay")?.replaceChildren(...markShapes(panel, marked, through, theme).map(toDom));
}

/** @param {Panel} panel @param {LineKey | null} marked @param {Stop | null} through @param {Theme} theme @returns {Shape[]} */
function markShapes(panel, marked, through, theme) {
  const { view, grid, left } = panel;
  if (!view) return [];
  /** @type {Shape[]} */
  const shapes = [], spot = (/** @type {number} */ x, /** @type {number} */ y) => shapes.push({ tag: "circle", attrs: { class: "mark", cx: round(x), cy: round(y), r: 5, fill: "none", stroke: theme.mark, "stroke-width": 2 } });
  const i = marked ? findLine(panel, marked) : -1;
  if (i >= 0) {
    const { x1, y1, x2, y2 } = endsOf(grid, view, panel.lines, i, left);
    shapes.push({ tag: "line", attrs: { class: "mark", ...rounded({ x1, y1, x2, y2 }), stroke: theme.mark, "stroke-width": 4 } });
    spot(x1, y1);
    spot(x2, y2);
  }
  if (through) spot(xOf(grid, through.position) - left, yOf(grid, through.row));
  return shapes;
}

/** The index of a shown line, or -1. @param {Panel} panel @param {LineKey} wanted */
function findLine(panel, wanted) {
  const { edges } = /** @type {View} */ (panel.view), { lines } = panel;
  /** @param {number} i */
  const order = (i) => edges.layer[lines.first[i]] - wanted.layer || edges.query[lines.first[i]] - wanted.query || edges.key[lines.first[i]] - wanted.key;
  let low = 0, high = lines.n - 1;
  while (low <= high) {
    const middle = (low + high) >> 1, sign = order(middle);
    if (sign === 0) return middle;
    if (sign < 0) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

/** @param {Panel} panel @param {number} i @returns {LineKey} */
function keyOf(panel, i) {
  const { edges } = /** @type {View} */ (panel.view), e = panel.lines.first[i];
  return { layer: edges.layer[e], query: edges.query[e], key: edges.key[e] };
}
