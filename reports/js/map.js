// The map: block × component as a heat map, blocks in network order. Over the blocks of a U-Net runs a
// U, whose dots are the blocks as wholes and whose rungs are the connections from its one leg to the other.
const HeatMap = (() => {
  const ROWS = 30; // components at first, as many as the ranking shows; a button asks for the rest
  const MOST = 120; // components at all
  const NARROW = 560; // pixels: below, blocks run downwards
  const CELL = 22; // pixels high
  const SMALLEST = { wide: 4.5, low: 8, readable: 14 }; // pixels of a cell: across, downwards, and of one with a label
  const WIDEST = 96; // pixels across, in a map of few columns
  // Values that mean "no difference".
  const CENTRES = { norm_ratio: 1, mean_a: 0, mean_b: 0, task_cosine: 0, dominance: 0.5 };
  // Statistics of a block that are no mean of those of its components: a colour of theirs would be off the scale.
  const GROWING = new Set([
    'numel', 'norm_a', 'norm_b', 'norm_delta', 'max_abs_delta', 'nonfinite_a', 'nonfinite_b', 'rounding_floor',
    'energy_share', 'norm_task_a', 'norm_task_b',
  ]);

  /** The figure of `view`; options: statistic, logarithmic, sized, whole. */
  function draw(view, { statistic, logarithmic, sized, whole }, { theme, width }) {
    const entry = view.data.statistics.get(statistic);
    const isTurned = width < NARROW;
    const grid = MapGrid.layOut(view, room(width, isTurned, whole));
    const valued = (its) => its && { ...its, value: Statistics.evaluate(statistic, its.record, view.data) };
    const matrix = grid.cells.map((line) => line.map(valued));
    const cells = matrix.flat().filter(Boolean);
    if (!cells.length) return { empty: 'Nothing to draw: none of these keys counts in a total.' };
    const canLog = cells.every((its) => its.value === null || its.value >= 0);
    const isLogarithmic = logarithmic && canLog;
    const colour = MapColours.of(cells, entry, { theme, isLogarithmic, centre: CENTRES[statistic] });
    const frame = MapFrame.of(grid, { theme, width, isTurned, sizes: { CELL, WIDEST, SMALLEST } });
    const at = (x, y) => (isTurned ? matrix[x][y] : matrix[y][x]);
    const drawn = { at, frame, colour, entry, theme, statistic, data: view.data };
    return {
      data: [
        heat(drawn, sized), words(drawn, sized), shade(drawn, sized), ...(sized ? [squares(drawn)] : []),
        ...(grid.hasU ? us(grid, drawn) : []),
      ],
      layout: { ...frame.layout, coloraxis: colour.axis },
      label: `${entry.title} by ${grid.axes.at(-1)} and component, ${Format.plural(cells.length, 'cell')}`,
      note: notes(grid, cells, colour, sized),
      more: grid.total > room(width, isTurned, false).rows ? Math.min(grid.total, MOST) : 0,
      canLog,
      pick: (point) => chosen(grid, point, at),
      labels: frame.labels,
      table: table(grid, entry, matrix, view.text !== ''),
    };
  }

  /** How many columns and rows fit. */
  function room(width, isTurned, whole) {
    return isTurned
      ? { columns: 128, rows: whole ? MOST : Math.max(6, Math.floor((width - 155) / SMALLEST.readable)) }
      : { columns: Math.floor((width - 130) / SMALLEST.wide), rows: whole ? MOST : ROWS };
  }

  // Traces

  /** A number for every cell, and null where there is none. */
  const numbers = ({ at, frame }, value) => (
    frame.down.map((_, y) => frame.across.map((__, x) => (at(x, y) ? value(at(x, y)) : null)))
  );

  const base = ({ frame: { edges, gap } }) => (
    { type: 'heatmap', x: edges.across, y: edges.down, xgap: gap, ygap: gap, hoverongaps: false }
  );

  /** The cells in their colours; where squares show the sizes, only what answers to the pointer. */
  function heat(drawn, sized) {
    return {
      ...base(drawn), coloraxis: 'coloraxis', opacity: sized ? 0 : 1,
      z: numbers(drawn, ({ value }) => drawn.colour.z(value)),
      hovertext: hovers(drawn),
      hovertemplate: '%{hovertext}<extra></extra>',
    };
  }

  /** The texts of the cells, each made when somebody asks for it: of thousands, few are ever pointed at. */
  function hovers({ at, frame, data, statistic }) {
    const text = (its) => its && Format.hover(its.title, its.record, data, statistic);
    return frame.down.map((_, y) => new Proxy(frame.across.map(() => null), {
      get: (line, x) => (/^\d+$/.test(String(x)) ? text(at(x, y)) : Reflect.get(line, x)),
    }));
  }

  /** Fades what is not selected, so that colours stay comparable; under squares, the cells that there are. */
  function shade(drawn, sized) {
    const colour = sized ? `${drawn.theme.faint}38` : `${drawn.theme.card}bf`;
    return {
      ...base(drawn), z: numbers(drawn, ({ isSelected }) => (sized || !isSelected ? 1 : null)),
      hoverinfo: 'skip', showscale: false, colorscale: [[0, colour], [1, colour]],
    };
  }

  /** Every cell as a square of an area that grows with its elements. */
  function squares(drawn) {
    const cells = places(drawn).filter(({ its }) => drawn.colour.z(its.value) !== null);
    const most = Math.max(...places(drawn).map(({ its }) => its.record.numel));
    const side = drawn.frame.side;
    return {
      type: 'scatter', mode: 'markers', hoverinfo: 'skip', cliponaxis: false,
      x: cells.map(({ x }) => x), y: cells.map(({ y }) => y),
      marker: {
        symbol: 'square', coloraxis: 'coloraxis', line: { width: 0 },
        color: cells.map(({ its }) => drawn.colour.z(its.value)),
        size: cells.map(({ its }) => Math.max(2, side * Math.sqrt(its.record.numel / most))),
        opacity: cells.map(({ its }) => (its.isSelected ? 1 : 0.25)),
      },
    };
  }

  /** The values, in cells that have room for them; else what no colour tells: "—" undefined, "0" exactly nothing. */
  function words(drawn, sized) {
    const { frame, colour, entry, theme } = drawn;
    const all = places(drawn);
    const isLarge = !sized && frame.step.across > 30 && frame.step.down > 16;
    const texts = isLarge ? all.map(({ its }) => Format.statistic(its.value, entry)) : [];
    const hasRoom = isLarge && theme.widest(texts, 11) < frame.step.across - 10;
    const mark = (its) => (sized && colour.z(its.value) !== null ? '' : colour.mark(its));
    const shown = all
      .map((place, index) => ({ ...place, text: hasRoom ? texts[index] : mark(place.its) }))
      .filter(({ text }) => text);
    const ink = ({ its }) => (colour.z(its.value) === null || !its.isSelected ? theme.muted : colour.ink(its.value));
    return {
      type: 'scatter', mode: 'text', hoverinfo: 'skip', textfont: { color: shown.map(ink), size: 11 },
      x: shown.map(({ x }) => x), y: shown.map(({ y }) => y), text: shown.map(({ text }) => text),
    };
  }

  /** The cells one by one, each at its centre. */
  function places({ at, frame }) {
    return frame.down.flatMap((_, y) => frame.across.map((__, x) => (
      { its: at(x, y), x: frame.centres.across[x], y: frame.centres.down[y] }
    ))).filter(({ its }) => its);
  }

  // The U

  /** Its rungs, its line and its dots, in a strip beside the names of the blocks. */
  function us(grid, { frame, colour, theme, data, statistic }) {
    const dots = grid.columns.flatMap((column, place) => (
      column?.depth === undefined ? [] : [{ ...column, place, z: dotValue(column, data, statistic, colour) }]
    ));
    const byName = new Map(dots.map((dot) => [dot.title, dot]));
    const rungs = dots.filter(({ isDown, mate }) => isDown && byName.has(mate));
    const line = { type: 'scatter', mode: 'lines', hoverinfo: 'skip' };
    const ends = rungs.flatMap((dot) => [dot, byName.get(dot.mate), null]);
    const isColoured = dots.some(({ z }) => z !== null);
    return [
      { ...line, ...frame.onStrip(ends), line: { color: theme.line, width: 1 } },
      { ...line, ...frame.onStrip(dots), line: { color: theme.faint, width: 2, shape: 'spline', smoothing: 0.6 } },
      {
        type: 'scatter', mode: 'markers', ...frame.onStrip(dots), customdata: dots.map(({ place }) => place),
        marker: {
          size: frame.dot, line: { width: 1, color: theme.muted },
          opacity: dots.map(({ isSelected }) => (isSelected ? 1 : 0.3)),
          ...(isColoured ? { color: dots.map(({ z }) => z), coloraxis: 'coloraxis' } : { color: theme.muted }),
        },
        hovertext: dots.map((dot) => dotHover(dot, data, statistic)), hovertemplate: '%{hovertext}<extra></extra>',
      },
    ];
  }

  /** The block as a whole, on the scale of the cells. */
  function dotValue({ record }, data, statistic, colour) {
    return GROWING.has(statistic) ? null : colour.z(Statistics.evaluate(statistic, record, data));
  }

  function dotHover({ name, mate, isDown, record }, data, statistic) {
    const [title, ...lines] = Format.hover(name, record, data, statistic).split('<br>');
    const joined = isDown ? `its skip connection leads to ${mate}` : `takes the skip connection of ${mate}`;
    return [title, ...(mate === undefined ? [] : [Format.label(joined)]), ...lines].join('<br>');
  }

  // Choices and words

  /** What a click means: a cell is block × component, a dot of the U a block. */
  function chosen(grid, { customdata, pointNumber }, at) {
    if (customdata !== undefined) return { axes: grid.axes, terms: grid.columns[customdata].terms() };
    const its = Array.isArray(pointNumber) && at(pointNumber[1], pointNumber[0]);
    return its ? { axes: [...grid.axes, 'component'], terms: [...its.column.terms(), ...its.row.terms()] } : null;
  }

  /** The map as rows of text, for those who see no colours; its headings choose as those of the figure do. */
  function table(grid, entry, matrix, hasSelection) {
    const heading = (axes) => ({ name, isSelected, terms }) => (
      { name, isSelected: hasSelection && isSelected, choose: () => ({ axes, terms: terms() }) }
    );
    const lines = matrix.filter((_, y) => grid.rows[y]).map((line) => line.filter((_, x) => grid.columns[x]));
    return {
      caption: `${entry.title} of every ${grid.axes.at(-1)} and component`,
      columns: grid.columns.filter(Boolean).map(heading(grid.axes)),
      rows: grid.rows.filter(Boolean).map(heading(['component'])),
      text: (down, across) => (lines[down][across] ? Format.statistic(lines[down][across].value, entry) : ''),
    };
  }

  function notes({ rows, columns, folded, omitted, hasU }, cells, colour, sized) {
    const isFull = cells.length === rows.filter(Boolean).length * columns.filter(Boolean).length;
    return [
      sized && 'Larger squares hold more elements.',
      hasU && 'Dots of the U are blocks as wholes; its lines are skip connections.',
      folded > 1 && `${folded} neighbouring blocks share a column.`,
      !isFull && 'Empty places hold no keys.',
      colour.undefined && `${Format.plural(colour.undefined, 'cell')} marked — undefined.`,
      omitted && `${Format.plural(omitted, 'component')} that changed least ${omitted === 1 ? 'is' : 'are'} not drawn.`,
    ].filter(Boolean).join(' ');
  }

  return { draw, CENTRES };
})();
