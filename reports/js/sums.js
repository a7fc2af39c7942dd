// Adding records of sums, as analyzer/records.py adds them. Knows no statistic.
const Sums = (() => {
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

  /** The record of the chosen rows together; `columns` holds one array per field of a record. */
  function add(columns, rows) {
    if (rows.length === 1) return at(columns, rows[0]);
    const record = {};
    for (const [field, column] of Object.entries(columns)) {
      record[field] = field === 'max_abs_d' ? largest(column, rows) : total(column, rows);
    }
    for (const side of ['a', 'b']) record[`m2_${side}`] += between(columns, rows, side, record);
    return record;
  }

  /** The record of one row. */
  function at(columns, row) {
    const record = {};
    for (const [field, column] of Object.entries(columns)) record[field] = column[row];
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

  return { accumulator, add, at };
})();
