// The columns of the key table where several scans are compared: what a key is, and of every scan the
// chosen statistic.
const CompareKeys = (() => {
  const LABELS = ['part', 'block', 'component', 'kind'];

  /** Columns for KeyTable; `statistic()` is the one chosen now. */
  function columns(data, statistic) {
    const shape = (row) => data.shape(row).join('×') || 'scalar';
    return [
      KeyTable.textColumn('key', data.key),
      ...LABELS.map((axis) => KeyTable.textColumn(axis, (row) => data.label(axis, row))),
      KeyTable.textColumn('shape', shape),
      ...data.scans.map((scan) => scanColumn(scan, data, statistic)),
    ];
  }

  function scanColumn(scan, data, statistic) {
    const entry = () => data.statistics.get(statistic());
    const value = (row) => (scan.own[row] < 0 ? NaN : scan.data.column(statistic())[scan.own[row]]);
    const absent = (row) => scan.own[row] < 0;
    const verdict = (row) => scan.data.verdicts[scan.data.verdict(scan.own[row])];
    return {
      name: scan.letter,
      title: scan.letter,
      meaning: Columns.title(scan, 120),
      text: (row) => (absent(row) ? 'not compared' : Format.statistic(value(row), entry())),
      full: (row) => (absent(row) ? 'this scan does not hold the key' : `${Format.raw(value(row))} · ${verdict(row)}`),
      order: KeyTable.numeric(value),
      get firstSign() {
        return entry().ascending ? 1 : -1;
      },
      isNumber: true,
    };
  }

  /** The rows that were touched as asked: "" any, "none", "all", "some", or the place of the one that did it alone. */
  function touched(data, rows, wanted) {
    if (!wanted) return rows;
    const count = data.scans.length;
    return rows.filter((row) => {
      const by = data.record([row]).touchedBy();
      if (wanted === 'none') return !by.length;
      if (wanted === 'all') return by.length === count;
      return by.length === 1 && by[0] === Number(wanted);
    });
  }

  /** Rows as CSV, as the report saves them: what a key is, and of every model the statistic; absent is empty. */
  function csv(data, rows, statistic) {
    const head = ['key', ...LABELS, 'shape', ...data.scans.map((scan) => `${statistic} ${Columns.title(scan, 120)}`)];
    const lines = Array.from(rows, (row) => {
      const words = [data.key(row), ...LABELS.map((axis) => data.label(axis, row)), data.shape(row).join('x')];
      const record = data.record([row]);
      return [...words.map(Export.cell), ...record.values(statistic).map((value) => value ?? '')].join(',');
    });
    return [head.map(Export.cell).join(','), ...lines, ''].join('\n');
  }

  return { columns, touched, csv };
})();
