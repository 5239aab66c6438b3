// @ts-check
/*
 * How much of a crowded window is drawn. Few lines are all drawn. Of many, each layer's strongest, until they cover
 * COVER of its band: what is drawn beyond that is a wall. The others are mist, which only says how many there are. A
 * line that leaves the window is a short stroke at the end that is inside, flatter the further it goes; one that has
 * neither end inside would cross everything and say nothing, so it is counted and not drawn.
 */

/** Up to here every line is drawn; a whole base model on a sum has fewer. */
const FEW = 1200;
/** Covered share of a layer's band that can still be read: assumed, by looking at 60 to 1,024 tokens. */
const COVER = 0.4;
/** Lines that are drawn at all: strong ones, and pale ones; fewer while the window moves (measured, docs/how-to/look.md). */
const MOST_DRAWN = 12000, MOST_MIST = 3000, MOST_MOVING = 2500;

/**
 * @typedef {object} Share  indices of lines
 * @property {number[]} drawn  the weakest first, so that the strong lie on top @property {number[]} mist
 * @property {number[]} sink  faded: they read position 0 from elsewhere, and count in none of the numbers below
 * @property {number} within  lines with both ends in the window @property {number} leaving  with one
 * @property {number} passing  with neither, and the window between them
 * @property {number} full  drawn lines with both ends in the window @property {number} strokes  drawn ones with one
 */

/** @param {Grid} grid @param {number} x in the window */
const isInside = (grid, x) => x > grid.gutter - 1 && x < grid.width;

/** @typedef {{line: Int32Array, key: Int32Array, query: Int32Array}} Ranks  lines from the strongest live one down, then those off the path to the answer */

const LEVELS = 1024;

/** Rank lines once per filter, by counting, so that a window that moves need not sort. @param {View} view @param {Lines} lines @returns {Ranks} */
function ranksOf(view, lines) {
  const level = new Uint16Array(lines.n), start = new Int32Array(2 * LEVELS + 1), line = new Int32Array(lines.n);
  for (let i = 0; i < lines.n; i++) {
    level[i] = (lines.live[i] ? 0 : LEVELS) + LEVELS - 1 - Math.min(LEVELS - 1, Math.floor(lines.weight[i] * LEVELS));
    start[level[i] + 1]++;
  }
  for (let k = 0; k < 2 * LEVELS; k++) start[k + 1] += start[k];
  for (let i = 0; i < lines.n; i++) line[start[level[i]]++] = i;
  return { line, key: line.map((i) => view.edges.key[lines.first[i]]), query: line.map((i) => view.edges.query[lines.first[i]]) };
}

/**
 * Sort the lines of a window by what becomes of them.
 * @param {Grid} grid @param {View} view @param {Lines} lines @param {Ranks} ranks @param {number} left
 * @param {number} most  lines to draw; 0: as many as can be read @param {boolean} paleSink @param {boolean} moving @returns {Share}
 */
function shareOf(grid, view, lines, ranks, left, most, paleSink, moving) {
  /** @type {Share} */
  const share = { drawn: [], mist: [], sink: [], within: 0, leaving: 0, passing: 0, full: 0, strokes: 0 };
  const inside = insideOf(grid, ranks, left, share, paleSink), { layer } = view.edges;
  const all = most > 0 || share.within + share.leaving <= FEW, band = all ? Infinity : COVER * (grid.width - grid.gutter) * grid.rowPitch;
  const room = new Float64Array(grid.layers).fill(band), limit = Math.min(moving ? MOST_MOVING : MOST_DRAWN, most || MOST_DRAWN);
  for (const r of inside) {
    const i = ranks.line[r], l = layer[lines.first[i]], { x1, y1, x2, y2, whole } = strokeEnds(grid, view, lines, i, left);
    if (share.drawn.length >= limit || room[l] <= 0) {
      if (whole) share.mist.push(i);
      continue;
    }
    room[l] -= Math.hypot(x2 - x1, y2 - y1) * thickness(lines.weight[i]);
    share.drawn.push(i);
    if (whole) share.full++;
    else share.strokes++;
  }
  share.drawn.reverse();
  share.mist = moving ? [] : thinned(share.mist, MOST_MIST);
  share.sink = moving ? [] : thinned(share.sink, MOST_MIST);
  return share;
}

/** The ranks with an end in the window; counts into `share`, and puts faded lines there. @param {Grid} grid @param {Ranks} ranks @param {number} left @param {Share} share @param {boolean} paleSink @returns {number[]} */
function insideOf(grid, ranks, left, share, paleSink) {
  const { key, query } = ranks, found = [], first = xOf(grid, 0);
  const low = Math.ceil((grid.gutter - 1 + left - first) / grid.pitch), high = Math.floor((grid.width + left - first) / grid.pitch); // columns
  for (let r = 0; r < key.length; r++) {
    const a = key[r], b = query[r], read = a >= low && a <= high, reads = b >= low && b <= high;
    if (paleSink && isSink(a, b)) {
      if (read && reads) share.sink.push(ranks.line[r]);
      continue;
    }
    if (read || reads) found.push(r);
    if (read && reads) share.within++;
    else if (read || reads) share.leaving++;
    else if ((a < low && b > high) || (b < low && a > high)) share.passing++;
  }
  return found;
}

/** Evenly chosen items, `most` of them. @param {number[]} items @param {number} most */
function thinned(items, most) {
  return items.length <= most ? items : Array.from({ length: most }, (_, i) => items[Math.floor((i * items.length) / most)]);
}

/**
 * What of a line is drawn: all of it, or a stroke at the end that the window shows.
 * @param {Grid} grid @param {View} view @param {Lines} lines @param {number} i @param {number} left
 */
function strokeEnds(grid, view, lines, i, left) {
  const { x1, y1, x2, y2 } = endsOf(grid, view, lines, i, left), read = isInside(grid, x1), reads = isInside(grid, x2);
  if (read === reads) return { x1, y1, x2, y2, whole: true };
  const [x, y, far] = read ? [x1, y1, x2] : [x2, y2, x1];
  // The further it goes, the longer and flatter the stroke: 1 at the next column, 2 at a thousand.
  const reach = 1 + Math.min(1, Math.log10(1 + Math.abs(far - x) / grid.pitch) / 3);
  const dx = Math.sign(far - x) * Math.max(7, 0.55 * grid.pitch) * reach, dy = (Math.sign(y2 - y1) * (read ? 1 : -1) * 0.5 * grid.rowPitch) / reach;
  return read ? { x1, y1, x2: x + dx, y2: y + dy, whole: false } : { x1: x + dx, y1: y + dy, x2, y2, whole: false };
}

/** What became of the lines, in words; nothing where all are drawn whole. @param {Share} share */
function shareWords(share) {
  const number = (/** @type {number} */ x) => x.toLocaleString("en"), { full, within, strokes, leaving, passing } = share, parts = [];
  if (!leaving && !passing && full === within) return "";
  parts.push(full === within ? `In this window: all ${number(within)} lines` : `In this window: ${number(full)} of ${number(within)} lines, the strongest${share.mist.length ? ", the others as a pale ground" : ""}`);
  if (leaving) parts.push(`${number(strokes)} of ${number(leaving)} that leave it, as short strokes`);
  if (passing) parts.push(`${number(passing)} that pass behind are not drawn`);
  return parts.join("; ");
}
