// @ts-check
/*
 * The controls below the panels and the prompt above them.
 */

/** @param {Page} page */
function buildControls(page) {
  buildPrompt(page);
  buildSliders(page);
  buildHeads(page);
  buildButtons(page);
  byId("list").addEventListener("toggle", () => listEdges(page));
}

/** Show another prompt. @param {Page} page @param {number | string} prompt */
function ask(page, prompt) {
  page.state.prompt = prompt;
  if (page.data.kind === "addition") /** @type {HTMLInputElement} */ (byId("sum")).value = sumText(page.data, Number(prompt));
  if (page.data.kind === "prompts") /** @type {HTMLSelectElement} */ (byId("prompt")).value = String(prompt);
  reload(page);
}

/** @param {Page} page */
function buildPrompt(page) {
  const form = byId("ask");
  form.addEventListener("submit", (event) => event.preventDefault());
  if (page.data.kind === "addition") buildSum(page, form);
  else if (page.data.kind === "server") buildText(page, form);
  else buildSelect(page, form);
}

/** @param {Page} page @param {HTMLElement} form */
function buildSum(page, form) {
  const { data } = page, input = make("input", { id: "sum", value: data.start, autocomplete: "off", inputmode: "text", size: "8", spellcheck: "false" });
  input.value = sumText(data, parseSum(data, data.start));
  input.addEventListener("input", () => {
    const index = parseSum(data, input.value);
    input.setAttribute("aria-invalid", String(index < 0));
    byId("sum-help").textContent = index < 0 ? `Two numbers of up to ${data.digits} digits, such as 36 + 28.` : "Arrow keys: the next sum.";
    if (index >= 0) (page.state.prompt = index), reload(page);
  });
  const surprise = make("button", { type: "button", id: "surprise" }, "Surprise me");
  surprise.addEventListener("click", () => ask(page, Math.floor(Math.random() * 100 ** data.digits)));
  form.append(make("label", { for: "sum" }, "Sum"), input, surprise, make("span", { id: "sum-help", class: "help" }, "Arrow keys: the next sum."));
  input.setAttribute("aria-describedby", "sum-help");
}

/** @param {Page} page @param {HTMLElement} form */
function buildSelect(page, form) {
  const { prompts } = page.source;
  if (prompts.length < 2) return;
  const options = prompts.map((words, i) => make("option", { value: String(i) }, words));
  const select = make("select", { id: "prompt" }, ...options);
  select.addEventListener("change", () => ask(page, Number(select.value)));
  form.append(make("label", { for: "prompt" }, "Prompt"), select);
}

/** @param {Page} page @param {HTMLElement} form */
function buildText(page, form) {
  const most = String(page.data.limits.characters), area = make("textarea", { id: "text", rows: "2", maxlength: most }, page.data.start);
  const run = () => {
    page.state.cuts.forEach((cuts) => cuts.clear());
    ask(page, area.value);
  };
  const button = make("button", { type: "submit", id: "run" }, "Run");
  form.addEventListener("submit", run);
  area.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && run());
  form.append(make("label", { for: "text" }, "Prompt"), area, button, make("span", { class: "help" }, `At most ${page.data.limits.tokens} tokens; Ctrl+Enter runs.`));
}

/** Lines in a window that may be asked for; 0: as many as can be read. */
const MOSTS = [0, 30, 100, 300, 1000, 3000, 12000];

/** A labelled range. @param {string} id @param {string} words @param {number} low @param {number} high @param {number} value @param {(x: number) => string} change */
function slider(id, words, low, high, value, change) {
  const input = make("input", { type: "range", id, min: String(low), max: String(high), value: String(value), step: "1" });
  const shown = make("output", { for: id }, "");
  input.addEventListener("input", () => (shown.textContent = change(Number(input.value))));
  return { input, shown, row: make("div", { class: "slider" }, make("label", { for: id }, words), input, shown) };
}

/** @param {Page} page */
function buildSliders(page) {
  const { state, layers } = page, place = byId("sliders");
  const threshold = slider("threshold", "Smallest weight", 0, 100, 0, (x) => {
    state.threshold = (x / 100) ** 2; // finer where weights are small
    refilter(page);
    return state.threshold.toFixed(3);
  });
  const low = slider("low", "First layer", 0, layers - 1, 0, (x) => setLayers(page, x, Math.max(x, state.high)));
  const high = slider("high", "Last layer", 0, layers - 1, layers - 1, (x) => setLayers(page, Math.min(x, state.low), x));
  const zoom = slider("zoom", "Column width", 0, 60, 0, (x) => {
    state.zoom = x;
    repaint(page);
    return x ? `${x} px` : "fit";
  });
  const most = slider("most", "Lines drawn", 0, MOSTS.length - 1, 0, (x) => {
    state.most = MOSTS[x];
    repaint(page);
    return x ? String(MOSTS[x]) : "legible";
  });
  threshold.shown.textContent = "0.000";
  [low.shown.textContent, high.shown.textContent, zoom.shown.textContent, most.shown.textContent] = ["0", String(layers - 1), "fit", "legible"];
  place.append(threshold.row, low.row, high.row, zoom.row, most.row);
}

/** @param {Page} page @param {number} low @param {number} high */
function setLayers(page, low, high) {
  Object.assign(page.state, { low, high });
  for (const [id, value] of /** @type {[string, number][]} */ ([["low", low], ["high", high]])) {
    /** @type {HTMLInputElement} */ (byId(id)).value = String(value);
    /** @type {HTMLElement} */ (byId(id).nextElementSibling).textContent = String(value);
  }
  refilter(page);
  return String(low === high ? low : document.activeElement?.id === "high" ? high : low);
}

/** One layer at a time, from all of them to the first or the last. @param {Page} page @param {number} by */
function stepLayer(page, by) {
  const { low, high } = page.state, all = low === 0 && high === page.layers - 1 && page.layers > 1;
  const at = all ? (by > 0 ? 0 : page.layers - 1) : Math.min(page.layers - 1, Math.max(0, (by > 0 ? low : high) + by));
  setLayers(page, at, at);
}

/** A grid of switches, one per layer and head, and one per row and column. @param {Page} page */
function buildHeads(page) {
  const { state, layers, nHeads } = page;
  const head = make("tr", {}, make("td", {}, ""));
  const set = (/** @type {number[]} */ which) => {
    if (state.knife) return toggleHeads(page, which.map((i) => `${Math.floor(i / nHeads)},${i % nHeads}`));
    const on = which.every((i) => state.heads[i]) ? 0 : 1;
    for (const i of which) state.heads[i] = on;
    refilter(page);
    headCounts(page);
  };
  const button = (/** @type {string} */ words, /** @type {string} */ label, /** @type {number[]} */ which) => {
    const made = make("button", { type: "button", "aria-label": label }, words);
    made.addEventListener("click", () => set(which));
    return made;
  };
  const columns = Array.from({ length: nHeads }, (_, h) => h), rows = Array.from({ length: layers }, (_, l) => l);
  for (const h of columns) head.append(make("th", { scope: "col" }, button(`H${h}`, `H${h}: head ${h} of every layer, on or off`, rows.map((l) => l * nHeads + h))));
  const body = [...rows].reverse().map((l) => {
    const cells = columns.map((h) => make("td", {}, Object.assign(button("", "", [l * nHeads + h]), { id: `head-${l}-${h}` })));
    return make("tr", {}, make("th", { scope: "row" }, button(`L${l}`, `L${l}: all heads of layer ${l}, on or off`, columns.map((h) => l * nHeads + h))), ...cells);
  });
  byId("heads").append(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

/** How many edges each head of the last panel has open. @param {Page} page */
function headCounts(page) {
  const { state, nHeads, layers, panels } = page, view = panels[panels.length - 1].view, counts = new Uint32Array(layers * nHeads);
  const { data } = panels[panels.length - 1], closed = new Set(data.closed.map(([l, h]) => l * nHeads + h));
  if (view) for (let i = 0; i < view.edges.n; i++) counts[view.edges.layer[i] * nHeads + view.edges.head[i]]++;
  for (let l = 0; l < layers; l++)
    for (let h = 0; h < nHeads; h++) {
      const button = byId(`head-${l}-${h}`), n = counts[l * nHeads + h];
      const gone = closed.has(l * nHeads + h);
      button.textContent = gone ? "–" : n > 999 ? `${Math.round(n / 1000)}k` : String(n);
      button.classList.toggle("closed", gone);
      const cut = state.cuts[panels.length - 1].has(`${l},${h}`);
      button.setAttribute("aria-pressed", String(state.heads[l * nHeads + h] === 1 && !cut));
      button.setAttribute("aria-label", gone ? `layer ${l} head ${h}, closed in ${data.title}` : `${button.textContent} edges in layer ${l} head ${h}${cut ? ", cut" : ""}`);
    }
}

/** @param {Page} page */
function buildButtons(page) {
  const { state } = page;
  /** @param {string} id @param {() => void} act */
  const on = (id, act) => byId(id).addEventListener("click", act);
  on("back", () => stepLayer(page, -1));
  on("forth", () => stepLayer(page, 1));
  on("every", () => setLayers(page, 0, page.layers - 1));
  byId("sink").hidden = page.data.kind === "addition";
  on("sink", () => {
    state.paleSink = !state.paleSink;
    byId("sink").setAttribute("aria-pressed", String(state.paleSink));
    refilter(page);
  });
  on("live", () => {
    state.liveChosen = true;
    setLive(page, !state.liveOnly);
    refilter(page);
  });
  on("clear", () => clearChoice(page));
  on("knife", () => {
    setKnife(page, !state.knife);
    remark(page);
  });
  on("cut", () => state.pinned && cutLine(page, state.pinned));
  on("cut-heads", () => {
    for (const head of headsOff(page)) state.cuts.forEach((cuts) => cuts.add(head));
    reload(page);
  });
  on("restore", () => {
    state.cuts.forEach((cuts) => cuts.clear());
    reload(page);
  });
  on("beside", () => {
    state.stackChosen = true;
    setStacked(!document.documentElement.classList.contains("stacked"));
    repaint(page);
  });
  on("export", () => saveSvg(page));
}

/** @param {Page} page */
function clearChoice(page) {
  page.state.through = page.state.pinned = page.state.hovered = null;
  refilter(page);
}

/** @param {Page} page */
function bindTheme(page) {
  const set = (/** @type {boolean} */ dark) => {
    page.state.dark = dark;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    byId("theme").setAttribute("aria-pressed", String(dark));
    overviews(page);
    repaint(page);
  };
  byId("theme").addEventListener("click", () => set(!page.state.dark));
  set(page.state.dark);
}
