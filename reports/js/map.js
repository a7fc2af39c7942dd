// The map: block × component as a heat map, blocks in network order.
const HeatMap = (() => {
  const ROWS = 48; // components; what moved least stays out of a larger map, and the note says so
  const NARROW = 560; // pixels: below, blocks run downwards
  const CELL = 25; // pixels high
  const WIDEST = 96; // pixels across, in a map of few columns
  const BELOW = 52; // pixels for the colour bar
  const CENTRES = { norm_ratio: 1, mean_a: 0, mean_b: 0, task_cosine: 0, dominance: 0.5 }; // values that mean "no difference"

  /** The figure of `view`; options: statistic, logarithmic. */
  function draw(view, { statistic, logarithmic }, { theme, width }) {
    const entry = view.data.statistics.get(statistic);
    const grid = layOut(view, statistic);
    const cells = grid.cells.flat().filter(Boolean);
    if (!cells.length) return { empty: 'Nothing to draw: none of these keys counts in a total.' };
    const canLog = cells.every(({ value }) => value === null || value >= 0);
    const colour = colours(cells, entry, theme, logarithmic && canLog);
    const isTurned = width < NARROW;
    const [across, down] = isTurned ? [grid.rows, grid.columns] : [grid.columns, grid.rows];
    const at = (x, y) => (isTurned ? grid.cells[x][y] : grid.cells[y][x]);
    const matrix = (value) => down.map((_, y) => across.map((__, x) => (at(x, y) ? value(at(x, y)) : null)));
    const base = { type: 'heatmap', xgap: 2, ygap: 2, hoverongaps: false };
    const faded = `${theme.card}bf`;
    return {
      data: [
        {
          ...base, ...colour.trace, z: matrix(({ value }) => colour.z(value)),
          hovertext: matrix(({ record, title }) => Format.hover(title, record, view.data, statistic)),
          hovertemplate: '%{hovertext}<extra></extra>',
        },
        marks(across, down, (x, y) => colour.mark(at(x, y)), theme),
        {
          // Fades what is not selected; the colours below stay comparable.
          ...base, z: matrix((its) => (its.isSelected ? null : 1)), hoverinfo: 'skip', showscale: false,
          colorscale: [[0, faded], [1, faded]],
        },
      ],
      layout: layout(across, down, { theme, width }),
      label: `${entry.title} by ${grid.axis} and component, ${Format.plural(cells.length, 'cell')}`,
      note: notes(grid, cells, colour),
      canLog,
      pick: ({ x, y }) => at(x, y) && { axes: [grid.axis, 'component'], terms: at(x, y).terms() },
    };
  }

  /** Columns and rows of all that counts, so that cells keep their places when a selection changes. */
  function layOut(view, statistic) {
    const everything = view.around(Selectors.AXES);
    const { axis, columns } = columnsOf(view, everything);
    const moved = View.groups(view, 'group', everything)
      .sort((one, other) => other.record.sum_dd - one.record.sum_dd || (one.name < other.name ? -1 : 1));
    const titles = View.shortNames(moved.map(({ name }) => name));
    const rows = moved.slice(0, ROWS).map(({ name }) => ({ name, title: titles.get(name) }));
    const [x, y] = [columns, rows].map((list) => new Map(list.map(({ name }, place) => [name, place])));
    const members = rows.map(() => columns.map(() => []));
    for (const row of view.around([axis, 'component'])) {
      members[y.get(view.data.label('group', row))]?.[x.get(view.data.label(axis, row))].push(row);
    }
    const cells = members.map((line, down) => line.map((its, across) => (
      its.length ? cell(view, its, statistic, { axis, column: columns[across], row: rows[down] }) : null
    )));
    return { axis, columns, rows, cells, omitted: moved.length - rows.length };
  }

  /** Blocks; in a model without them, which has no depth to show, parts or at last kinds. */
  function columnsOf(view, rows) {
    const present = (axis) => View.groups(view, axis, rows).map(({ name }) => name);
    const isPresent = new Set(present('block'));
    const choices = { block: view.data.blocks.filter((name) => isPresent.has(name)), part: present('part') };
    const axis = Object.keys(choices).find((name) => choices[name].length > 1) ?? 'kind';
    return { axis, columns: (choices[axis] ?? present('kind')).map((name) => ({ name, title: name })) };
  }

  function cell(view, rows, statistic, { axis, column, row }) {
    const record = view.data.record(rows);
    return {
      record,
      value: Statistics.evaluate(statistic, record, view.data),
      isSelected: rows.some(view.isSelected),
      title: `${column.title} · ${row.name}`,
      terms: () => [Selectors.term(axis, column.name), ...Selectors.ofGroup(view.data, 'group', row.name)],
    };
  }

  /** How values become colours: `z` of a value, the trace's scale, and text for cells without a colour. */
  function colours(cells, entry, theme, isLogarithmic) {
    const hasColour = (value) => value !== null && (!isLogarithmic || value > 0);
    const z = (value) => (hasColour(value) ? (isLogarithmic ? Math.log10(value) : value) : null);
    const values = cells.map(({ value }) => z(value)).filter((value) => value !== null);
    const { low, high, isDiverging } = limits(values, entry, isLogarithmic);
    const hasZeros = isLogarithmic || values.some(Boolean);
    const mark = ({ value }) => (value === null ? Format.UNDEFINED : value === 0 && hasZeros ? '0' : '');
    const scale = isDiverging ? 'diverging' : entry.ascending ? 'reversed' : 'sequential';
    return {
      z,
      mark: (its) => (its ? mark(its) : ''),
      undefined: cells.filter(({ value }) => value === null).length,
      trace: {
        zmin: low, zmax: high, colorscale: theme[scale],
        colorbar: {
          orientation: 'h', len: 200, lenmode: 'pixels', thickness: 8, outlinewidth: 0, ticks: '',
          x: 0, xanchor: 'left', xpad: 0, y: 0, yanchor: 'top', ypad: 12,
          tickfont: { size: 12, color: theme.muted }, ...barTicks(low, high, entry, isLogarithmic),
        },
      },
    };
  }

  /** The ends of the scale: around "no difference" where a statistic has that, from 0 where it starts there. */
  function limits(values, { name, range }, isLogarithmic) {
    const [least, most] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 0];
    const centre = isLogarithmic ? undefined : CENTRES[name];
    const reach = Math.max(Math.abs(most - centre), Math.abs(least - centre));
    if (reach > 0) return { low: centre - reach, high: centre + reach, isDiverging: true };
    const low = isLogarithmic || !range.startsWith('0') ? least : 0;
    return { low, high: most > low ? most : low + 1, isDiverging: false };
  }

  function barTicks(low, high, entry, isLogarithmic) {
    if (isLogarithmic) {
      const { tickvals, ticktext } = Format.logTicks(10 ** low, 10 ** high, 4);
      return { tickvals: tickvals.map(Math.log10), ticktext };
    }
    const tickvals = [low, (low + high) / 2, high];
    return { tickvals, ticktext: tickvals.map((tick) => Format.statistic(tick, entry)) };
  }

  /** The cells whose colour does not tell it: "—" is undefined, "0" is exactly nothing. */
  function marks(across, down, text, theme) {
    const places = down.flatMap((_, y) => across.map((__, x) => [x, y, text(x, y)])).filter(([, , its]) => its);
    return {
      type: 'scatter', mode: 'text', hoverinfo: 'skip', textfont: { color: theme.muted, size: 11 },
      x: places.map(([x]) => x), y: places.map(([, y]) => y), text: places.map(([, , its]) => its),
    };
  }

  /** Places as axes: labels upright where the columns are narrow, and only as many as fit. */
  function layout(across, down, { theme, width }) {
    const titles = (list, length) => list.map(({ title }) => Format.shorten(title, length));
    const [above, beside] = [titles(across, 18), titles(down, 20)];
    const left = theme.widest(beside) + 12;
    const step = Math.min(WIDEST, (width - left) / across.length);
    const isUpright = theme.widest(above) > step - 6;
    const top = (isUpright ? theme.widest(above) : 12) + 14;
    const height = Math.max(Theme.HOVER, down.length * CELL + top + BELOW);
    const axis = (labels, every) => {
      const tickvals = labels.map((_, place) => place).filter((place) => place % every === 0);
      const ticktext = tickvals.map((place) => Format.label(labels[place]));
      return { tickvals, ticktext, showgrid: false, ticks: '', fixedrange: true };
    };
    return {
      height,
      margin: { l: left, r: width - left - step * across.length, t: top, b: height - down.length * CELL - top },
      xaxis: {
        ...axis(above, isUpright ? Math.ceil(14 / step) : 1),
        side: 'top', tickangle: isUpright ? -90 : 0, range: [-0.5, across.length - 0.5],
      },
      yaxis: { ...axis(beside, 1), range: [down.length - 0.5, -0.5], ticklabelstandoff: 6 },
    };
  }

  function notes({ rows, columns, omitted }, cells, colour) {
    const sentences = cells.length < rows.length * columns.length ? ['Empty places hold no keys.'] : [];
    if (colour.undefined) sentences.push(`${Format.plural(colour.undefined, 'cell')} marked — undefined.`);
    if (omitted) sentences.push(`${Format.plural(omitted, 'component')} that changed least are not drawn.`);
    return sentences.join(' ');
  }

  return { draw };
})();
