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
      value: () => sum + lost,
    };
  }

  /** The record of the chosen rows together; `columns` holds one array per field of a record. */
  function add(columns, rows) {
    const record = {};
    for (const [field, column] of Object.entries(columns)) {
      record[field] = field === 'max_abs_d' ? largest(column, rows) : total(column, rows);
    }
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

  function largest(column, rows) {
    let most = 0;
    for (const row of rows) most = Math.max(most, column[row]);
    return most;
  }

  return { accumulator, add, at };
})();
