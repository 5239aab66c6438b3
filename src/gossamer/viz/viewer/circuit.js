// @ts-check
/*
 * Circuits in the page: unpacking, which edges are live, which lie on a path, and which lines they make.
 * Pure functions on typed arrays; nothing here knows of the page.
 *
 * Edges are sorted by (layer, query, key, head), so that the heads of one line are neighbours.
 */

/** @typedef {{type: "u1" | "u2" | "u4" | "f4", data: string, scale?: number}} Packed  base64, little-endian */
/** @typedef {Uint8Array | Uint16Array | Uint32Array | Float32Array} Numbers */
/** @typedef {{layer: number, head: number, query: number, key: number, weight: number, contribution: number}} EdgeRow */
/**
 * @typedef {object} Edges
 * @property {number} n
 * @property {Numbers} layer @property {Numbers} head @property {Numbers} query @property {Numbers} key
 * @property {Float32Array} weight  softmax weight
 * @property {Float32Array} contribution  norm of what the edge adds to the residual stream
 */
/**
 * @typedef {object} View  one model on one prompt
 * @property {string[]} tokens @property {string[]} answers @property {number[]} outputs
 * @property {number} visible  edges that could be open @property {number} open  edges that are, stored or not
 * @property {Edges} edges
 */
/**
 * @typedef {object} PackedCircuit
 * @property {string[]} words  every token that occurs, once
 * @property {Packed} lengths  tokens per prompt @property {Packed} tokens @property {Packed} answers  indices of words
 * @property {number[][]} outputs  one list for all prompts, or one per prompt @property {Packed} visible
 * @property {Packed} open  open edges per prompt @property {Packed} counts  those that are stored here
 * @property {Packed} layer @property {Packed} head @property {Packed} query @property {Packed} key
 * @property {Packed} weight @property {Packed} contribution
 */
/** @typedef {{at: (index: number) => View, n: number}} Circuits */
/** @typedef {{row: number, position: number}} Stop  row r: the residual stream after r layers */
/**
 * @typedef {object} Filter
 * @property {number} threshold @property {number} low @property {number} high  layers, both included
 * @property {(layer: number, head: number) => boolean} headOn
 * @property {boolean} paleSink @property {boolean} liveOnly @property {Stop | null} through
 */
/**
 * @typedef {object} Lines  edges of one (layer, query, key) merged; weight is the strongest head's
 * @property {number} n
 * @property {Int32Array} first @property {Int32Array} last  range in the edges, both included
 * @property {Float32Array} weight @property {Uint8Array} live @property {number} edges  shown edges in all lines
 */

/** @param {Packed} packed @returns {Numbers} */
function unpack(packed) {
  const text = atob(packed.data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const kinds = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
  return new kinds[packed.type](bytes.buffer);
}

/** Quantised numbers as floats. @param {Packed} packed @returns {Float32Array} */
function unpackScaled(packed) {
  return Float32Array.from(unpack(packed), (x) => x * (packed.scale ?? 1));
}

/** @param {EdgeRow[]} rows in any order @returns {Edges} */
function edgesOf(rows) {
  rows.sort((a, b) => a.layer - b.layer || a.query - b.query || a.key - b.key || a.head - b.head);
  /** @param {keyof EdgeRow} name */
  const column = (name) => rows.map((row) => row[name]);
  return {
    n: rows.length,
    layer: Uint16Array.from(column("layer")), head: Uint16Array.from(column("head")),
    query: Uint32Array.from(column("query")), key: Uint32Array.from(column("key")),
    weight: Float32Array.from(column("weight")), contribution: Float32Array.from(column("contribution")),
  };
}

/** @param {PackedCircuit} packed @returns {Circuits} */
function circuitsOf(packed) {
  const lengths = unpack(packed.lengths), counts = unpack(packed.counts);
  const visible = unpack(packed.visible), open = unpack(packed.open);
  const tokens = unpack(packed.tokens), answers = unpack(packed.answers);
  const layer = unpack(packed.layer), head = unpack(packed.head), query = unpack(packed.query), key = unpack(packed.key);
  const weight = unpackScaled(packed.weight), contribution = unpackScaled(packed.contribution);
  const tokenStart = starts(lengths), edgeStart = starts(counts);
  /** @param {Numbers} indices @param {number} i */
  const text = (indices, i) => Array.from(indices.subarray(tokenStart[i], tokenStart[i + 1]), (w) => packed.words[w]);
  return {
    n: lengths.length,
    at(i) {
      const [from, to] = [edgeStart[i], edgeStart[i + 1]];
      const edges = {
        n: to - from, layer: layer.subarray(from, to), head: head.subarray(from, to),
        query: query.subarray(from, to), key: key.subarray(from, to),
        weight: weight.subarray(from, to), contribution: contribution.subarray(from, to),
      };
      return { tokens: text(tokens, i), answers: text(answers, i), outputs: packed.outputs[i % packed.outputs.length], visible: visible[i], open: open[i], edges };
    },
  };
}

/** Where each run begins, and where the last one ends. @param {Numbers} sizes */
function starts(sizes) {
  const found = new Uint32Array(sizes.length + 1);
  for (let i = 0; i < sizes.length; i++) found[i + 1] = found[i] + sizes[i];
  return found;
}

/**
 * Which edges lie on a path into `from`, seen from above: layers downwards, a read position matters below.
 * @param {Edges} edges @param {Iterable<number>} from positions @param {number} top only edges of layers below `top`
 * @param {Uint8Array} [among] only these edges @returns {Uint8Array}
 */
function into(edges, from, top, among) {
  const mask = new Uint8Array(edges.n), matters = new Set(from);
  let pending = /** @type {number[]} */ ([]), layer = -1;
  for (let i = edges.n - 1; i >= 0; i--) {
    if (edges.layer[i] !== layer) {
      for (const key of pending) matters.add(key);
      pending = [];
      layer = edges.layer[i];
    }
    if (layer >= top || (among && !among[i]) || !matters.has(edges.query[i])) continue;
    mask[i] = 1;
    pending.push(edges.key[i]);
  }
  return mask;
}

/**
 * Which edges lie on a path out of a position, upwards from row `bottom`.
 * @param {Edges} edges @param {number} position @param {number} bottom @param {Uint8Array} among @returns {Uint8Array}
 */
function outOf(edges, position, bottom, among) {
  const mask = new Uint8Array(edges.n), reached = new Set([position]);
  let pending = /** @type {number[]} */ ([]), layer = -1;
  for (let i = 0; i < edges.n; i++) {
    if (edges.layer[i] !== layer) {
      for (const query of pending) reached.add(query);
      pending = [];
      layer = edges.layer[i];
    }
    if (layer < bottom || !among[i] || !reached.has(edges.key[i])) continue;
    mask[i] = 1;
    pending.push(edges.query[i]);
  }
  return mask;
}

/** Whether position 0 is read from elsewhere, where heads put the weight that they have no use for. @param {number} key @param {number} query */
const isSink = (key, query) => key === 0 && query > 0;

/** Which edges reach the answer, whatever is hidden. @param {View} view @returns {Uint8Array} */
function liveMask(view) {
  return into(view.edges, view.outputs, Infinity);
}

/**
 * Which edges pass the filter. Paths run over edges that the layer range hides, but not over closed heads.
 * @param {View} view @param {Filter} filter @param {Uint8Array} live @returns {Uint8Array}
 */
function shownMask(view, filter, live) {
  const { edges } = view, mask = new Uint8Array(edges.n);
  for (let i = 0; i < edges.n; i++)
    if (edges.weight[i] >= filter.threshold && (!filter.liveOnly || live[i]) && filter.headOn(edges.layer[i], edges.head[i])) mask[i] = 1;
  if (filter.through) {
    const { row, position } = filter.through;
    const below = into(edges, [position], row, mask), above = outOf(edges, position, row, mask);
    for (let i = 0; i < edges.n; i++) mask[i] = below[i] | above[i];
  }
  for (let i = 0; i < edges.n; i++) if (edges.layer[i] < filter.low || edges.layer[i] > filter.high) mask[i] = 0;
  return mask;
}

/** @param {Edges} edges @param {Uint8Array} shown @param {Uint8Array} live @returns {Lines} */
function linesOf(edges, shown, live) {
  const first = new Int32Array(edges.n), last = new Int32Array(edges.n), weight = new Float32Array(edges.n), alive = new Uint8Array(edges.n);
  let n = 0, count = 0;
  for (let i = 0; i < edges.n; i++) {
    if (!shown[i]) continue;
    count++;
    const previous = n ? first[n - 1] : -1;
    const same = n && edges.layer[i] === edges.layer[previous] && edges.query[i] === edges.query[previous] && edges.key[i] === edges.key[previous];
    if (!same) first[n++] = i;
    last[n - 1] = i;
    weight[n - 1] = Math.max(weight[n - 1], edges.weight[i]);
    alive[n - 1] = live[i];
  }
  return { n, first: first.slice(0, n), last: last.slice(0, n), weight: weight.slice(0, n), live: alive.slice(0, n), edges: count };
}
