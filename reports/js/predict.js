// What a merge would be, before it is made: closed forms of the sums and of one alpha per key.
// With m = a + α·d for every element of a key, and d = b − a:
//   Σm² = (1 − α)·Σa² + α·Σb² − α·(1 − α)·Σd²     Σ(m − a)² = α²·Σd²     Σ(m − b)² = (1 − α)²·Σd²
const Predict = (() => {
  /**
   * The merged model as a whole: its norm, and its distance and cosine to A and to B. `entries` are
   * [selector, alpha]; alphas start at 0 and later entries win. Over all counted keys, and those that
   * a selector names beside them.
   */
  function predict(data, select, entries) {
    const alphas = new Float64Array(data.size);
    const enters = Uint8Array.from(data.isCounted);
    for (const [selector, alpha] of entries) {
      for (const row of select(selector)) {
        alphas[row] = alpha;
        enters[row] = 1;
      }
    }
    return whole(data.sums, data.all.filter((row) => enters[row]), alphas);
  }

  function whole({ sum_aa, sum_bb, sum_dd }, rows, alphas) {
    const [aa, bb, mm, toA, toB] = Array.from({ length: 5 }, Sums.accumulator);
    for (const row of rows) {
      const [alpha, kept] = [alphas[row], 1 - alphas[row]];
      aa.add(sum_aa[row]);
      bb.add(sum_bb[row]);
      mm.add(kept * sum_aa[row] + alpha * sum_bb[row] - alpha * kept * sum_dd[row]);
      toA.add(alpha * alpha * sum_dd[row]);
      toB.add(kept * kept * sum_dd[row]);
    }
    const norm = Math.sqrt(Math.max(mm.value(), 0));
    return {
      norm: Number.isFinite(norm) ? norm : null,
      distance_a: ratio(toA.value(), aa.value()),
      distance_b: ratio(toB.value(), bb.value()),
      cosine_a: cosine(aa.value(), mm.value(), toA.value()),
      cosine_b: cosine(bb.value(), mm.value(), toB.value()),
    };
  }

  function ratio(squares, others) {
    const value = Math.sqrt(squares) / Math.sqrt(others);
    return others > 0 && Number.isFinite(value) ? value : null;
  }

  function cosine(squares, others, apart) {
    const distance = Statistics.distance(squares, others, apart);
    return distance === null ? null : 1 - distance;
  }

  return { predict };
})();
