// What a merge will be, before it is made: analyzer/prediction/closed_form.py for weighted sums, where
// m = a + α·d with one alpha a key. Then Σm² = Σa² + α²·Σd² + 2α·Σa·d, Σ(m − a)² = α²·Σd² and
// Σ(m − b)² = (α − 1)²·Σd². They add over keys, and all that is predicted of a group follows from their totals.
const ClosedForm = (() => {
  const LEAST_SURVIVING = 0.5; // below it, a warning
  const SHORT_NAMES = {
    F64: 'fp64', F32: 'fp32', F16: 'fp16', BF16: 'bf16', F8_E4M3: 'fp8_e4m3', F8_E5M2: 'fp8_e5m2',
  };
  // What adds over keys; and how many numbers that are of each.
  const [A, B, M, FROM_A, FROM_B, ENERGY, SURVIVED, WIDTH] = [0, 1, 2, 3, 4, 5, 6, 7];

  /**
   * The merged model by alphas by row (a Float64Array): as a `whole`, by `groups(axis)`, and the `warning()`
   * where rounding takes most of the step away. `dtype` is the output's, as on the command line. `isIn`: the
   * rows that are asked for, as an array of 0 and 1; without it those that count.
   *
   * A prediction is { norm, distance_a, distance_b, cosine_a, cosine_b, cosine_distance_a, cosine_distance_b,
   * survives, keys }; null is undefined. Of the step's energy `survives` is the share that rounding leaves;
   * null, too, where the page does not hold what tells it, which `note` says in a sentence.
   */
  function outlook(data, alphas, { dtype = 'keep', isIn } = {}) {
    const written = Survival.DTYPES[dtype] ?? '';
    const rows = isIn ? data.all.filter((row) => isIn[row] && data.sums.numeric[row]) : measured(data);
    const seen = see(data, rows, alphas, written);
    const whole = add(seen, rows, () => 0, 1)[0];
    return {
      whole: derive(whole),
      groups: (axis) => groupsOf(data, rows, seen, axis, alphas),
      warning: () => warningOf(data, rows, seen, whole, alphas, written),
      note: Survival.of(data).isKnown ? '' : (
        'This scan has too many keys for its page to hold what rounding leaves: '
        + 'mergescope merge --dry-run --scan says it.'
      ),
    };
  }

  const rowsOf = new WeakMap();

  /** The rows that count and were measured as numbers. */
  function measured(data) {
    if (!rowsOf.has(data)) rowsOf.set(data, data.counted.filter((row) => data.sums.numeric[row]));
    return rowsOf.get(data);
  }

  /** What a merge makes of each of the rows, one after the other: the numbers that add, NaN for unknown. */
  function see(data, rows, alphas, written) {
    const { sum_aa, sum_bb, sum_dd } = data.sums;
    const { share } = Survival.of(data);
    const seen = new Float64Array(rows.length * WIDTH);
    rows.forEach((row, place) => {
      const [aa, bb, dd, k, at] = [sum_aa[row], sum_bb[row], sum_dd[row], alphas[row], place * WIDTH];
      const product = (bb - aa - dd) / 2; // Σa·d by the law of cosines
      if (!(Number.isFinite(aa) && Number.isFinite(dd) && Number.isFinite(product))) {
        seen[at + M] = NaN;
        [seen[at + ENERGY], seen[at + SURVIVED]] = k ? [Infinity, NaN] : [0, 0];
        return;
      }
      const energy = k * k * dd;
      seen[at + A] = aa;
      seen[at + B] = bb;
      seen[at + M] = Math.max(addThree(aa, energy, 2 * k * product), 0);
      seen[at + FROM_A] = energy;
      seen[at + FROM_B] = (k - 1) * (k - 1) * dd;
      if (!(energy > 0)) return;
      seen[at + ENERGY] = energy;
      seen[at + SURVIVED] = Number.isFinite(energy) ? energy * (share(row, k, written) ?? NaN) : NaN;
    });
    return seen;
  }

  /** x + y + z with what rounding drops between. */
  function addThree(x, y, z) {
    const running = Sums.accumulator();
    running.add(x);
    running.add(y);
    running.add(z);
    return running.value();
  }

  /** The totals of `count` groups; `groupOf(row)` is the group's number. Sums carry what rounding drops. */
  function add(seen, rows, groupOf, count) {
    const [sums, lost] = [new Float64Array(count * WIDTH), new Float64Array(count * WIDTH)];
    const totals = Array.from({ length: count }, () => ({ keys: 0, unknown: 0, unsure: 0 }));
    rows.forEach((row, place) => {
      const group = groupOf(row);
      totals[group].keys += 1;
      totals[group].unknown += Number.isNaN(seen[place * WIDTH + M]);
      totals[group].unsure += Number.isNaN(seen[place * WIDTH + SURVIVED]);
      for (let field = 0; field < WIDTH; field += 1) {
        const [at, value] = [group * WIDTH + field, seen[place * WIDTH + field]];
        const next = sums[at] + value;
        lost[at] += Math.abs(sums[at]) >= Math.abs(value) ? sums[at] - next + value : value - next + sums[at];
        sums[at] = next;
      }
    });
    return totals.map((total, group) => {
      const value = (field) => {
        const [sum, rest] = [sums[group * WIDTH + field], lost[group * WIDTH + field]];
        return Number.isFinite(rest) ? sum + rest : sum;
      };
      return { ...total, values: Array.from({ length: WIDTH }, (_, field) => value(field)) };
    });
  }

  /** What follows from the totals; undefined if one of the squared lengths is not known. */
  function derive(total) {
    const { keys, unknown, values: [a, b, m, fromA, fromB] } = total;
    const isKnown = keys > 0 && !unknown;
    const [awayA, awayB] = isKnown ? [Statistics.distance(a, m, fromA), Statistics.distance(b, m, fromB)] : [null, null];
    const root = (squares) => (isKnown && Number.isFinite(squares) ? Math.sqrt(squares) : null);
    const ratio = (squares, others) => (
      others > 0 && Number.isFinite(others) && root(squares) !== null ? root(squares) / Math.sqrt(others) : null
    );
    return {
      norm: root(m),
      distance_a: ratio(fromA, a),
      distance_b: ratio(fromB, b),
      cosine_a: awayA === null ? null : 1 - awayA,
      cosine_b: awayB === null ? null : 1 - awayB,
      cosine_distance_a: awayA,
      cosine_distance_b: awayB,
      survives: isKnown ? survives(total) : null,
      keys,
    };
  }

  /** The share of the steps of all keys together; null without a step, or if it is not known of one. */
  function survives({ unsure, values }) {
    return !unsure && values[ENERGY] > 0 ? Math.min(values[SURVIVED] / values[ENERGY], 1) : null;
  }

  /** The groups of an axis of labels, in the scan's order: { name, prediction, alphas: [least, largest] }. */
  function groupsOf({ axes }, rows, seen, axis, alphas) {
    const { names, codes } = axes[axis];
    const ranges = names.map(() => [Infinity, -Infinity]);
    for (const row of rows) {
      const range = ranges[codes[row]];
      range[0] = Math.min(range[0], alphas[row]);
      range[1] = Math.max(range[1], alphas[row]);
    }
    return add(seen, rows, (row) => codes[row], names.length)
      .map((total, code) => ({ name: names[code], prediction: derive(total), alphas: ranges[code] }))
      .filter(({ prediction }) => prediction.keys);
  }

  /** One sentence if less than half of the step survives rounding; null if there is no need of it. */
  function warningOf(data, rows, seen, whole, alphas, written) {
    const share = survives(whole);
    if (share === null || share >= LEAST_SURVIVING) return null;
    const dtypes = new Map();
    rows.forEach((row, place) => {
      const [energy, survived] = [seen[place * WIDTH + ENERGY], seen[place * WIDTH + SURVIVED]];
      if (!(energy > 0)) return;
      const name = written || data.dtype('a', row);
      const its = dtypes.get(name) ?? { lost: 0, low: Infinity, high: -Infinity };
      its.lost += energy - survived;
      [its.low, its.high] = [Math.min(its.low, alphas[row]), Math.max(its.high, alphas[row])];
      dtypes.set(name, its);
    });
    const [worst, { low, high }] = [...dtypes].reduce((one, other) => (other[1].lost > one[1].lost ? other : one));
    const [from, to] = [low, high].map((alpha) => String(Number(alpha.toPrecision(3))));
    const name = SHORT_NAMES[worst] ?? worst;
    const left = share >= 0.01 || share === 0 ? `${(100 * share).toFixed(0)} %` : 'less than 1 %';
    const wider = worst === 'F32' || worst === 'F64' ? '' : 'write --dtype fp32, or ';
    return `${name.startsWith('f') ? 'an' : 'a'} ${name} save at alpha ${from === to ? from : `${from} … ${to}`} `
      + `leaves ${left} of the step above rounding: ${wider}take a larger alpha`;
  }

  return { outlook };
})();
