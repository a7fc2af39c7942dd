// Adding what was measured, as analyzer/measures.py adds it. Knows no statistic.
const Sums = (() => {
  const BINS = 256;

  /**
   * What was measured of some rows together. The plain sums are fields; the histogram and the tasks,
   * which few statistics ask for, are added when one does.
   */
  class Record {
    #measures;
    #histogram;
    #task;

    constructor(measures, rows) {
      this.rows = rows;
      this.#measures = measures;
    }

    /** { first, counts, energies } of |d|. */
    get histogram() {
      this.#histogram ??= joinHistograms(this.#measures.histograms, this.rows);
      return this.#histogram;
    }

    /** The sums beside the base; null where no row has them. */
    get task() {
      if (this.#task === undefined) this.#task = joinTasks(this.#measures.tasks, this.rows);
      return this.#task;
    }

    /** The plain sums alone. */
    numbers() {
      return Object.fromEntries(Object.keys(this.#measures.numbers).map((field) => [field, this[field]]));
    }
  }

  /**
   * A running sum that carries what rounding drops (Neumaier, 1974), so that a total does not depend
   * on the order of its keys; Python's math.fsum gives the same to the last digit or the one before.
   */
  function accumulator() {
    let sum = 0;
    let lost = 0;
    return {
      add(value) {
        const next = sum + value;
        lost += Math.abs(sum) >= Math.abs(value) ? sum - next + value : value - next + sum;
        sum = next;
      },
      value: () => (Number.isFinite(lost) ? sum + lost : sum), // beyond fp64 nothing is left to correct
    };
  }

  /** The record of the chosen rows; `measures.numbers` holds one array per field of a record. */
  function add(measures, rows) {
    if (rows.length === 1) return at(measures, rows[0]);
    const columns = measures.numbers;
    const record = new Record(measures, rows);
    for (const [field, column] of Object.entries(columns)) {
      record[field] = field === 'max_abs_d' ? largest(column, rows) : total(column, rows);
    }
    for (const side of ['a', 'b']) record[`m2_${side}`] += between(columns, rows, side, record);
    return record;
  }

  /** The record of one row. */
  function at(measures, row) {
    const record = new Record(measures, [row]);
    for (const field in measures.numbers) record[field] = measures.numbers[field][row];
    return record;
  }

  function total(column, rows) {
    const running = accumulator();
    for (const row of rows) running.add(column[row]);
    return running.value();
  }

  /**
   * What the distances of the rows' means from the common one add to Σ(x − mean)²: the rows' own
   * squares are about their own means (Chan, Golub & LeVeque, 1979).
   */
  function between(columns, rows, side, record) {
    const [counts, sums] = [columns.numeric, columns[`sum_${side}`]];
    const mean = record[`sum_${side}`] / record.numeric;
    const running = accumulator();
    for (const row of rows) {
      if (counts[row]) running.add(counts[row] * (sums[row] / counts[row] - mean) ** 2);
    }
    return running.value();
  }

  function largest(column, rows) {
    let most = 0;
    for (const row of rows) most = Math.max(most, column[row]);
    return most;
  }

  /** The bins of all rows together, from the first to the last that some row holds. */
  function joinHistograms({ first, offsets, counts, energies }, rows) {
    const held = Array.from(rows).filter((row) => offsets[row] < offsets[row + 1]);
    if (held.length <= 1) return oneHistogram({ first, offsets, counts, energies }, held[0]);
    let [low, end] = [BINS, 0];
    const joined = new Float64Array(BINS);
    const sums = Array.from({ length: BINS }, accumulator);
    for (const row of held) {
      const shift = first[row] - offsets[row];
      for (let place = offsets[row]; place < offsets[row + 1]; place += 1) {
        joined[place + shift] += counts[place];
        sums[place + shift].add(energies[place]);
      }
      low = Math.min(low, first[row]);
      end = Math.max(end, offsets[row + 1] + shift);
    }
    const values = sums.slice(low, end).map((running) => running.value());
    return { first: low, counts: Array.from(joined.subarray(low, end)), energies: values };
  }

  function oneHistogram({ first, offsets, counts, energies }, row) {
    if (row === undefined) return { first: 0, counts: [], energies: [] };
    const its = (column) => Array.from(column.subarray(offsets[row], offsets[row + 1]));
    return { first: first[row], counts: its(counts), energies: its(energies) };
  }

  function joinTasks(tasks, rows) {
    const places = Array.from(rows, (row) => tasks.places[row]).filter((place) => place >= 0);
    if (!places.length) return null;
    return Object.fromEntries(Object.entries(tasks.columns).map(([field, column]) => [field, total(column, places)]));
  }

  return { accumulator, add, at };
})();
