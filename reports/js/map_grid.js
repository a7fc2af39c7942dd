// What the map shows, before it is drawn: components as rows, blocks as columns by part, and the keys
// of every place where they meet. Owns what stands next to what, and knows neither colours nor pixels.
const MapGrid = (() => {
  const U = ['IN', 'M', 'OUT']; // the families of blocks that a U-Net runs through
  const grids = new WeakMap(); // the last grid of a view: a switch of the statistic lays out nothing anew

  /**
   * The grid of a view with at most so many columns and rows. Its lists hold null for a gap:
   * { axes, columns, rows, cells, parts, us, folded, omitted, total }.
   */
  function layOut(view, most) {
    const name = `${most.columns} ${most.rows}`;
    if (grids.get(view)?.name !== name) grids.set(view, { name, grid: build(view, most) });
    return grids.get(view).grid;
  }

  function build(view, most) {
    const everything = view.around(Selectors.AXES); // so that cells keep their places when a selection changes
    const { axes, segments, folded } = columnsOf(view, everything, most.columns);
    const { groups, omitted, total } = rowsOf(view, everything, most.rows);
    const [columns, rows] = [segments.map((its) => its.columns), groups].map(withGaps);
    const members = membersOf(view, axes, columns, rows);
    const isSelected = (its) => its.some(view.isSelected);
    const cell = (its, row, column) => ({
      row, column, record: view.data.record(its), isSelected: isSelected(its), title: `${column.name} · ${row.name}`,
    });
    const cells = rows.map((row, y) => columns.map((column, x) => (
      members.cells[y]?.[x]?.length ? cell(members.cells[y][x], row, column) : null
    )));
    rows.forEach((row, y) => { if (row) row.isSelected = cells[y].some((its) => its?.isSelected); });
    columns.forEach((column, x) => {
      if (!column) return;
      column.isSelected = isSelected(members.columns[x]);
      if (column.depth !== undefined) column.record = view.data.record(members.columns[x]);
    });
    const hasU = segments.some(({ isU }) => isU);
    return { axes, columns, rows, cells, folded, omitted, total, parts: partsOf(columns), hasU };
  }

  /** Lists in one, with a gap between one and the next. */
  function withGaps(lists) {
    return lists.flatMap((list, place) => (place ? [null, ...list] : list));
  }

  // Columns

  /**
   * Blocks in network order, part by part; in a model without blocks parts, and of a single part kinds.
   * Where there are more than fit, neighbours share a column.
   */
  function columnsOf(view, rows, most) {
    const { data } = view;
    const places = new Map(); // part -> block -> number of keys
    for (const row of rows) {
      const blocks = getOr(places, data.label('part', row), () => new Map());
      blocks.set(data.label('block', row), (blocks.get(data.label('block', row)) ?? 0) + 1);
    }
    const all = [...places.values()].flatMap((blocks) => [...blocks.keys()]);
    if (all.length < 2) return { axes: ['kind'], segments: [{ columns: kinds(data, rows) }], folded: 1 };
    const network = new Map(data.embedded.blocks.map((name, place) => [name, place]));
    const order = new Map(data.blocks.map((name, place) => [name, place]));
    const parts = [...places].map(([part, blocks]) => ({
      part, blocks: [...blocks.keys()].sort((one, other) => order.get(one) - order.get(other)), counts: blocks,
    }));
    parts.sort((one, other) => stage(one, network) - stage(other, network));
    const segments = parts.flatMap((its) => families(its, network));
    const folded = foldOf(segments, most);
    const often = new Map();
    for (const name of all) often.set(name, (often.get(name) ?? 0) + 1);
    const context = { parts, often, folded, network, isOneBlock: (name) => often.get(name) === 1 };
    return {
      axes: ['part', 'block'], folded,
      segments: segments.map((its) => ({ isU: its.isU && folded === 1, columns: fold(its, context) })),
    };
  }

  /** Encoders come before the network that has blocks, and what decodes comes behind it. */
  function stage({ blocks }, network) {
    if (blocks.some((name) => network.has(name))) return 1;
    return blocks.every((name) => name === 'BASE') ? 0 : 2;
  }

  function kinds(data, rows) {
    const names = [...new Set(Array.from(rows, (row) => data.label('kind', row)))];
    return names.map((kind) => ({
      title: kind, name: kind, part: null, holds: [['', kind]], terms: () => [Selectors.term('kind', kind)],
    }));
  }

  /** The blocks of a part in runs of one family: BASE, D00 …, S00 …; a U-Net's run is one. */
  function families({ part, blocks, counts }, network) {
    const family = (name) => (network.has(name) ? /^\D*/.exec(name)[0] : name);
    const isU = blocks.some((name) => family(name) === 'IN') && blocks.some((name) => family(name) === 'OUT');
    const segments = [];
    for (const name of blocks) {
      const its = isU && network.has(name) && U.includes(family(name)) ? 'U' : family(name);
      if (segments.at(-1)?.family !== its) {
        segments.push({ part, family: its, blocks: [], counts, isU: its === 'U', isFoldable: network.has(name) });
      }
      segments.at(-1).blocks.push(name);
    }
    return segments;
  }

  /** How many neighbours share a column, so that there are at most `most`: 1, 2, 5, 10, 20, … */
  function foldOf(segments, most) {
    const columns = (every) => segments.reduce((sum, { blocks, isFoldable }) => (
      sum + (isFoldable ? Math.ceil(blocks.length / every) : blocks.length)
    ), 0);
    for (let power = 1; ; power *= 10) {
      for (const every of [power, 2 * power, 5 * power]) {
        if (columns(every) <= most || columns(every) === columns(Infinity)) return every;
      }
    }
  }

  function fold({ part, blocks, isU, isFoldable }, context) {
    const every = isFoldable ? context.folded : 1;
    const runs = [];
    for (let start = 0; start < blocks.length; start += every) runs.push(blocks.slice(start, start + every));
    return runs.map((run) => {
      const isAlone = context.parts.find((its) => its.part === part).blocks.length === run.length;
      const isPart = isAlone && !context.network.has(run[0]);
      const range = run.length > 1 ? `${run[0]}..${run.at(-1)}` : run[0];
      const title = isPart ? part : range;
      return {
        part, isPart, title: isPart ? part : run[0],
        name: isPart || context.parts.length === 1 ? title : `${part} · ${title}`,
        holds: run.map((block) => [part, block]),
        ...(isU && every === 1 && depthOf(run[0], context.network)),
        terms: () => terms(part, range, run, isAlone, context),
      };
    });
  }

  /** The shortest terms that name a column and nothing else. */
  function terms(part, range, run, isWholePart, { isOneBlock }) {
    if (isWholePart) return [Selectors.term('part', part)];
    const ends = [run[0], run.at(-1)].map((block) => Selectors.term('block', block));
    const block = ends.includes(null) || run.length === 1 ? ends[0] : `block:${range}`;
    return run.every(isOneBlock) ? [block] : [Selectors.term('part', part), block];
  }

  /** How deep in the U a block lies, from 0 to 1, and the block on the other side that it is joined to. */
  function depthOf(name, network) {
    const names = [...network.keys()];
    const [ins, outs] = ['IN', 'OUT'].map((family) => names.filter((its) => /^\D*/.exec(its)[0] === family));
    const [up, down] = [ins.indexOf(name), outs.indexOf(name)];
    const mate = (list, other, place) => (list.length === other.length ? other[other.length - 1 - place] : undefined);
    if (up >= 0) return { depth: up / ins.length, mate: mate(ins, outs, up), isDown: true };
    if (down >= 0) return { depth: (outs.length - 1 - down) / outs.length, mate: mate(outs, ins, down), isDown: false };
    return { depth: 1 };
  }

  /** The first and the last column of every part that has several. */
  function partsOf(columns) {
    const spans = new Map();
    columns.forEach((column, place) => {
      if (!column || column.part === null) return;
      const { part } = column;
      getOr(spans, part, () => ({ part, first: place, terms: () => [Selectors.term('part', part)] })).last = place;
    });
    return spans.size > 1 ? [...spans.values()].filter(({ first, last }) => first < last) : [];
  }

  // Rows

  /** Components by the part where they changed most, what moved most first; those of a part together. */
  function rowsOf({ data }, rows, most) {
    const groups = new Map();
    for (const row of rows) {
      const its = getOr(groups, data.label('group', row), () => ({ energy: 0, parts: new Map() }));
      const part = data.label('part', row);
      its.energy += data.sums.sum_dd[row];
      its.parts.set(part, (its.parts.get(part) ?? 0) + data.sums.sum_dd[row]);
    }
    const found = [...groups].map(([name, { energy, parts }]) => ({ name, energy, part: strongest(parts) }));
    found.sort((one, other) => other.energy - one.energy || (one.name < other.name ? -1 : 1));
    const titles = View.shortNames(found.map(({ name }) => name));
    const isFirst = (row) => found.find(({ part }) => part === row.part) === row; // no part stays without a row
    const chosen = new Set([...new Set([...found.filter(isFirst), ...found])].slice(0, most));
    const shown = found.filter((row) => chosen.has(row)).map((row) => (
      { ...row, title: titles.get(row.name), terms: () => Selectors.ofGroup(data, 'group', row.name) }
    ));
    const parts = [...new Set(shown.map(({ part }) => part))]; // the one with the strongest component first
    const lists = parts.map((part) => shown.filter((row) => row.part === part));
    return { groups: lists, omitted: found.length - shown.length, total: found.length };
  }

  function strongest(parts) {
    return [...parts].reduce((one, other) => (other[1] > one[1] ? other : one))[0];
  }

  // Cells

  /** The keys of every cell and, whatever their component, of every column. */
  function membersOf(view, axes, columns, rows) {
    const { data } = view;
    const x = new Map();
    columns.forEach((column, place) => {
      for (const [part, block] of column?.holds ?? []) getOr(x, part, () => new Map()).set(block, place);
    });
    const y = new Map(rows.map((row, place) => [row?.name, place]));
    const cells = rows.map((row) => row && columns.map((column) => column && []));
    const ofColumn = columns.map(() => []);
    const isByKind = axes[0] === 'kind';
    for (const row of view.around([...axes, 'component'])) {
      const across = x.get(isByKind ? '' : data.label('part', row))?.get(data.label(isByKind ? 'kind' : 'block', row));
      if (across === undefined) continue;
      ofColumn[across].push(row);
      cells[y.get(data.label('group', row))]?.[across].push(row);
    }
    return { cells, columns: ofColumn };
  }

  function getOr(map, name, make) {
    if (!map.has(name)) map.set(name, make());
    return map.get(name);
  }

  return { layOut };
})();
