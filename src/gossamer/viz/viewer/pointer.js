// @ts-check
/*
 * What pointer and keys do in the panels.
 */

/** @param {Page} page */
function bindPanels(page) {
  page.panels.forEach((panel, at) => {
    const point = (/** @type {MouseEvent} */ event) => {
      const box = panel.svg.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    const find = (/** @type {MouseEvent} */ event) => {
      if (!panel.view) return null;
      const { x, y } = point(event), i = nearestLine(panel.grid, panel.view, panel.lines, panel.chosen, panel.scroller.scrollLeft, x, y, 7);
      return i < 0 ? null : { panel: at, line: keyOf(panel, i) };
    };
    panel.svg.addEventListener("pointermove", (event) => ((page.state.hovered = find(event)), remark(page)));
    panel.svg.addEventListener("pointerleave", () => ((page.state.hovered = null), remark(page)));
    panel.svg.addEventListener("click", (event) => clickPanel(page, at, /** @type {Element} */ (event.target), point(event), find(event)));
    panel.svg.addEventListener("keydown", (event) => tokenKey(page, panel, event));
    let frame = 0, rest = 0;
    panel.scroller.addEventListener("scroll", () => {
      for (const other of page.panels) if (other !== panel) other.scroller.scrollLeft = panel.scroller.scrollLeft;
      clearTimeout(rest);
      rest = setTimeout(() => repaint(page), 150);
      frame ||= requestAnimationFrame(() => ((frame = 0), repaint(page, true)));
    });
  });
}

/** A token, a node, a line, or nothing was clicked. @param {Page} page @param {number} index of the panel @param {Element} target @param {{x: number, y: number}} at @param {State["pinned"]} line */
function clickPanel(page, index, target, at, line) {
  const panel = page.panels[index], { grid } = panel, token = target.closest(".token");
  if (token) return chooseStop(page, stopOf(panel, token));
  const position = Math.floor((at.x + panel.scroller.scrollLeft - xOf(grid, 0)) / grid.pitch + 0.5), row = Math.round((grid.bottom - at.y) / grid.rowPitch);
  const near = Math.hypot(xOf(grid, position) - panel.scroller.scrollLeft - at.x, yOf(grid, row) - at.y) < 9;
  if (near && grid.pitch >= 6 && position >= 0 && position < grid.tokens && row >= 0 && row <= grid.layers) return chooseStop(page, { row, position });
  const cut = cutUnder(panel, at);
  if (cut) return restoreLine(page, index, cut);
  if (line && page.state.knife) return cutLine(page, line);
  if (!line) return clearChoice(page);
  page.state.pinned = line;
  remark(page);
}

/** @param {Panel} panel @param {Element} token @returns {Stop} */
function stopOf(panel, token) {
  return { row: token.classList.contains("input") ? 0 : panel.data.layers, position: Number(token.getAttribute("data-position")) };
}

/** Show only paths through a place, or all again. @param {Page} page @param {Stop} stop */
function chooseStop(page, stop) {
  const old = page.state.through, same = old && old.row === stop.row && old.position === stop.position;
  page.state.through = same ? null : stop;
  page.state.pinned = page.state.hovered = null;
  refilter(page);
}

/** @param {Page} page @param {Panel} panel @param {KeyboardEvent} event */
function tokenKey(page, panel, event) {
  const token = /** @type {Element} */ (event.target).closest(".token");
  if (!token) return;
  const { row, position } = stopOf(panel, token), { name } = panel.data, kind = row ? "answer" : "input", other = row ? "input" : "answer";
  /** @type {Record<string, string>} */
  const moves = { ArrowLeft: `${kind}-${position - 1}`, ArrowRight: `${kind}-${position + 1}`, ArrowUp: `${other}-${position}`, ArrowDown: `${other}-${position}` };
  if (event.key === "Enter" || event.key === " ") chooseStop(page, { row, position });
  else if (moves[event.key]) document.getElementById(`${name}-${moves[event.key]}`)?.focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** @param {Page} page */
function bindKeys(page) {
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target), typing = target.matches("input, select, textarea"), inSum = target.id === "sum";
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return clearChoice(page);
    const climb = event.key === "PageUp" ? 1 : event.key === "PageDown" ? -1 : 0, { through } = page.state;
    if (through && climb && !typing) {
      event.preventDefault();
      const row = Math.min(page.layers, Math.max(0, through.row + climb));
      if (row !== through.row) chooseStop(page, { ...through, row });
      return;
    }
    if (!typing && (event.key === "[" || event.key === "]")) return stepLayer(page, event.key === "]" ? 1 : -1);
    const unit = 10 ** page.data.digits;
    /** @type {Record<string, number>} */
    const steps = { ArrowUp: unit, ArrowDown: -unit, ArrowRight: 1, ArrowLeft: -1 }, by = steps[event.key];
    if (page.data.kind !== "addition" || !by || (typing && !(inSum && Math.abs(by) === unit)) || target.matches(".scroller")) return;
    event.preventDefault();
    ask(page, nextSum(Number(page.state.prompt), by, unit));
  });
}

/** Another sum with one operand one more or less, from 99 to 0 again. @param {number} index @param {number} by @param {number} unit */
function nextSum(index, by, unit) {
  const first = Math.floor(index / unit), second = index % unit, turn = (/** @type {number} */ x) => (x + unit) % unit;
  return Math.abs(by) === unit ? turn(first + Math.sign(by)) * unit + second : first * unit + turn(second + by);
}
