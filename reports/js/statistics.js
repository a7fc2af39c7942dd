// The statistics as functions of a record: analyzer/statistics.py, formula by formula.
// A browser test holds the two tables against each other. Undefined is null.
const Statistics = (() => {
  const { sqrt, max, min, acos, PI } = Math;
  const TOP_SHARE = 0.01; // of the elements, for top_energy_share
  /** Whether something can be measured against it: neither zero nor beyond fp64. */
  const divides = (value) => value > 0 && value < Infinity;
  const clamp = (value, low, high) => min(max(value, low), high);
  const ofElements = (formula) => (s) => (s.numeric ? formula(s) : null);

  /**
   * (Σd² − (‖b‖ − ‖a‖)²) / (2‖a‖‖b‖): keeps its digits where 1 − Σab / (‖a‖‖b‖) is noise. Null where a
   * norm is zero or beyond fp64.
   */
  function distance(aa, bb, dd) {
    if (!(aa > 0 && bb > 0)) return null;
    const [a, b] = [sqrt(aa), sqrt(bb)];
    const difference = (bb - aa) / (a + b);
    const apart = (dd - difference ** 2) / a / (2 * b); // no overflow between
    return Number.isFinite(apart) ? clamp(apart, 0, 2) : null;
  }

  function cosine(aa, bb, dd) {
    const apart = distance(aa, bb, dd);
    return apart === null ? null : 1 - apart;
  }

  /** The norm of d that rounding alone would leave. */
  const floor = (s) => sqrt(s.sum_ulp_sq / 12);

  /** ‖d‖ over what rounding alone would leave; null where that is nothing or beyond fp64. */
  function changeToRounding(s) {
    const its = floor(s);
    return divides(its) ? sqrt(s.sum_dd) / its : null;
  }

  /** The share of Σd² that a change of length explains; null where nothing changed. */
  function radialShare({ sum_aa: aa, sum_bb: bb, sum_dd: dd }) {
    if (!(divides(dd) && Number.isFinite(aa) && Number.isFinite(bb))) return null;
    const lengths = sqrt(aa) + sqrt(bb);
    const difference = lengths ? (bb - aa) / lengths : 0;
    return min((difference * difference) / dd, 1);
  }

  function directionalShare(s) {
    const radial = radialShare(s);
    return radial === null ? null : 1 - radial;
  }

  function topEnergyShare(s) {
    const count = s.numeric * TOP_SHARE;
    if (count < 1 || !divides(s.sum_dd)) return null;
    const energy = Spread.topEnergy(s.histogram, count, s.max_abs_d);
    return energy === null ? null : min(energy / s.sum_dd, 1);
  }

  /** The share of the whole scan's Σd²; null for what is outside the total (EMA copies, schedules …). */
  function energyShare(s, { total, isCounted }) {
    if (!s.numeric || !divides(total.sum_dd) || !s.rows.every((row) => isCounted[row])) return null;
    return s.sum_dd / total.sum_dd;
  }

  /** A formula of the sums beside the base; null where there are none. */
  const ofTask = (formula) => ({ task }) => (task ? formula(task) : null);

  const taskCosine = ({ aa, bb, dd }) => cosine(aa, bb, dd);

  function expectedConflicts(task) {
    const its = taskCosine(task);
    return its === null ? null : acos(clamp(its, -1, 1)) / PI;
  }

  /** A part of the mass of both tasks, Σ(|p| + |q|). */
  const ofMass = (part) => ofTask((task) => {
    const mass = task.abs_a + task.abs_b;
    return divides(mass) ? part(task, mass) : null;
  });

  function dominance({ aa, bb }) {
    return divides(aa + bb) ? bb / (aa + bb) : null;
  }

  function overlap({ moved_a: a, moved_b: b, moved_both: both }) {
    return a + b - both ? both / (a + b - both) : null;
  }

  const FORMULAS = {
    numel: (s) => s.numel,
    norm_a: ofElements((s) => sqrt(s.sum_aa)),
    norm_b: ofElements((s) => sqrt(s.sum_bb)),
    norm_ratio: (s) => (divides(s.sum_aa) ? sqrt(s.sum_bb) / sqrt(s.sum_aa) : null),
    cosine_distance: (s) => distance(s.sum_aa, s.sum_bb, s.sum_dd),
    cosine: (s) => cosine(s.sum_aa, s.sum_bb, s.sum_dd),
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
    radial_share: radialShare,
    directional_share: directionalShare,
    top_energy_share: topEnergyShare,
    energy_share: energyShare,
    norm_task_a: ofTask(({ n, aa }) => (n ? sqrt(aa) : null)),
    norm_task_b: ofTask(({ n, bb }) => (n ? sqrt(bb) : null)),
    task_cosine: ofTask(taskCosine),
    sign_conflict_fraction: ofTask((t) => (t.moved_both ? t.conflicts / t.moved_both : null)),
    sign_conflict_expected: ofTask(expectedConflicts),
    conflict_mass: ofMass((t, mass) => min(t.abs_conflict / mass, 1)),
    cancellation: ofMass((t, mass) => clamp(1 - t.abs_sum / mass, 0, 1)),
    dominance: ofTask(dominance),
    support_overlap: ofTask(overlap),
  };

  // What does not add: the column that holds it of every key, and how a group gets it from those of its keys.
  const OF_KEYS = {
    row_cosine_min: { column: 'minimum', join: least },
    row_cosine_p05: { column: 'p05', join: median },
    row_cosine_median: { column: 'median', join: median },
    stable_rank: { column: 'stable_rank', join: median },
    rank_90: { column: 'rank_90', join: median },
    top_singular_share: { column: 'top_singular_share', join: median },
    lora_rank: { column: 'lora_rank', join: median },
  };

  /** The value of the keys that have one, joined; `columns` hold NaN for those that have none. */
  function ofKeys({ column, join }, rows, columns) {
    if (!columns[column]) return null;
    const values = Float64Array.from(rows, (row) => columns[column][row]).filter((value) => !Number.isNaN(value));
    return values.length ? join(values) : null;
  }

  function least(values) {
    return values.reduce((one, other) => min(one, other));
  }

  /** The middle value, or the mean of the two in the middle. */
  function median(values) {
    const [sorted, half] = [values.sort(), values.length >> 1];
    return values.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  /** One statistic of a record of `data`. A sum that overflowed gives null. */
  function evaluate(name, record, data) {
    const formula = FORMULAS[name];
    const value = formula ? formula(record, data) : ofKeys(OF_KEYS[name], record.rows, data.ofKey);
    return Number.isFinite(value) ? value : null;
  }

  return { evaluate, distance };
})();
