// @ts-check
/*
 * The whole prompt on a strip, where a window shows only a part of it: a row per layer, a column per token, dark where
 * the shown lines write. A frame marks the window; a click or a drag moves it.
 */

const MAP_ROW = 4; // pixels per layer

/** @typedef {{root: HTMLElement, canvas: HTMLCanvasElement, frame: HTMLElement}} Overview */

/** @param {HTMLElement} scroller @returns {Overview} */
function makeOverview(scroller) {
  const canvas = make("canvas", {}), frame = make("div", { class: "frame" });
  const root = make("div", { class: "overview", "aria-hidden": "true", title: "The whole prompt: dark where the lines shown write; the frame is the window below" }, canvas, frame);
  const go = (/** @type {PointerEvent} */ event) => {
    const box = root.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
    scroller.scrollLeft = share * scroller.scrollWidth - scroller.clientWidth / 2;
  };
  root.addEventListener("pointerdown", (event) => (root.setPointerCapture(event.pointerId), go(event)));
  root.addEventListener("pointermove", (event) => event.buttons && go(event));
  return { root, canvas, frame };
}

/** How much is written at each (layer, column of the strip), between 0 and 1. @param {View} view @param {Lines} lines @param {number} layers @param {number} columns */
function writtenAt(view, lines, layers, columns) {
  const { layer, query } = view.edges, found = new Float32Array(layers * columns), scale = columns / view.tokens.length;
  for (let i = 0; i < lines.n; i++) {
    const e = lines.first[i];
    if (lines.live[i]) found[layer[e] * columns + Math.floor(query[e] * scale)] += lines.weight[i];
  }
  const written = found.filter((x) => x > 0).sort(), most = written[Math.floor(0.98 * (written.length - 1))] || 1;
  return found.map((x) => Math.min(1, x / most));
}

/** @param {Overview} overview @param {View} view @param {Lines} lines @param {number} layers @param {Theme} theme */
function paintOverview(overview, view, lines, layers, theme) {
  const { canvas } = overview, columns = Math.min(view.tokens.length, 1200), shares = writtenAt(view, lines, layers, columns);
  canvas.width = columns;
  canvas.height = layers;
  canvas.style.height = `${layers * MAP_ROW}px`;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = pen.createImageData(columns, layers), shades = Array.from({ length: SHADES }, (_, s) => rgbOf(s / (SHADES - 1), theme));
  shares.forEach((share, at) => {
    if (!share) return;
    const row = layers - 1 - Math.floor(at / columns), pixel = 4 * (row * columns + (at % columns));
    image.data.set([...shades[Math.round(share * (SHADES - 1))], 255], pixel);
  });
  pen.putImageData(image, 0, 0);
}

/** Put the frame where the window is, or hide the strip where the window shows all. @param {Overview} overview @param {HTMLElement} scroller */
function frameOverview({ root, frame }, scroller) {
  const { scrollLeft, scrollWidth, clientWidth } = scroller;
  frame.style.left = `${(100 * scrollLeft) / scrollWidth}%`;
  frame.style.width = `${Math.min(100, (100 * clientWidth) / scrollWidth)}%`;
  root.hidden = scrollWidth <= clientWidth + 1;
}
