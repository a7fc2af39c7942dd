// The embedded scan, decoded: columns for arithmetic, rows for people. Owns the format of the data.
const Data = (() => {
  const AXES = ['part', 'block', 'component', 'group', 'kind'];

  /** The columns of the page's data, with what everybody needs of them computed once. */
  function decode(embedded) {
    const { keys, sums: lists } = embedded;
    const size = keys.key.length;
    const sums = Object.fromEntries(Object.entries(lists).map(([name, column]) => [name, numbers(column)]));
    const isCounted = new Uint8Array(size).fill(1);
    for (const row of keys.uncounted) isCounted[row] = 0;
    const all = Uint32Array.from({ length: size }, (_, row) => row);
    const counted = all.filter((row) => isCounted[row]);
    const total = Sums.add(sums, counted);
    const axes = Object.fromEntries(AXES.map((axis) => [axis, keys[axis]]));
    const label = (axis, row) => axes[axis].names[axes[axis].codes[row]];
    const shape = (row) => keys.shape.names[keys.shape.codes[row]];
    const dtype = (side, row) => keys[`dtype_${side}`].names[keys[`dtype_${side}`].codes[row]];
    const columns = new Map();

    /** A statistic of every key; NaN where it is undefined. */
    function column(name) {
      if (!columns.has(name)) {
        const values = (row) => Statistics.evaluate(name, Sums.at(sums, row), total) ?? NaN;
        columns.set(name, Float64Array.from(all, values));
      }
      return columns.get(name);
    }

    return {
      embedded, sums, total, size, axes, all, counted, isCounted, label, shape, dtype, column,
      key: (row) => keys.key[row],
      keyB: (row) => (keys.key_b ?? keys.key)[row],
      blocks: networkOrder(embedded.blocks, axes.block.names),
      statistics: new Map(embedded.statistics.map((entry) => [entry.name, entry])),
    };
  }

  /** A column of sums: a list of counts, or base64 of little-endian fp64. */
  function numbers(column) {
    if (typeof column !== 'string') return Float64Array.from(column);
    const bytes = Uint8Array.from(atob(column), (sign) => sign.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float64Array.from({ length: bytes.length / 8 }, (_, place) => view.getFloat64(8 * place, true));
  }

  /** The scan in the shape of a scan file: what `window.mergescope.scan` shows. */
  function asScan(data) {
    const { embedded, sums } = data;
    const { tool, created, models, kinship, findings, only_in_a, only_in_b, shape_mismatch } = embedded;
    const keys = Array.from(data.all, (row) => ({
      key: data.key(row),
      key_b: data.keyB(row),
      shape: data.shape(row),
      dtype_a: data.dtype('a', row),
      dtype_b: data.dtype('b', row),
      ...Object.fromEntries(AXES.map((axis) => [axis, data.label(axis, row)])),
      counted: Boolean(data.isCounted[row]),
      sums: Sums.at(sums, row),
    }));
    return {
      format: 'mergescope.scan', version: 1, tool, created, models, blocks: embedded.blocks,
      keys, only_in_a, only_in_b, shape_mismatch, kinship, findings,
    };
  }

  /** BASE, then the blocks of the network in its order, then the others as they appear. */
  function networkOrder(network, present) {
    const known = new Set(network);
    const others = present.filter((name) => !known.has(name) && name !== 'BASE');
    return [...new Set([...(present.includes('BASE') ? ['BASE'] : []), ...network, ...others])];
  }

  return { decode, asScan };
})();
