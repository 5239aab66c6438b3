// @ts-check
/*
 * The present view as an SVG file: the panels as they stand on the page, beside or above one another, in its theme,
 * with its filters and marks. Nothing is asked of the reader's program but SVG 1.1.
 */

const FILE_GAP = 20; // pixels between panels

/** @typedef {{name: string, title: string, captions: string[], width: number, height: number, shapes: Shape[]}} Sheet  one panel */

/** @param {string} text */
const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** @param {Shape} shape @returns {string} */
function toText(shape) {
  const attrs = Object.entries(shape.attrs).map(([name, value]) => ` ${name}="${escaped(String(value))}"`);
  return `<${shape.tag}${attrs.join("")}>${escaped(shape.text ?? "")}${(shape.children ?? []).map(toText).join("")}</${shape.tag}>`;
}

/** Words in lines no wider than `width`, since SVG text does not wrap. @param {string} text @param {number} size of the font @param {number} width @returns {string[]} */
function wrapped(text, size, width) {
  /** @type {string[]} */
  const lines = [];
  let room = 0;
  for (const word of text.split(" ")) {
    const wide = size * measure(`${word} `);
    if (!lines.length || wide > room) [lines[lines.length], room] = [word, width];
    else lines[lines.length - 1] += ` ${word}`;
    room -= wide;
  }
  return lines;
}

/** The height of a panel's words. @param {Sheet} sheet */
const headOf = ({ captions, width }) => 30 + 15 * captions.flatMap((text) => wrapped(text, 11, width - 8)).length;

/** A panel at a place; its window is an SVG of its own, so that a line that leaves it is cut off there. @param {Sheet} sheet @param {number} x @param {number} y @param {number} head @param {Theme} theme */
function sheetText({ name, title, captions, width, height, shapes }, x, y, head, theme) {
  const lines = captions.flatMap((text) => wrapped(text, 11, width - 8));
  /** @type {Shape[]} */
  const words = [
    { tag: "text", attrs: { x: 4, y: 18, fill: theme.ink, "font-size": 15, "font-weight": "bold" }, text: title },
    ...lines.map((text, i) => ({ tag: "text", attrs: { x: 4, y: 35 + 15 * i, fill: theme.muted, "font-size": 11 }, text })),
    { tag: "svg", attrs: { y: head, width, height }, children: shapes },
  ];
  return toText({ tag: "g", attrs: { class: "panel", "data-panel": name, transform: `translate(${x} ${y})` }, children: words });
}

/** @param {Sheet[][]} rows  of panels side by side, from the top @param {Theme} theme @returns {string} */
function svgFile(rows, theme) {
  let y = 0, width = 0;
  const body = rows.flatMap((row) => {
    const head = Math.max(...row.map(headOf)), top = y;
    let x = 0;
    const texts = row.map((sheet) => {
      const text = sheetText(sheet, x, top, head, theme);
      x += sheet.width + FILE_GAP;
      return text;
    });
    width = Math.max(width, x - FILE_GAP);
    y += head + Math.max(...row.map((sheet) => sheet.height)) + FILE_GAP;
    return texts;
  });
  const size = `width="${width}" height="${round(y)}" viewBox="0 0 ${width} ${round(y)}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="system-ui, 'DejaVu Sans', Verdana, sans-serif"><rect width="100%" height="100%" fill="${theme.page}"/>${body.join("\n")}</svg>\n`;
}

/** What a panel shows, drawn anew as vectors. @param {Page} page @param {Panel} panel @returns {Sheet} */
function sheetOf(page, panel) {
  const { state } = page, theme = themeOf(page), captions = [panel.count, panel.shared].map((words) => words.textContent ?? "").filter(Boolean);
  const shapes = [...panelShapes(panel, theme, state, false), ...markShapes(panel, state.pinned && state.pinned.line, state.through, theme)];
  return { name: panel.data.name, title: panel.data.title, captions, width: panel.grid.width, height: panel.grid.height, shapes };
}

/** The panels in rows, as a narrow or a wide page has placed them. @param {Panel[]} panels @returns {Panel[][]} */
function placed(panels) {
  /** @type {Map<number, Panel[]>} */
  const rows = new Map();
  for (const panel of panels) rows.set(panel.root.offsetTop, [...(rows.get(panel.root.offsetTop) ?? []), panel]);
  return [...rows.values()];
}

/** Hand over what the panels show as a file. @param {Page} page */
function saveSvg(page) {
  const rows = placed(page.panels).map((row) => row.map((panel) => sheetOf(page, panel)));
  const url = URL.createObjectURL(new Blob([svgFile(rows, themeOf(page))], { type: "image/svg+xml" }));
  make("a", { href: url, download: "circuit.svg" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  repaint(page); // what was on a canvas goes back there
}
