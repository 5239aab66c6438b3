// @ts-check
/*
 * What a panel looks like: from a view and its lines to shapes, and from shapes to the page or a canvas.
 *
 * A line rises from the position that is read (lower row) to the position that reads (the row above); the edges of
 * layer l end in the row that says "Layer l". Darkness and width are the softmax weight. Lengths are CSS pixels.
 */

/** @typedef {{tag: string, attrs: Record<string, string | number>, text?: string, children?: Shape[]}} Shape */
/**
 * @typedef {object} Grid
 * @property {number} width of the window @property {number} height
 * @property {number} full  width of all columns @property {number} gutter
 * @property {number} pitch  width of a column @property {number} rowPitch
 * @property {number} bottom  y of row 0 @property {number} layers @property {number} tokens
 * @property {boolean} turned @property {number} fontSize @property {number} every  a label stands at each so many columns @property {number} big  how much larger than usual
 */
/** @typedef {{dark: boolean, ink: string, muted: string, guide: string, carried: string, offPath: string, mark: string, wrong: string, page: string, mist: string}} Theme */

const THEMES = {
  /** @type {Theme} */
  light: { dark: false, ink: "#111111", muted: "#595959", guide: "#e6e6e6", carried: "#a8a8a8", offPath: "#8a8a8a", mark: "#c2410c", wrong: "#b00020", page: "#ffffff", mist: "#6baed6" },
  /** @type {Theme} */
  dark: { dark: true, ink: "#f0f0f0", muted: "#a9b1ba", guide: "#2b323b", carried: "#5d6874", offPath: "#7d8590", mark: "#ffb067", wrong: "#ff8a8a", page: "#12161b", mist: "#4292cd" },
};
/** ColorBrewer's Blues without the lightest quarter, as in the static figure; in the dark theme it runs to white. */
const BLUES = [[198, 219, 239], [158, 202, 225], [107, 174, 214], [66, 146, 198], [33, 113, 181], [8, 81, 156], [8, 48, 107]];
const DARK_BLUES = [[52, 84, 122], [48, 94, 144], [46, 108, 168], [66, 146, 205], [107, 178, 224], [158, 208, 240], [222, 240, 255]];
const SHADES = 24;
const LONGEST = 14;
/** Pixels; where columns are too narrow for it, labels thin out. */
const LEAST_FONT = 9.5;

/** @param {number} t in [0, 1] @param {Theme} theme */
function blue(t, theme) {
  return `rgb(${rgbOf(t, theme).join(",")})`;
}

/** @param {number} t in [0, 1] @param {Theme} theme */
function rgbOf(t, theme) {
  const stops = theme.dark ? DARK_BLUES : BLUES;
  const x = Math.min(1, Math.max(0, t)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(x));
  return stops[i].map((a, c) => Math.round(a + (stops[i + 1][c] - a) * (x - i)));
}

/** @param {number} t in [0, 1] */
const thickness = (t) => 0.8 + 2.4 * t;

/** A token as it is shown: whitespace as signs, runs of it counted, controls and direction marks as boxes, long ones cut. @param {string} token */
function shownToken(token) {
  /** @type {Record<string, string>} */
  const signs = { " ": "␣", "\n": "↵", "\t": "⇥" };
  const counted = Array.from(token, (c) => signs[c] ?? (/[\p{C}\p{Z}]/u.test(c) ? "□" : c)).join("").replace(/([␣↵⇥])\1{2,}/g, (run) => `${run[0]}×${run.length}`);
  const visible = Array.from(counted);
  if (visible.length > LONGEST) visible.splice(LONGEST - 5, visible.length - LONGEST + 1, "…");
  return visible.join("") || "∅";
}

/** @type {Map<string, number>} */
const widths = new Map();
/** Width in pixels per pixel of font size. @param {string} text */
function measure(text) {
  let width = widths.get(text);
  if (width === undefined) {
    const pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
    pen.font = "100px system-ui, sans-serif";
    widths.set(text, (width = pen.measureText(text).width / 100));
  }
  return width;
}

/** @type {WeakMap<View, number>} */
const widest = new WeakMap();
/** Width of a prompt's widest token, likewise. @param {View} view */
function widestOf(view) {
  let found = widest.get(view);
  if (found === undefined) widest.set(view, (found = Math.max(...[...view.tokens, ...view.answers].map((token) => measure(shownToken(token))))));
  return found;
}

/**
 * Where things are.
 * @param {View} view @param {number} layers @param {number} width of the window
 * @param {number} tall  pixels that all layers together may take
 * @param {number} zoom  0: as narrow as fits or is legible; else pixels per column
 * @param {number} widest  width of the widest token of all panels, so that their rows stand level
 * @returns {Grid}
 */
function gridFor(view, layers, width, tall, zoom, widest) {
  const big = Math.min(2.4, Math.max(1, width / 900)), tokens = view.tokens.length;
  const gutter = width < 520 ? 34 : Math.round(62 * big + 12), room = width - gutter - 14;
  const pitch = zoom || Math.min(90 * big, Math.max(room / tokens, 17));
  const upright = Math.min(17 * big, (0.86 * pitch) / widest), turned = upright < 11 * Math.min(1.5, big);
  const fontSize = turned ? Math.max(LEAST_FONT, Math.min(13 * big, pitch / 1.15)) : upright, every = turned ? Math.ceil((1.15 * fontSize) / pitch) : 1;
  const label = turned ? widest * fontSize + 10 : fontSize + 9;
  const rowPitch = Math.max(Math.min(26, Math.max(10, tall / layers)), Math.min(tall / layers, 90 * big, 0.15 * width)), bottom = label + 14 + layers * rowPitch;
  return { width, height: bottom + label + 14, full: gutter + pitch * tokens + 14, gutter, pitch, rowPitch, bottom, layers, tokens, turned, fontSize, every, big };
}

/** @param {Grid} grid @param {number} position */
const xOf = (grid, position) => grid.gutter + (position + 0.5) * grid.pitch + Math.max(0, (grid.width - grid.full) / 2);
/** @param {Grid} grid @param {number} row */
const yOf = (grid, row) => grid.bottom - row * grid.rowPitch;

/** Columns that a window scrolled to `left` shows, one more on either side. @param {Grid} grid @param {number} left */
function columnsShown(grid, left) {
  const first = Math.floor((left - 1) / grid.pitch) - 1, last = Math.ceil((left + grid.width - grid.gutter) / grid.pitch) + 1;
  return { first: Math.max(0, first), last: Math.min(grid.tokens - 1, last) };
}

/** Columns whose middle is in a window scrolled to `left`, right of the row names. @param {Grid} grid @param {number} left */
function columnsInside(grid, left) {
  const first = Math.ceil((left - 1) / grid.pitch - 0.5), last = Math.ceil((grid.width + left - grid.gutter) / grid.pitch - 0.5) - 1;
  return { first: Math.max(0, first), last: Math.min(grid.tokens - 1, last) };
}

/** The two ends of a line in the window. @param {Grid} grid @param {View} view @param {Lines} lines @param {number} i @param {number} left */
function endsOf(grid, view, lines, i, left) {
  const e = lines.first[i], layer = view.edges.layer[e];
  return {
    x1: xOf(grid, view.edges.key[e]) - left, y1: yOf(grid, layer),
    x2: xOf(grid, view.edges.query[e]) - left, y2: yOf(grid, layer + 1),
  };
}

/** @param {Theme} theme @param {number} weight @param {boolean} live @returns {{color: string, width: number, dash: number[]}} */
function strokeOf(theme, weight, live) {
  const t = (Math.min(SHADES - 1, Math.floor(weight * SHADES)) + 0.5) / SHADES;
  return live ? { color: blue(t, theme), width: thickness(t), dash: [] } : { color: theme.offPath, width: 0.6 + t, dash: [4, 3] };
}

/**
 * @param {Grid} grid @param {View} view @param {Lines} lines @param {number[]} chosen @param {number} left @param {Theme} theme
 * @returns {Shape[]}
 */
function edgeShapes(grid, view, lines, chosen, left, theme) {
  return chosen.map((i) => {
    const { color, width, dash } = strokeOf(theme, lines.weight[i], !!lines.live[i]), wide = width * Math.sqrt(grid.big);
    const { x1, y1, x2, y2, whole } = strokeEnds(grid, view, lines, i, left);
    /** @type {Shape} */
    const shape = { tag: "line", attrs: { class: "edge", ...rounded({ x1, y1, x2, y2 }), stroke: color, "stroke-width": round(whole ? wide : 0.7 * wide) } };
    if (dash.length) shape.attrs["stroke-dasharray"] = dash.join(" ");
    return shape;
  });
}

/** @param {number} x */
const round = (x) => Math.round(x * 100) / 100;
/** @param {Record<string, number>} numbers */
const rounded = (numbers) => Object.fromEntries(Object.entries(numbers).map(([name, x]) => [name, round(x)]));

/**
 * Lines on a canvas. Each is stroked by itself: one path of thousands of segments takes a software rasteriser many
 * times as long (measured).
 * @param {CanvasRenderingContext2D} pen @param {Shape[]} shapes
 */
function paintLines(pen, shapes) {
  for (const { attrs } of shapes) {
    pen.strokeStyle = String(attrs.stroke);
    pen.lineWidth = Number(attrs["stroke-width"]);
    pen.globalAlpha = Number(attrs["stroke-opacity"] ?? 1);
    pen.setLineDash(attrs["stroke-dasharray"] ? String(attrs["stroke-dasharray"]).split(" ").map(Number) : []);
    pen.beginPath();
    pen.moveTo(Number(attrs.x1), Number(attrs.y1));
    pen.lineTo(Number(attrs.x2), Number(attrs.y2));
    pen.stroke();
  }
}

/** Nodes on a canvas. @param {CanvasRenderingContext2D} pen @param {Shape[]} shapes */
function paintDots(pen, shapes) {
  pen.globalAlpha = 1;
  for (const { attrs } of shapes) {
    pen.fillStyle = String(attrs.fill);
    pen.beginPath();
    pen.arc(Number(attrs.cx), Number(attrs.cy), Number(attrs.r), 0, 2 * Math.PI);
    pen.fill();
  }
}

/** The lines that only say how many there are: thin and pale. @param {Grid} grid @param {View} view @param {Lines} lines @param {number[]} mist @param {number} left @param {Theme} theme @param {string} [kind] @returns {Shape[]} */
function mistShapes(grid, view, lines, mist, left, theme, kind = "mist") {
  const pen = { class: kind, stroke: theme.mist, "stroke-opacity": 0.3, "stroke-width": 0.8 };
  return mist.map((i) => ({ tag: "line", attrs: { ...pen, ...rounded(endsOf(grid, view, lines, i, left)) } }));
}

/**
 * Which rows of a position's residual stream carry what shown live lines move: from its first writing, or from the
 * input if it is read before, up to its last reading, or to the top if it is a written answer.
 * @param {View} view @param {Lines} lines @param {number[]} drawn @param {number} layers @returns {Map<number, {low: number, high: number}>}
 */
function carriedRows(view, lines, drawn, layers) {
  const { layer, query, key } = view.edges, written = new Map(), firstRead = new Map(), high = new Map();
  for (const i of drawn) {
    const e = lines.first[i], l = layer[e];
    if (!lines.live[i]) continue;
    written.set(query[e], Math.min(written.get(query[e]) ?? Infinity, l + 1));
    firstRead.set(key[e], Math.min(firstRead.get(key[e]) ?? Infinity, l));
    high.set(key[e], Math.max(high.get(key[e]) ?? 0, l));
  }
  for (const p of view.outputs) if (written.has(p)) high.set(p, layers);
  const found = new Map();
  for (const [p, top] of high) {
    const start = written.get(p) ?? Infinity, low = (firstRead.get(p) ?? Infinity) < start ? 0 : start;
    if (low < top) found.set(p, { low, high: top });
  }
  return found;
}

/**
 * Residual streams; what the drawn live lines use of them is darker.
 * @param {Grid} grid @param {View} view @param {Lines} lines @param {number[]} drawn @param {{first: number, last: number}} columns @param {number} left @param {Theme} theme @returns {Shape[]}
 */
function streamShapes(grid, view, lines, drawn, columns, left, theme) {
  /** @type {Shape[]} */
  const shapes = [], carried = carriedRows(view, lines, drawn, grid.layers);
  /** @param {number} x @param {number} low @param {number} high @param {string} stroke @param {number} width */
  const stream = (x, low, high, stroke, width) => shapes.push({ tag: "line", attrs: { class: "stream", x1: x, x2: x, y1: round(yOf(grid, low)), y2: round(yOf(grid, high)), stroke, "stroke-width": width } });
  for (let p = columns.first; p <= columns.last; p++) {
    const x = round(xOf(grid, p) - left), span = carried.get(p);
    stream(x, 0, grid.layers, theme.guide, 1);
    if (span) stream(x, span.low, span.high, theme.carried, 1.4);
  }
  return shapes;
}

/** Nodes; those that the drawn live lines touch are dark, and where columns are narrow the others are left out. @param {Grid} grid @param {View} view @param {Lines} lines @param {number[]} drawn @param {{first: number, last: number}} columns @param {number} left @param {Theme} theme @returns {Shape[]} */
function nodeShapes(grid, view, lines, drawn, columns, left, theme) {
  /** @type {Shape[]} */
  const shapes = [], radius = Math.min(2.6 * grid.big, grid.pitch / 8 + 0.4), used = new Set(), { layer, query, key } = view.edges, rows = grid.layers + 1;
  for (const i of drawn)
    if (lines.live[i]) used.add(key[lines.first[i]] * rows + layer[lines.first[i]]).add(query[lines.first[i]] * rows + layer[lines.first[i]] + 1);
  for (let p = columns.first; p <= columns.last; p++)
    for (let row = 0; row < rows; row++)
      if ((grid.pitch >= 24 || used.has(p * rows + row)) && isInside(grid, xOf(grid, p) - left)) shapes.push({ tag: "circle", attrs: { class: "node", cx: round(xOf(grid, p) - left), cy: round(yOf(grid, row)), r: radius, fill: used.has(p * rows + row) ? theme.ink : theme.carried } });
  return shapes;
}

/** @param {Grid} grid @param {number} left @param {Theme} theme @returns {Shape[]} */
function rowNames(grid, left, theme) {
  const narrow = grid.gutter < 60, x = Math.max(0, (grid.width - grid.full) / 2) + 2, every = Math.ceil(13 / grid.rowPitch);
  /** @type {Shape[]} */
  const shapes = left > 0 ? [{ tag: "rect", attrs: { x: 0, y: 0, width: grid.gutter - 6, height: grid.height, fill: theme.page, "fill-opacity": 0.9 } }] : [];
  for (let row = 0; row <= grid.layers; row += every) {
    const words = row === 0 ? (narrow ? "in" : "Input") : `${narrow ? "L" : "Layer "}${row - 1}`;
    shapes.push({ tag: "text", attrs: { class: "row-name", x: round(x), y: round(yOf(grid, row) + 4), fill: theme.muted, "font-size": round(12 * grid.big) }, text: words });
  }
  return shapes;
}

/** Whether a column's token is written; an output goes before its neighbours. @param {Grid} grid @param {View} view @param {number} p */
function hasLabel({ every }, { outputs }, p) {
  const few = outputs.length <= 8;
  if (few && outputs.includes(p)) return true;
  return p % every === 0 && !(few && outputs.some((o) => Math.abs(o - p) < every));
}

/**
 * A row of tokens: the inputs below, or the answers above.
 * @param {Grid} grid @param {View} view @param {"input" | "answer"} kind @param {{first: number, last: number}} columns
 * @param {number} left @param {Theme} theme @param {(position: number) => boolean} isWrong @returns {Shape[]}
 */
function tokenShapes(grid, view, kind, columns, left, theme, isWrong) {
  const top = kind === "answer", words = top ? view.answers : view.tokens, y = top ? yOf(grid, grid.layers) - 12 : yOf(grid, 0) + 12;
  /** @type {Shape[]} */
  const shapes = [];
  for (let p = columns.first; p <= columns.last; p++) {
    const x = round(xOf(grid, p) - left);
    if (!hasLabel(grid, view, p) || !isInside(grid, x)) continue;
    const muted = top && !view.outputs.includes(p), wrong = top && isWrong(p);
    /** @type {Record<string, string | number>} */
    const place = grid.turned
      ? { x: 0, y: 0, transform: `translate(${x + grid.fontSize * 0.35} ${y}) rotate(-90)`, "text-anchor": top ? "start" : "end" }
      : { x, y: top ? y : y + grid.fontSize * 0.75, "text-anchor": "middle" };
    const text = { tag: "text", attrs: { class: kind, ...place, fill: wrong ? theme.wrong : muted ? theme.muted : theme.ink, "font-size": round(grid.fontSize), "font-weight": wrong ? "bold" : "normal", "unicode-bidi": "isolate" }, text: shownToken(words[p]) };
    const low = top ? 0 : y - 8, height = top ? y + 8 : grid.height - y + 8;
    const target = { tag: "rect", attrs: { class: "target", x: round(x - grid.pitch / 2), y: round(low), width: round(grid.pitch), height: round(height), rx: 3, fill: "none", "pointer-events": "all" } };
    shapes.push({ tag: "g", attrs: { class: `token ${kind}${wrong ? " wrong" : ""}`, "data-position": p }, children: [target, text] });
  }
  return shapes;
}

/** The index of the line that passes nearest to a point, within `reach` pixels, or -1. @param {Grid} grid @param {View} view @param {Lines} lines @param {number[]} chosen @param {number} left @param {number} x @param {number} y @param {number} reach */
function nearestLine(grid, view, lines, chosen, left, x, y, reach) {
  let best = -1, least = reach;
  for (const i of chosen) {
    const { x1, y1, x2, y2 } = strokeEnds(grid, view, lines, i, left);
    if (y > y1 || y < y2) continue;
    const distance = (Math.abs(x - (x1 + ((x2 - x1) * (y1 - y)) / (y1 - y2))) * (y1 - y2)) / Math.hypot(x2 - x1, y1 - y2);
    if (distance <= least) [best, least] = [i, distance];
  }
  return best;
}

/** @param {Shape} shape @returns {SVGElement} */
function toDom(shape) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", shape.tag);
  for (const name in shape.attrs) element.setAttribute(name, String(shape.attrs[name]));
  if (shape.text !== undefined) element.textContent = shape.text;
  if (shape.children) element.append(...shape.children.map(toDom));
  return element;
}
