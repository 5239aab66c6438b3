// @ts-check
/*
 * What was cut stays to be seen: a dashed line with a stroke through its middle, where the model has no edge any more.
 */

/** @typedef {{layer: number, query: number, key: number}} CutLine */

/** Whether a click on a line or a head cuts it, or chooses it. @param {Page} page @param {boolean} on */
function setKnife(page, on) {
  page.state.knife = on;
  byId("knife").setAttribute("aria-pressed", String(on));
  byId("panels").classList.toggle("cutting", on);
}

/** Take a line's shown edges out of its model and run it again. @param {Page} page @param {{panel: number, line: LineKey}} chosen */
function cutLine(page, { panel: at, line }) {
  const panel = page.panels[at], i = findLine(panel, line), { edges } = /** @type {View} */ (panel.view);
  for (let e = panel.lines.first[i]; i >= 0 && e <= panel.lines.last[i]; e++)
    page.state.cuts[at].add([edges.layer[e], edges.head[e], edges.query[e], edges.key[e]].join(","));
  reload(page);
}

/** The cut line under a point, if no line that is there lies nearer. @param {Panel} panel @param {{x: number, y: number}} at @returns {CutLine | null} */
function cutUnder({ grid, cut, left, view, lines, chosen }, { x, y }) {
  let found = null, least = 7;
  for (const line of cut) {
    const x1 = xOf(grid, line.key) - left, x2 = xOf(grid, line.query) - left, y1 = yOf(grid, line.layer), y2 = yOf(grid, line.layer + 1);
    const along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2);
    const distance = Math.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1));
    if (along > 0 && along < 1 && distance < least) [found, least] = [line, distance];
  }
  return found && nearestLine(grid, /** @type {View} */ (view), lines, chosen, left, x, y, least - 0.5) < 0 ? found : null;
}

/** Put a cut line's edges back. @param {Page} page @param {number} at the panel @param {CutLine} line */
function restoreLine(page, at, { layer, query, key }) {
  const cuts = page.state.cuts[at];
  for (const edge of [...cuts]) if (new RegExp(`^${layer},\\d+,${query},${key}$`).test(edge)) cuts.delete(edge);
  reload(page);
}

/** Cut heads out of every model, or put them back if all are out. @param {Page} page @param {string[]} heads as "layer,head" */
function toggleHeads(page, heads) {
  const { cuts } = page.state, back = cuts.every((cut) => heads.every((head) => cut.has(head)));
  for (const cut of cuts) for (const head of heads) back ? cut.delete(head) : cut.add(head);
  reload(page);
}

/** The lines that single cut edges make; a cut head is told in words and in its switch. @param {Set<string>} cuts @param {number} tokens @returns {CutLine[]} */
function cutLines(cuts, tokens) {
  /** @type {Map<string, CutLine>} */
  const found = new Map();
  for (const cut of cuts) {
    const [layer, , query, key] = cut.split(",").map(Number);
    if (key !== undefined && Math.max(query, key) < tokens) found.set(`${layer},${query},${key}`, { layer, query, key });
  }
  return [...found.values()];
}

/**
 * @param {Grid} grid @param {CutLine[]} cut @param {{first: number, last: number}} columns @param {number} left @param {Theme} theme
 * @returns {Shape[]}
 */
function cutShapes(grid, cut, columns, left, theme) {
  return cut.filter(({ query, key }) => Math.max(query, key) >= columns.first && Math.min(query, key) <= columns.last).map(({ layer, query, key }) => {
    const x1 = xOf(grid, key) - left, x2 = xOf(grid, query) - left, y1 = yOf(grid, layer), y2 = yOf(grid, layer + 1);
    // The stroke crosses the line at a right angle, 12 pixels long.
    const length = Math.hypot(x2 - x1, y2 - y1), across = [(6 * (y1 - y2)) / length, (6 * (x2 - x1)) / length], middle = [(x1 + x2) / 2, (y1 + y2) / 2];
    const pen = { stroke: theme.wrong, "stroke-linecap": "round" };
    const dashed = { tag: "line", attrs: { ...rounded({ x1, y1, x2, y2 }), ...pen, "stroke-width": 1.4, "stroke-dasharray": "2 5" } };
    const strike = { tag: "line", attrs: { ...rounded({ x1: middle[0] - across[0], y1: middle[1] - across[1], x2: middle[0] + across[0], y2: middle[1] + across[1] }), ...pen, "stroke-width": 2 } };
    return { tag: "g", attrs: { class: "cut" }, children: [dashed, strike] };
  });
}
