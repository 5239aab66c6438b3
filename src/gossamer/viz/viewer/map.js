// @ts-check
/*
 * The whole prompt on a strip, where a window shows only a part of it: a row per layer, a column per token, dark where
 * the shown lines write. A frame marks the window; a click, a drag or a key moves it.
 */

const MAP_ROW = 4; // pixels per layer
const MAP_LEAST = 24; // pixels in all, so that few layers can still be hit

/** @typedef {{root: HTMLElement, canvas: HTMLCanvasElement, frame: HTMLElement, pitch: number, page: number}} Overview  pixels of a column and of a window, less one column, below */

/** The strip of a panel, for pointer and keys alike: a slider whose value is the first position in the window. @param {HTMLElement} scroller @param {string} title of the panel @returns {Overview} */
function makeOverview(scroller, title) {
  const canvas = make("canvas", { "aria-hidden": "true" }), frame = make("div", { class: "frame" });
  const root = make("div", { class: "overview", role: "slider", tabindex: "0", "aria-orientation": "horizontal", "aria-label": `${title}: the window on the whole prompt`,
    "aria-controls": scroller.id, title: "The whole prompt: dark where the lines shown write; the frame is the window below" }, canvas, frame);
  const overview = { root, canvas, frame, pitch: 1, page: 1 };
  const go = (/** @type {PointerEvent} */ event) => {
    const box = root.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
    scroller.scrollLeft = share * scroller.scrollWidth - scroller.clientWidth / 2;
  };
  root.addEventListener("pointerdown", (event) => (root.setPointerCapture(event.pointerId), go(event)));
  root.addEventListener("pointermove", (event) => event.buttons && go(event));
  root.addEventListener("keydown", (event) => overviewKey(overview, scroller, event));
  return overview;
}

/** Arrows move the window by a column, Page Up and Page Down by what it shows, less one column to go by, Home and End to the ends. @param {Overview} overview @param {HTMLElement} scroller @param {KeyboardEvent} event */
function overviewKey({ pitch, page }, scroller, event) {
  const { scrollLeft, scrollWidth } = scroller;
  /** @type {Record<string, number>} */
  const places = {
    ArrowRight: scrollLeft + pitch, ArrowUp: scrollLeft + pitch, ArrowLeft: scrollLeft - pitch, ArrowDown: scrollLeft - pitch,
    PageUp: scrollLeft + page, PageDown: scrollLeft - page, Home: 0, End: scrollWidth,
  };
  if (event.ctrlKey || event.metaKey || event.altKey || places[event.key] === undefined) return;
  scroller.scrollLeft = places[event.key];
  event.preventDefault();
  event.stopPropagation(); // the page's own arrow keys ask for another sum
}

/** How much is written at each (layer, column of the strip), between 0 and 1. @param {View} view @param {Lines} lines @param {number} layers @param {number} columns */
function writtenAt(view, lines, layers, columns) {
  const { layer, query } = view.edges, found = new Float32Array(layers * columns), scale = columns / view.tokens.length;
  for (let i = 0; i < lines.n; i++) {
    const e = lines.first[i];
    found[layer[e] * columns + Math.floor(query[e] * scale)] += lines.weight[i];
  }
  const written = found.filter((x) => x > 0).sort(), most = written[Math.floor(0.98 * (written.length - 1))] || 1;
  return found.map((x) => Math.min(1, x / most));
}

/** @param {Overview} overview @param {View} view @param {Lines} lines @param {number} layers @param {Theme} theme */
function paintOverview(overview, view, lines, layers, theme) {
  const { canvas } = overview, columns = Math.min(view.tokens.length, 1200), shares = writtenAt(view, lines, layers, columns);
  canvas.width = columns;
  canvas.height = layers;
  canvas.style.height = `${Math.max(MAP_LEAST, layers * MAP_ROW)}px`;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = pen.createImageData(columns, layers), shades = Array.from({ length: SHADES }, (_, s) => rgbOf(s / (SHADES - 1), theme));
  shares.forEach((share, at) => {
    if (!share) return;
    const row = layers - 1 - Math.floor(at / columns), pixel = 4 * (row * columns + (at % columns));
    image.data.set([...shades[Math.round(share * (SHADES - 1))], 255], pixel);
  });
  pen.putImageData(image, 0, 0);
}

/** Put the frame where the window is, and say where that is, or hide the strip where the window shows all. @param {Overview} overview @param {HTMLElement} scroller @param {Grid} grid */
function frameOverview(overview, scroller, grid) {
  const { root, frame } = overview, { scrollLeft, scrollWidth, clientWidth } = scroller, { first, last } = columnsInside(grid, scrollLeft);
  overview.pitch = grid.pitch;
  overview.page = Math.max(grid.pitch, grid.width - grid.gutter - grid.pitch);
  frame.style.left = `${(100 * scrollLeft) / scrollWidth}%`;
  frame.style.width = `${Math.min(100, (100 * clientWidth) / scrollWidth)}%`;
  root.hidden = scrollWidth <= clientWidth + 1;
  const most = columnsInside(grid, scrollWidth - clientWidth).first;
  /** @type {Record<string, string | number>} */
  const said = { valuemin: 0, valuemax: most, valuenow: Math.min(first, most), valuetext: `positions ${first} to ${last} of ${grid.tokens}` };
  for (const name in said) root.setAttribute(`aria-${name}`, String(said[name]));
}
