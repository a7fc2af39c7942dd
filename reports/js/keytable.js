// The table of keys: any length, since only the rows in sight are in the page. Sorts by any column.
const KeyTable = (() => {
  const ROW = 32; // pixels, as the style sheet sets it
  const SPARE = 12; // rows drawn above and below those in sight
  const STATISTICS = ['relative_change', 'cosine', 'norm_ratio', 'changed_fraction', 'energy_share'];

  /** Fill `section` with a table, sorted by the column called `first`; `show(rows)` puts rows into it. */
  function create(section, data, { columns = columnsOf(data), first = 'relative_change' } = {}) {
    const byName = (name) => columns.find((column) => column.name === name);
    const state = { rows: new Uint32Array(), column: byName(first), sign: -1 };
    const scroller = Dom.one('.table', section);
    const body = Dom.element('tbody');
    const heads = columns.map((column) => headOf(column, () => {
      sortBy(state, column, state.column === column ? -state.sign : column.firstSign);
      refresh();
      State.changed();
    }));
    const table = Dom.element('table', {}, Dom.element('thead', {}, Dom.element('tr', {}, ...heads)), body);
    scroller.replaceChildren(table);

    function refresh() {
      state.rows.sort(state.column.order(state.sign, data.all));
      heads.forEach((head, place) => markSort(head, columns[place] === state.column ? state.sign : 0));
      table.setAttribute('aria-rowcount', state.rows.length + 1);
      scroller.scrollTop = 0;
      draw();
    }

    function draw() {
      const start = Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE);
      const end = Math.min(state.rows.length, start + Math.ceil(window.innerHeight / ROW) + 2 * SPARE);
      const lines = Array.from(state.rows.slice(start, end), (row, place) => line(columns, data, row, start + place));
      body.replaceChildren(gap(start), ...lines, gap(state.rows.length - end));
    }

    State.register('keys.sort', {
      get: () => (state.column === byName(first) && state.sign < 0 ? '' : (state.sign < 0 ? '-' : '') + state.column.name),
      set: (text) => {
        sortBy(state, byName(text.replace(/^-/, '')) ?? byName(first), text && !text.startsWith('-') ? 1 : -1);
        refresh();
      },
    });
    scroller.addEventListener('scroll', () => requestAnimationFrame(draw), { passive: true });
    window.addEventListener('resize', draw);
    return {
      show(rows) {
        state.rows = Uint32Array.from(rows);
        refresh();
      },
    };
  }

  /** Every column: its title and meaning, a cell's text and full value, and how it sorts. */
  function columnsOf(data) {
    const dtypes = (row) => [...new Set([data.dtype('a', row), data.dtype('b', row)])].join(' → ');
    const shape = (row) => data.shape(row).join('×') || 'scalar';
    const size = (row) => data.sums.numel[row];
    const texts = [
      textColumn('key', (row) => data.key(row)),
      textColumn('part', (row) => data.label('part', row)),
      textColumn('block', (row) => data.label('block', row)),
      textColumn('component', (row) => data.label('component', row), (row) => fromGroup(data, row)),
      textColumn('kind', (row) => data.label('kind', row)),
      { ...textColumn('shape', shape), order: numeric(size) },
      textColumn('dtypes', dtypes),
      verdictColumn(data),
    ];
    return [...texts, ...STATISTICS.map((name) => statisticColumn(data, data.statistics.get(name)))];
  }

  function textColumn(name, full, text = full) {
    let places; // of every row's text among all texts, sorted once: numbers compare ten times as fast
    const order = (sign, all) => {
      places ??= placesOf(all, full);
      return (one, other) => sign * (places[one] - places[other]) || one - other;
    };
    return { name, title: name, meaning: '', text, full, order, firstSign: 1 };
  }

  function placesOf(all, full) {
    const texts = Array.from(all, full);
    const places = new Map([...new Set(texts)].sort().map((text, place) => [text, place]));
    return Uint32Array.from(texts, (text) => places.get(text));
  }

  /** Sorts by how much a verdict means, not by its letters. */
  function verdictColumn(data) {
    const column = textColumn('verdict', (row) => data.verdicts[data.verdict(row)]);
    return { ...column, meaning: 'identical, cast, rounding or changed', order: numeric(data.verdict), firstSign: -1 };
  }

  /** The component without what leads to its group: "attn2/to_k". */
  function fromGroup(data, row) {
    return data.label('component', row).slice(data.label('group', row).lastIndexOf('/') + 1);
  }

  function statisticColumn(data, entry) {
    const values = data.column(entry.name);
    const value = (row) => values[row];
    // What no total counts has no share of it.
    const isLeftOut = (row) => entry.name === 'energy_share' && !data.isCounted[row];
    return {
      name: entry.name,
      title: entry.title,
      meaning: `${entry.symbol}: ${entry.meaning}`,
      text: (row) => (isLeftOut(row) ? 'not counted' : Format.statistic(value(row), entry)),
      full: (row) => (isLeftOut(row) ? 'in no total unless named' : Format.raw(value(row))),
      order: numeric(value),
      firstSign: entry.ascending ? 1 : -1,
      isNumber: true,
    };
  }

  /** By value, undefined last in both directions, ties in the scan's order. */
  const numeric = (value) => (sign) => (one, other) => {
    const [mine, theirs] = [value(one), value(other)];
    if (Number.isNaN(mine) || Number.isNaN(theirs)) return Number.isNaN(mine) - Number.isNaN(theirs) || one - other;
    return sign * (mine - theirs) || one - other;
  };

  function sortBy(state, column, sign) {
    state.column = column;
    state.sign = sign;
  }

  function headOf({ name, title, meaning, isNumber }, sort) {
    const button = Dom.element('button', { type: 'button', title: meaning || `sort by ${title}` }, title);
    button.addEventListener('click', sort);
    return Dom.element('th', { scope: 'col', 'data-column': name, class: isNumber ? 'number' : '' }, button);
  }

  function markSort(head, sign) {
    if (sign) head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    else head.removeAttribute('aria-sort');
  }

  function line(columns, data, row, place) {
    const cells = columns.map(({ name, text, full, isNumber }) => {
      const attributes = { 'data-column': name, class: isNumber ? 'number' : '', title: full(row) };
      // A direction of its own lets the style sheet cut a long name at its start: names differ at the end.
      return Dom.element('td', attributes, isNumber ? text(row) : Dom.element('bdi', {}, text(row)));
    });
    const node = Dom.element('tr', { 'aria-rowindex': place + 2 }, ...cells);
    if (!data.isCounted[row]) node.className = 'uncounted';
    return node;
  }

  /** An empty row as high as `rows` that are not in the page. */
  function gap(rows) {
    const node = Dom.element('tr', { 'aria-hidden': 'true', class: 'gap' });
    node.style.height = `${rows * ROW}px`;
    return node;
  }

  return { create, textColumn, numeric };
})();
