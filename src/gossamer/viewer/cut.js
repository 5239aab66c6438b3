// @ts-check
/*
 * What was cut stays to be seen: a dashed line with a stroke through its middle, where the model has no edge any more.
 */

/** @typedef {{layer: number, query: number, key: number}} CutLine */

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
