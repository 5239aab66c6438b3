// @ts-check
/*
 * Where the views come from: circuits stored in the page, or models that the page runs itself.
 */

/**
 * @typedef {object} PanelData
 * @property {string} name @property {string} title @property {number} layers @property {number} heads
 * @property {number} least  smallest weight that counts as an edge here
 * @property {number[][]} closed  (layer, head) of heads that are closed @property {number[][]} neurons  [left, of] per layer; none without gates on them
 * @property {PackedCircuit | null} circuits @property {BertData | null} model
 */
/**
 * @typedef {object} PageData
 * @property {"addition" | "prompts" | "server"} kind
 * @property {PanelData[]} panels
 * @property {Record<string, string>} carries  "layer,head,query,key" or "layer,query,key" -> what that edge of the last panel's model carries
 * @property {string[]} places  what each position is, in words; may be empty
 * @property {number} digits  of each operand (addition) @property {string[]} vocabulary (addition)
 * @property {string} start  the sum shown first (addition)
 * @property {Record<string, string | number>} limits (server)
 */
/** @typedef {{prompt: number | string, cuts: Set<string>[]}} Question  cuts: per panel, "layer,head,query,key", or "layer,head" for a whole head */
/** @typedef {{views: View[], next?: [string, number][][], notes?: string[]}} Answer */
/** @typedef {{look: (question: Question) => Answer | Promise<Answer>, canCut: (panel: number) => boolean, prompts: string[]}} Source */

/** @param {PageData} data @returns {Source} */
function storedSource(data) {
  const stored = data.panels.map((panel) => circuitsOf(/** @type {PackedCircuit} */ (panel.circuits)));
  const titles = Array.from({ length: stored[0].n }, (_, i) => stored[0].at(i).tokens.map(shownToken).join(" ").slice(0, 80));
  return { look: ({ prompt }) => ({ views: stored.map((circuits) => circuits.at(Number(prompt))) }), canCut: () => false, prompts: titles };
}

/** The digits of a number, zero-padded. @param {number} x @param {number} n */
const digitsOf = (x, n) => String(x).padStart(n, "0");

/** What a sum looks like to the model. @param {PageData} data @param {number} index */
function sumTokens(data, index) {
  const top = 10 ** data.digits, slots = data.digits + 3;
  return [...digitsOf(Math.floor(index / top), data.digits), "+", ...digitsOf(index % top, data.digits), "=", ..."?".repeat(slots)];
}

/** @param {PageData} data @param {number} index */
function sumAnswer(data, index) {
  const top = 10 ** data.digits;
  return [...sumTokens(data, index).slice(0, 2 * data.digits + 2), ...digitsOf(Math.floor(index / top) + (index % top), data.digits + 3)];
}

/** The number of a sum written as `36 + 28`, or -1. @param {PageData} data @param {string} text */
function parseSum(data, text) {
  const parts = text.trim().match(/^(\d+)\s*\+\s*(\d+)$/), most = data.digits;
  if (!parts || parts[1].length > most || parts[2].length > most) return -1;
  return Number(parts[1]) * 10 ** most + Number(parts[2]);
}

/** @param {PageData} data @param {number} index */
const sumText = (data, index) => `${Math.floor(index / 10 ** data.digits)} + ${index % 10 ** data.digits}`;

/** Stored circuits where there are any and nothing is cut; else the model runs here. @param {PageData} data @returns {Source} */
function additionSource(data) {
  const panels = data.panels.map(({ circuits, model, closed }) => ({ stored: circuits && circuitsOf(circuits), bert: model && bertOf(model, closed) }));
  const outputs = Array.from({ length: data.digits + 3 }, (_, i) => 2 * data.digits + 2 + i);
  return {
    prompts: [],
    canCut: (i) => !!panels[i].bert,
    look({ prompt, cuts }) {
      const index = Number(prompt);
      return {
        views: panels.map(({ stored, bert }, i) => {
          if (stored && !(bert && cuts[i].size)) return stored.at(index);
          return computedView(data, /** @type {Bert} */ (bert), index, outputs, cuts[i]);
        }),
      };
    },
  };
}

/** @param {PageData} data @param {Bert} bert @param {number} index @param {number[]} outputs @param {Set<string>} cut @returns {View} */
function computedView(data, bert, index, outputs, cut) {
  const tokens = sumTokens(data, index), ids = tokens.map((token) => data.vocabulary.indexOf(token));
  const run = runBert(bert, ids, cut.size ? (l, h, q, k) => cut.has(`${l},${h},${q},${k}`) || cut.has(`${l},${h}`) : undefined);
  const visible = bert.data.layers * bert.data.heads * ids.length ** 2;
  return { tokens, answers: run.answers.map((id) => data.vocabulary[id]), outputs, visible, open: run.edges.n, edges: run.edges };
}
