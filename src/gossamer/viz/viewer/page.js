// @ts-check
/*
 * The page: its state, its controls, and what happens when one of them moves.
 *
 *     reload    another prompt or another cut -> new views
 *     refilter  another threshold, layer range, head, path -> new lines
 *     repaint   another size, theme, scroll position -> the same lines drawn again
 *     remark    another line under the pointer
 */

/**
 * @typedef {object} State
 * @property {number | string} prompt @property {number} threshold @property {number} low @property {number} high
 * @property {Uint8Array} heads  1 where layer * n_heads + head is on
 * @property {boolean} paleSink  whether what reads position 0 from elsewhere is faded @property {boolean} liveOnly @property {Stop | null} through @property {number} zoom @property {number} most  lines drawn in a window; 0: what can be read
 * @property {boolean} knife  whether a click cuts @property {boolean} liveChosen @property {boolean} stackChosen  whether a person chose, or the size of the prompt
 * @property {{panel: number, line: LineKey} | null} hovered @property {{panel: number, line: LineKey} | null} pinned
 * @property {Map<string, number>[]} whole  per panel, the next tokens before anything was cut
 * @property {Set<string>[]} cuts @property {boolean} dark @property {boolean} beside
 */

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));

/** Start the page. @param {PageData} data @param {Source} source */
function startPage(data, source) {
  const layers = Math.max(...data.panels.map((panel) => panel.layers)), heads = Math.max(...data.panels.map((panel) => panel.heads));
  /** @type {State} */
  const state = {
    prompt: data.kind === "addition" ? parseSum(data, data.start) : data.kind === "server" ? data.start : 0,
    threshold: 0, low: 0, high: layers - 1, heads: new Uint8Array(layers * heads).fill(1), paleSink: false, liveOnly: false, through: null, zoom: 0, most: 0, liveChosen: false, stackChosen: false, knife: false,
    hovered: null, pinned: null, cuts: data.panels.map(() => new Set()), whole: [], dark: matchMedia("(prefers-color-scheme: dark)").matches, beside: true,
  };
  const panels = data.panels.map(makePanel);
  byId("panels").append(...panels.map((panel) => panel.root));
  const page = { data, source, state, panels, layers, nHeads: heads, asked: 0 };
  byId("knife").hidden = !source.canCut(0);
  setKnife(page, data.kind === "server");
  buildControls(page);
  bindPanels(page);
  bindKeys(page);
  bindTheme(page);
  const resized = () => panels.some((panel) => panel.grid && Math.floor(panel.scroller.clientWidth) !== panel.grid.width);
  new ResizeObserver(() => resized() && repaint(page)).observe(byId("panels"));
  addEventListener("resize", () => (fit(page), repaint(page))); // the height, and whether two panels still fit side by side
  reload(page);
}

/** @typedef {{data: PageData, source: Source, state: State, panels: Panel[], layers: number, nHeads: number, asked: number}} Page */

/** @param {Page} page @returns {Theme} */
const themeOf = (page) => (page.state.dark ? THEMES.dark : THEMES.light);

/** Ask the source for the present prompt and show what it says; an older answer that comes late is dropped. @param {Page} page */
function reload(page) {
  const started = performance.now(), asked = ++page.asked, { state } = page;
  const show = (/** @type {Answer} */ answer) => {
    if (asked !== page.asked) return;
    const expected = page.data.kind === "addition" ? sumAnswer(page.data, Number(state.prompt)) : null;
    answer.views.forEach((view, i) => {
      setView(page.panels[i], view, expected ?? (i ? answer.views[0].answers : null));
      page.panels[i].cut = cutLines(state.cuts[i], view.tokens.length);
    });
    if (state.through && state.through.position >= answer.views[0].tokens.length) state.through = null;
    state.pinned = state.hovered = null;
    suit(page, answer.views);
    refilter(page);
    headCounts(page);
    verdict(page, answer);
    byId("panels").dataset.redraw = String(round(performance.now() - started));
    byId("panels").dataset.shown = String(asked);
  };
  const answer = page.source.look({ prompt: state.prompt, cuts: state.cuts });
  if (!(answer instanceof Promise)) return show(answer);
  byId("verdict").textContent = "Running the models…";
  answer.then(show, (error) => asked === page.asked && fail(page, error));
}

/** What nobody chose follows the window: panels are stacked where the prompt is too long for half of it. @param {Page} page */
function fit({ state, panels }) {
  const tokens = panels[0].view?.tokens.length ?? 0;
  if (!state.stackChosen) setStacked(tokens * 17 + 120 > byId("panels").clientWidth / Math.max(2, panels.length));
}

/** And it follows the prompt: a crowded one shows live edges only, unless a panel would then be empty. @param {Page} page @param {View[]} views */
function suit(page, views) {
  const { state } = page;
  fit(page);
  if (state.liveChosen) return;
  const crowded = views.some((view) => view.edges.n > MOST_SVG), alive = page.panels.every((panel) => panel.live.includes(1));
  setLive(page, page.data.kind !== "addition" && crowded && alive);
}

/** @param {boolean} stacked */
function setStacked(stacked) {
  byId("beside").hidden = document.querySelectorAll(".panel").length < 2;
  document.documentElement.classList.toggle("stacked", stacked);
  byId("beside").setAttribute("aria-pressed", String(stacked));
}

/** @param {Page} page @param {boolean} only */
function setLive({ state }, only) {
  state.liveOnly = only;
  byId("live").setAttribute("aria-pressed", String(only));
}

/** Say what went wrong where the answer would stand. @param {Page} page @param {Error} error */
function fail(page, error) {
  byId("verdict").textContent = error.message;
  byId("panels").dataset.shown = String(page.asked);
  byId("verdict").classList.add("failed");
}

/** @param {Page} page */
function refilter(page) {
  const { state, nHeads } = page;
  const headOn = (/** @type {number} */ layer, /** @type {number} */ head) => state.heads[layer * nHeads + head] === 1;
  for (const panel of page.panels) filterPanel(panel, { ...state, headOn });
  overviews(page);
  repaint(page);
  if (/** @type {HTMLDetailsElement} */ (byId("list")).open) listEdges(page);
}

/** @param {Page} page */
function overviews(page) {
  for (const { overview, view, lines, data } of page.panels) if (view) paintOverview(overview, view, lines, data.layers, themeOf(page));
}

/** @param {Page} page @param {boolean} [moving] while a window scrolls, fewer lines */
function repaint(page, moving = false) {
  const started = performance.now();
  // Two panels one above the other have the height of two windows between them, side by side they share one.
  const tall = window.innerHeight * (document.documentElement.classList.contains("stacked") ? 0.54 : 0.44);
  const widest = Math.max(...page.panels.map(({ view }) => (view ? widestOf(view) : 0)));
  for (const panel of page.panels) {
    const width = Math.floor(panel.scroller.clientWidth);
    if (width) paintPanel(panel, width, tall, widest, page.state, themeOf(page), moving);
  }
  remark(page);
  byId("panels").dataset.paint = String(round(performance.now() - started));
}

/** Show the line under the pointer, or the pinned one, in both panels and in words. @param {Page} page */
function remark(page) {
  const { state } = page, marked = state.hovered ?? state.pinned;
  for (const panel of page.panels) markPanel(panel, marked && marked.line, state.through, themeOf(page));
  const readout = byId("readout-words");
  readout.replaceChildren(...(marked ? describeLine(page, marked.panel, marked.line) : hint(page)));
  const cuttable = state.pinned && page.source.canCut(state.pinned.panel);
  byId("cut").hidden = !cuttable;
  byId("cut-heads").hidden = !page.source.canCut(0) || !headsOff(page).length;
  byId("restore").hidden = !page.state.cuts.some((cuts) => cuts.size);
  byId("clear").hidden = !state.through && !state.pinned;
}

/** Heads that are switched off and not yet cut everywhere, as "layer,head". @param {Page} page */
function headsOff({ state, nHeads }) {
  const off = Array.from(state.heads.keys()).filter((i) => !state.heads[i]).map((i) => `${Math.floor(i / nHeads)},${i % nHeads}`);
  return off.filter((head) => !state.cuts.every((cuts) => cuts.has(head)));
}

/** @param {Page} page @returns {(Node | string)[]} */
function hint({ state, data, source }) {
  if (state.through) {
    const { row, position } = state.through;
    return [`Only paths through position ${position}${named(data, position)}, ${row ? `after layer ${row - 1}` : "at the input"}.`];
  }
  const cut = !source.canCut(0) ? "" : state.knife ? "; click a line or a head to cut it, and again to restore it" : "; click a line to cut it";
  return [`Point at a line to read it; click a token or a node for the paths through it${cut}.`];
}

/** @param {PageData} data @param {number} position */
const named = (data, position) => (data.places[position] ? ` (${data.places[position]})` : "");

/** What a line says, in words. @param {Page} page @param {number} at the panel it was chosen in @param {LineKey} line @returns {(Node | string)[]} */
function describeLine(page, at, line) {
  const { data, panels } = page, view = /** @type {View} */ (panels[at].view), { layer, query, key } = line;
  const word = (/** @type {number} */ p) => make("bdi", { class: "word" }, shownToken(view.tokens[p] ?? ""));
  const lead = make("strong", {}, `Layer ${layer}`);
  const parts = [lead, `: position ${query} `, word(query), `${named(data, query)} reads position ${key} `, word(key), `${named(data, key)}. `];
  panels.forEach((panel) => parts.push(`${panel.data.title}: ${weightsOf(panel, line)}. `));
  // What was found out about the last model says nothing of the other, nor of one that has been cut.
  const last = panels.length - 1, carried = page.state.cuts[last].size ? [] : carriedBy(data, panels[last], line);
  if (carried.length) parts.push(...carried.map((words) => make("span", { class: "carries" }, `${words}.`)));
  return parts;
}

/** The heads of a line with their weights. @param {Panel} panel @param {LineKey} line */
function weightsOf(panel, line) {
  const i = findLine(panel, line), { edges } = /** @type {View} */ (panel.view);
  if (i < 0) return "not shown";
  const heads = [];
  for (let e = panel.lines.first[i]; e <= panel.lines.last[i]; e++)
    heads.push(`head ${edges.head[e]} weight ${edges.weight[e].toFixed(3)}, writes ${edges.contribution[e].toFixed(2)}`);
  return heads.join("; ") + (panel.lines.live[i] ? "" : "; never reaches the answer");
}

/** What is known of the edges of a shown line, one phrase each. @param {PageData} data @param {Panel} panel @param {LineKey} line @returns {string[]} */
function carriedBy(data, panel, line) {
  const { layer, query, key } = line, i = findLine(panel, line), { edges } = /** @type {View} */ (panel.view), found = [];
  if (i < 0) return [];
  const all = data.carries[`${layer},${query},${key}`];
  if (all) found.push(`Carries ${all}`);
  for (let e = panel.lines.first[i]; e <= panel.lines.last[i]; e++) {
    const one = data.carries[`${layer},${edges.head[e]},${query},${key}`];
    if (one) found.push(`Head ${edges.head[e]}: ${one}`);
  }
  return found;
}

/** The answers in words. @param {Page} page @param {Answer} answer */
function verdict(page, answer) {
  const { data, panels, state } = page, place = byId("verdict");
  place.classList.remove("failed");
  place.replaceChildren();
  if (data.kind === "addition") {
    const index = Number(state.prompt), expected = sumAnswer(data, index).slice(2 * data.digits + 2).join("");
    place.append(`${sumText(data, index)} = ${Number(expected)}. `);
    panels.forEach((panel) => {
      const view = /** @type {View} */ (panel.view), said = view.answers.slice(2 * data.digits + 2).join("");
      const wrong = view.outputs.some((p) => panel.isWrong(p));
      place.append(`${panel.data.title}: `, make("output", { id: `answer-${panel.data.name}`, class: wrong ? "wrong" : "right" }, said), wrong ? ", wrong. " : ", right. ");
    });
  }
  if (answer.notes) place.append(answer.notes.join(" "));
  if (answer.next) showNext(page, answer.next);
}

/** Next-token distributions side by side. @param {Page} page @param {[string, number][][]} next */
function showNext(page, next) {
  const { cuts, whole } = page.state, percent = (/** @type {number} */ p) => `${(100 * p).toFixed(1)} %`;
  next.forEach((rows, i) => cuts[i].size || (whole[i] = new Map(rows)));
  // One scale for both models, up to the largest of all: bars that are compared must be, and a flat distribution has no bar of 1.
  const most = Math.max(...next.flatMap((rows) => rows.map(([, p]) => p)));
  const bar = (/** @type {number} */ p) => make("div", { class: "share", style: `width: ${round((100 * p) / most)}%`, "aria-hidden": "true" });
  const tables = next.map((rows, i) => {
    // What the whole model said of a token; it may not have been among its likeliest.
    const was = (/** @type {string} */ token) => (cuts[i].size && whole[i] ? [make("td", { class: "was" }, whole[i].has(token) ? `was ${percent(/** @type {number} */ (whole[i].get(token)))}` : "was below these")] : []);
    const body = rows.map(([token, p]) => make("tr", {}, make("td", {}, make("bdi", {}, shownToken(token))), make("td", {}, percent(p)), ...was(token),
      make("td", { class: "bar" }, bar(p))));
    return make("table", {}, make("caption", {}, `Next token, ${page.data.panels[i].title}`), make("tbody", {}, ...body));
  });
  byId("next").replaceChildren(...tables);
}

/** Every shown edge as a row, the strongest first: the same for those who use no pointer. @param {Page} page */
function listEdges(page) {
  const most = 300, last = page.panels.length - 1, panel = page.panels[last];
  if (!panel.view) return;
  const view = panel.view, { lines } = panel;
  const order = Array.from({ length: lines.n }, (_, i) => i).sort((a, b) => lines.weight[b] - lines.weight[a]).slice(0, most);
  const rows = order.map((i) => {
    const line = keyOf(panel, i), button = make("button", { type: "button" }, `${line.layer}: ${line.query} reads ${line.key}`);
    const choose = () => ((page.state.pinned = { panel: last, line }), remark(page));
    button.addEventListener("click", choose);
    button.addEventListener("focus", choose);
    return make("tr", {}, make("td", {}, button), make("td", {}, make("bdi", {}, shownToken(view.tokens[line.query]))), make("td", {}, make("bdi", {}, shownToken(view.tokens[line.key]))), make("td", {}, weightsOf(panel, line)));
  });
  const head = make("tr", {}, ...["Layer: line", "reads: token", "read: token", "heads"].map((words) => make("th", { scope: "col" }, words)));
  const words = `${panel.data.title}, ${rows.length} of ${lines.n} lines, the strongest first`;
  byId("rows").replaceChildren(make("table", {}, make("caption", {}, words), make("thead", {}, head), make("tbody", {}, ...rows)));
}
