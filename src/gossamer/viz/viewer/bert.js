// @ts-check
/*
 * The forward pass of a small BERT for masked tokens, with gated attention, for one prompt.
 *
 *     s = q k^T / sqrt(D)        z = 1[s + c > 0]        out = (softmax(s) * z * keep) v
 *
 * Post-norm layers, learned positions, erf GELU: the model of the addition task and nothing more. Sums run in
 * float64 over float32 weights, so a gate whose s + c is within rounding of 0 may fall the other way than in torch.
 */

/** @typedef {{name: string, shape: number[]}} TensorNote */
/**
 * @typedef {object} BertData
 * @property {number} width
 * @property {number} layers
 * @property {number} heads
 * @property {number} epsilon  of the layer norms
 * @property {number | null} bias  c in nats; null: every gate is open
 * @property {string} reads  what a gate adds c to: the logit, or the log of the attention weight
 * @property {TensorNote[]} tensors  in the order in which they lie in `weights`
 * @property {Packed} weights
 */
/** @typedef {{data: BertData, closed: number[][], of: (name: string) => Float32Array}} Bert  closed: (layer, head) whose edges are all closed */
/** @typedef {(layer: number, head: number, query: number, key: number) => boolean} IsCut */

/** @param {BertData} data @param {number[][]} closed  (layer, head) @returns {Bert} */
function bertOf(data, closed) {
  const all = /** @type {Float32Array} */ (unpack(data.weights));
  /** @type {Map<string, Float32Array>} */
  const found = new Map();
  let at = 0;
  for (const { name, shape } of data.tensors) {
    const size = shape.reduce((a, b) => a * b, 1);
    found.set(name, all.subarray(at, at + size));
    at += size;
  }
  return { data, closed, of: (name) => /** @type {Float32Array} */ (found.get(name)) };
}

/**
 * y = x w^T + b for rows of x.
 * @param {Float64Array} x (T, inner) @param {Float32Array} w (outer, inner) @param {Float32Array} b (outer,)
 * @returns {Float64Array} (T, outer)
 */
function linear(x, w, b) {
  const outer = b.length, inner = w.length / outer, rows = x.length / inner;
  const y = new Float64Array(rows * outer);
  for (let t = 0; t < rows; t++) {
    for (let o = 0; o < outer; o++) {
      let sum = b[o];
      for (let i = 0, xi = t * inner, wi = o * inner; i < inner; i++) sum += x[xi + i] * w[wi + i];
      y[t * outer + o] = sum;
    }
  }
  return y;
}

/** @param {Float64Array} x (T, width) in place @param {Float32Array} scale @param {Float32Array} shift @param {number} epsilon */
function layerNorm(x, scale, shift, epsilon) {
  const width = scale.length;
  for (let start = 0; start < x.length; start += width) {
    let mean = 0, variance = 0;
    for (let i = 0; i < width; i++) mean += x[start + i];
    mean /= width;
    for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2;
    const factor = 1 / Math.sqrt(variance / width + epsilon);
    for (let i = 0; i < width; i++) x[start + i] = (x[start + i] - mean) * factor * scale[i] + shift[i];
  }
  return x;
}

/** The error function: its Maclaurin series below 3, where it converges to double precision; 1 - 2e-5 and up above. @param {number} x */
function erf(x) {
  const a = Math.abs(x);
  if (a > 5.9) return Math.sign(x);
  if (a > 3) {
    // Continued fraction of erfc by backward recurrence; 40 terms are enough from 3 on.
    let tail = a;
    for (let k = 40; k > 0; k--) tail = a + k / 2 / tail;
    return Math.sign(x) * (1 - Math.exp(-a * a) / (tail * Math.sqrt(Math.PI)));
  }
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 100; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

/** @param {Float64Array} x in place */
function gelu(x) {
  for (let i = 0; i < x.length; i++) x[i] = 0.5 * x[i] * (1 + erf(x[i] / Math.SQRT2));
  return x;
}

/** @param {Float64Array} x in place @param {Float64Array} y */
function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
  return x;
}

/**
 * Run the model on one prompt.
 * @param {Bert} bert @param {number[]} ids @param {IsCut} [isCut] edges that are taken out
 * @returns {{answers: number[], edges: Edges}} the top token per position, and the edges whose gates are open
 */
function runBert(bert, ids, isCut) {
  const { of, data } = bert, T = ids.length, { width, epsilon } = data;
  const words = of("words"), places = of("places"), kinds = of("kinds");
  /** @type {Float64Array} */
  let x = new Float64Array(T * width);
  for (let t = 0; t < T; t++)
    for (let i = 0; i < width; i++) x[t * width + i] = words[ids[t] * width + i] + places[t * width + i] + kinds[i];
  layerNorm(x, of("norm.scale"), of("norm.shift"), epsilon);
  /** @type {EdgeRow[]} */
  const found = [];
  for (let layer = 0; layer < data.layers; layer++) {
    /** @param {string} name @param {Float64Array} input */
    const dense = (name, input) => linear(input, of(`${layer}.${name}.weight`), of(`${layer}.${name}.bias`));
    /** @param {string} name @param {Float64Array} input */
    const norm = (name, input) => layerNorm(input, of(`${layer}.${name}.scale`), of(`${layer}.${name}.shift`), epsilon);
    const mixed = attend(bert, layer, T, dense("q", x), dense("k", x), dense("v", x), of(`${layer}.o.weight`), found, isCut);
    x = norm("norm1", add(dense("o", mixed), x));
    x = norm("norm2", add(dense("down", gelu(dense("up", x))), x));
  }
  x = layerNorm(gelu(linear(x, of("head.weight"), of("head.bias"))), of("head.norm.scale"), of("head.norm.shift"), epsilon);
  const logits = linear(x, words, of("words.bias")), size = logits.length / T;
  const answers = ids.map((_, t) => {
    const row = logits.subarray(t * size, (t + 1) * size);
    return row.indexOf(Math.max(...row));
  });
  return { answers, edges: edgesOf(found) };
}

/**
 * Length of what each value vector adds to the residual stream through its head's slice of the output projection.
 * @param {number} T @param {number} width @param {number} heads
 * @param {Float64Array} v (T, width) @param {Float32Array} o (width, width) @returns {Float64Array} (T, heads)
 */
function writtenLengths(T, width, heads, v, o) {
  const D = width / heads, lengths = new Float64Array(T * heads);
  for (let key = 0; key < T; key++) {
    for (let head = 0; head < heads; head++) {
      let squares = 0;
      for (let c = 0; c < width; c++) {
        let sum = 0;
        for (let i = 0, a = key * width + head * D, b = c * width + head * D; i < D; i++) sum += v[a + i] * o[b + i];
        squares += sum ** 2;
      }
      lengths[key * heads + head] = Math.sqrt(squares);
    }
  }
  return lengths;
}

/**
 * Gated attention of one layer; open edges are appended to `found`.
 * @param {Bert} bert @param {number} layer @param {number} T
 * @param {Float64Array} q @param {Float64Array} k @param {Float64Array} v (T, width)
 * @param {Float32Array} o  output projection, (width, width)
 * @param {EdgeRow[]} found @param {IsCut} [isCut] @returns {Float64Array} (T, width)
 */
function attend({ data, closed }, layer, T, q, k, v, o, found, isCut) {
  const { width, heads } = data, D = width / heads, bias = data.bias === null ? Infinity : data.bias;
  const out = new Float64Array(T * width), s = new Float64Array(T), p = new Float64Array(T);
  const lengths = writtenLengths(T, width, heads, v, o);
  for (let query = 0; query < T; query++) {
    for (let head = 0; head < heads; head++) {
      if (closed.some(([l, h]) => l === layer && h === head)) continue;
      let top = -Infinity, total = 0;
      for (let key = 0; key < T; key++) {
        let dot = 0;
        for (let i = 0, a = query * width + head * D, b = key * width + head * D; i < D; i++) dot += q[a + i] * k[b + i];
        s[key] = dot / Math.sqrt(D);
        top = Math.max(top, s[key]);
      }
      for (let key = 0; key < T; key++) total += p[key] = Math.exp(s[key] - top);
      for (let key = 0; key < T; key++) {
        const read = data.reads === "weight" ? s[key] - top - Math.log(total) : s[key];
        if (!(read + bias > 0) || (isCut && isCut(layer, head, query, key))) continue;
        const weight = p[key] / total;
        for (let i = 0, a = query * width + head * D, b = key * width + head * D; i < D; i++) out[a + i] += weight * v[b + i];
        found.push({ layer, head, query, key, weight, contribution: weight * lengths[key * heads + head] });
      }
    }
  }
  return out;
}
