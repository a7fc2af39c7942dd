// The embedded scan, decoded: columns for arithmetic, rows for people. Owns the format of the data.
const Data = (() => {
  const AXES = ['part', 'block', 'component', 'group', 'kind'];
  const OF_SOME_KEYS = ['tasks', 'row_cosines', 'spectra']; // tables of the keys that have such a record

  /** The page's data out of its text: what reports/embedded.py wrote, and the numbers of its columns. */
  async function unpack(text) {
    const unpacked = await Packed.inflate(text);
    const end = unpacked.indexOf(10);
    const embedded = JSON.parse(new TextDecoder().decode(unpacked.subarray(0, end)));
    return { embedded, numbers: joined(unpacked.subarray(end + 1)) };
  }

  /** Numbers out of planes: the lowest byte of each, then the second byte of each, and so on. */
  function joined(planes) {
    const size = planes.length / 8;
    const bytes = new Uint8Array(planes.length);
    for (let byte = 0, from = 0; byte < 8; byte += 1) {
      for (let to = byte; to < bytes.length; to += 8, from += 1) bytes[to] = planes[from];
    }
    if (new Uint8Array(Uint16Array.of(1).buffer)[0] === 1) return new Float64Array(bytes.buffer);
    const view = new DataView(bytes.buffer); // a machine that stores numbers the other way round
    return Float64Array.from({ length: size }, (_, place) => view.getFloat64(8 * place, true));
  }

  /** The columns of the page's data, with what everybody needs of them computed once. */
  function decode({ embedded, numbers }) {
    const { keys } = embedded;
    const size = keys.key.length;
    const columnOf = ([start, end]) => numbers.subarray(start, end);
    const sums = eachColumn(embedded.sums, columnOf);
    const tables = Object.fromEntries(OF_SOME_KEYS.map((name) => [name, table(embedded[name], columnOf)]));
    const measures = {
      numbers: sums, histograms: histograms(embedded.histograms, columnOf), tasks: tasks(tables.tasks, size),
    };
    const ofKey = { ...spread(tables.row_cosines, size), ...spread(tables.spectra, size) };
    const isCounted = new Uint8Array(size).fill(1);
    for (const row of keys.uncounted) isCounted[row] = 0;
    const all = Uint32Array.from({ length: size }, (_, row) => row);
    const counted = all.filter((row) => isCounted[row]);
    const total = Sums.add(measures, counted);
    const axes = Object.fromEntries(AXES.map((axis) => [axis, keys[axis]]));
    const label = (axis, row) => axes[axis].names[axes[axis].codes[row]];
    // Of what is in both models, what a merge never touches: integers, schedules, and what pairs in part only.
    const inPart = new Set(embedded.shape_mismatch.map(({ key }) => key));
    const isMergeable = Uint8Array.from(all, (row) => (
      sums.numeric[row] > 0 && !inPart.has(keys.key[row]) && (isCounted[row] || label('part', row) === 'ema')
    ));
    const shape = (row) => keys.shape.names[keys.shape.codes[row]];
    const dtype = (side, row) => keys[`dtype_${side}`].names[keys[`dtype_${side}`].codes[row]];
    const columns = new Map();

    /** A statistic of every key; NaN where it is undefined. */
    function column(name) {
      if (!columns.has(name)) {
        const values = (row) => Statistics.evaluate(name, Sums.at(measures, row), { total, ofKey, isCounted }) ?? NaN;
        columns.set(name, Float64Array.from(all, values));
      }
      return columns.get(name);
    }

    return {
      embedded, tables, sums, isMergeable, ofKey, total, size, axes, all, counted, isCounted, label, shape, dtype, column,
      changes: { plain: measures.histograms, ...steps(embedded.steps, columnOf) },
      record: (rows) => Sums.add(measures, rows),
      key: (row) => keys.key[row],
      keyB: (row) => (keys.key_b ?? keys.key)[row],
      verdicts: keys.verdict.names, // the smallest difference first
      verdict: (row) => keys.verdict.codes[row],
      blocks: networkOrder(embedded.blocks, axes.block.names),
      intervals: intervals(embedded.intervals),
      statistics: new Map(embedded.statistics.map((entry) => [entry.name, entry])),
    };
  }

  const eachColumn = (columns, decoded) => (
    Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, decoded(column)]))
  );

  /** The bins of all rows in one column; those of a row lie from its offset to that of the next. */
  function histograms({ first, lengths, counts, energies }, columnOf) {
    const offsets = new Uint32Array(lengths.length + 1);
    lengths.forEach((length, row) => { offsets[row + 1] = offsets[row] + length; });
    return { first, offsets, counts: counts && columnOf(counts), energies: columnOf(energies) };
  }

  /** The same of |d| / ulp(a), without the counts; no fields where the page does not hold them. */
  function steps(packed, columnOf) {
    return packed ? eachColumn(packed, (its) => histograms(its, columnOf)) : {};
  }

  /** The rows that have a record of some kind, and the columns of these records. */
  function table(packed, columnOf) {
    return packed ? { rows: packed.rows, columns: eachColumn(packed.columns, columnOf) } : { rows: [], columns: {} };
  }

  /** The columns of the rows that have tasks, and for every row its place in them, or −1. */
  function tasks({ rows, columns }, size) {
    const places = new Int32Array(size).fill(-1);
    rows.forEach((row, place) => { places[row] = place; });
    return { places, columns };
  }

  /** How sure a ranking of the whole scan is: of an axis and a statistic, group -> { low, high, tier, keys, note }. */
  function intervals({ groups, rows }) {
    return (axis, statistic) => new Map((rows[axis]?.[statistic] ?? []).map(([group, low, high, tier, keys, note]) => (
      [groups[group], { low, high, tier, keys, note }]
    )));
  }

  /** A table of some rows as columns of all rows; NaN where a row has no value. */
  function spread({ rows, columns }, size) {
    return eachColumn(columns, (column) => {
      const values = new Float64Array(size).fill(NaN);
      rows.forEach((row, place) => { values[row] = column[place]; });
      return values;
    });
  }

  /** The scan in the shape of a scan file: what `window.mergescope.scan` shows. */
  function asScan(data) {
    const { tool, created, models, spectrum, kinship, findings, blocks } = data.embedded;
    const { only_in_a, only_in_b, shape_mismatch } = data.embedded;
    const cosines = records(data.tables.row_cosines);
    const spectra = records(data.tables.spectra);
    const keys = Array.from(data.all, (row) => {
      const record = data.record([row]);
      const { first, counts, energies } = record.histogram;
      const task = Object.entries(record.task ?? {}).map(([name, value]) => [`task_${name}`, value]);
      return {
        key: data.key(row),
        key_b: data.keyB(row),
        shape: data.shape(row),
        dtype_a: data.dtype('a', row),
        dtype_b: data.dtype('b', row),
        ...Object.fromEntries(AXES.map((axis) => [axis, data.label(axis, row)])),
        counted: Boolean(data.isCounted[row]),
        verdict: data.verdicts[data.verdict(row)],
        statistics: statisticsOf(data, record),
        sums: { ...record.numbers(), ...Object.fromEntries(task) },
        histogram: { first, counts, energies },
        ...(cosines.has(row) && { row_cosines: cosines.get(row) }),
        ...(spectra.has(row) && { spectrum: spectra.get(row) }),
      };
    });
    return {
      format: 'mergescope.scan', version: 1, tool, created, models, spectrum, blocks,
      keys, only_in_a, only_in_b, shape_mismatch, kinship, findings, totals: { statistics: statisticsOf(data, data.total) },
    };
  }

  /** Every statistic of a record by name; null where it is undefined. */
  function statisticsOf(data, record) {
    return Object.fromEntries(Array.from(data.statistics.keys(), (name) => [name, Statistics.evaluate(name, record, data)]));
  }

  /** The records of a table by row; what has no value is null, as in a file. */
  function records({ rows, columns }) {
    const value = (column, place) => (Number.isNaN(column[place]) ? null : column[place]);
    return new Map(rows.map((row, place) => [row, eachColumn(columns, (column) => value(column, place))]));
  }

  /** BASE, then the blocks of the network in its order, then the others as they appear. */
  function networkOrder(network, present) {
    const known = new Set(network);
    const others = present.filter((name) => !known.has(name) && name !== 'BASE');
    return [...new Set([...(present.includes('BASE') ? ['BASE'] : []), ...network, ...others])];
  }

  return { unpack, decode, asScan, statisticsOf, networkOrder };
})();
