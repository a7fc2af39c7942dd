// The statistics as functions of a record of sums: analyzer/statistics.py, formula by formula.
// A browser test holds the two tables against each other. Undefined is null.
const Statistics = (() => {
  const { sqrt, max, min } = Math;
  /** Whether something can be measured against it: neither zero nor beyond fp64. */
  const divides = (value) => value > 0 && value < Infinity;
  const ofElements = (formula) => (s) => (s.numeric ? formula(s) : null);

  /**
   * (Σd² − (‖b‖ − ‖a‖)²) / (2‖a‖‖b‖): keeps its digits where 1 − Σab / (‖a‖‖b‖) is noise. Null where a
   * norm is zero or beyond fp64.
   */
  function distance(aa, bb, dd) {
    if (!(aa > 0 && bb > 0)) return null;
    const [a, b] = [sqrt(aa), sqrt(bb)];
    const apart = (dd - (b - a) ** 2) / a / (2 * b); // no overflow between
    return Number.isFinite(apart) ? min(max(apart, 0), 2) : null;
  }

  function cosine(s) {
    const apart = distance(s.sum_aa, s.sum_bb, s.sum_dd);
    return apart === null ? null : 1 - apart;
  }

  /** The norm of d that rounding alone would leave. */
  const floor = (s) => sqrt(s.sum_ulp_sq / 12);

  /** ‖d‖ over what rounding alone would leave; null where that is nothing or beyond fp64. */
  function changeToRounding(s) {
    const its = floor(s);
    return divides(its) ? sqrt(s.sum_dd) / its : null;
  }

  const FORMULAS = {
    numel: (s) => s.numel,
    norm_a: ofElements((s) => sqrt(s.sum_aa)),
    norm_b: ofElements((s) => sqrt(s.sum_bb)),
    norm_ratio: (s) => (divides(s.sum_aa) ? sqrt(s.sum_bb) / sqrt(s.sum_aa) : null),
    cosine_distance: (s) => distance(s.sum_aa, s.sum_bb, s.sum_dd),
    cosine,
    norm_delta: ofElements((s) => sqrt(s.sum_dd)),
    relative_change: (s) => (divides(s.sum_aa) ? sqrt(s.sum_dd) / sqrt(s.sum_aa) : null),
    rms_delta: ofElements((s) => sqrt(s.sum_dd / s.numeric)),
    mean_abs_delta: ofElements((s) => s.sum_abs_d / s.numeric),
    max_abs_delta: ofElements((s) => s.max_abs_d),
    mean_a: ofElements((s) => s.sum_a / s.numeric),
    mean_b: ofElements((s) => s.sum_b / s.numeric),
    std_a: ofElements((s) => sqrt(s.m2_a / s.numeric)),
    std_b: ofElements((s) => sqrt(s.m2_b / s.numeric)),
    changed_fraction: (s) => (s.n ? s.changed / s.n : null),
    sign_flip_fraction: ofElements((s) => s.sign_flips / s.numeric),
    nonfinite_a: (s) => s.nonfinite_a,
    nonfinite_b: (s) => s.nonfinite_b,
    rounding_floor: ofElements(floor),
    change_to_rounding: ofElements(changeToRounding),
    energy_share: (s, total) => (s.numeric && divides(total.sum_dd) ? s.sum_dd / total.sum_dd : null),
  };

  /** One statistic of a record; `total` is the whole scan's. A sum that overflowed gives null. */
  function evaluate(name, record, total) {
    const value = FORMULAS[name](record, total);
    return Number.isFinite(value) ? value : null;
  }

  return { evaluate, distance };
})();
