// The ranking of several scans: a row a category, a column a scan, one scale. Where columns would be too
// narrow, the bars of a category lie under each other.
const CompareRanking = (() => {
  const SHOWN = 24; // rows that fit a screen; a button asks for the rest
  const NARROW = 560; // pixels: below, half as many
  const ROW = 26; // pixels
  const BAR = 15; // pixels a bar, where several lie in one row
  const COLUMN = 170; // pixels: below, bars lie under each other
  const GAP = 24; // pixels between columns
  const HEADING = 26; // pixels
  const NOTHING = 'Nothing to rank: integers, tables and EMA copies count in no total unless they are named.';

  /** The figure of `view`; options: axis, statistic, order, logarithmic, whole. */
  function draw(view, { axis, statistic, order, logarithmic, whole }, { theme, width }) {
    const { data } = view;
    const entry = data.statistics.get(statistic);
    const ranked = inOrder(view, axis, entry, order);
    if (!ranked.length) return { empty: NOTHING };
    const most = width < NARROW ? SHOWN / 2 : SHOWN;
    const rows = whole ? ranked : ranked.slice(0, most);
    const canLog = ranked.every(({ values }) => values.every((value) => value === null || value >= 0));
    const grid = layOut(rows, data.scans, entry, { theme, width });
    const scale = scaleOf(rows, entry, logarithmic && canLog, grid);
    const choose = ({ name }) => ({ axes: [axisOfTerms(axis)], terms: Selectors.ofGroup(data, axis, name) });
    return {
      data: data.scans.flatMap((scan) => traces(scan, rows, { view, entry, grid, scale, theme })),
      layout: layout(rows, data.scans, grid, scale, theme),
      label: `${entry.title} of ${Format.plural(ranked.length, 'group')} in ${Format.plural(data.scans.length, 'scan')}, first ${ranked[0].title}`,
      note: Columns.uneven(ranked.map(({ record }) => record), data),
      legend: grid.isStacked ? Columns.legend(data.scans, theme) : [],
      groups: rows.map((row) => ({ ...row, value: inWords(row, data, entry), choose: () => choose(row) })),
      more: ranked.length > most ? ranked.length : 0,
      canLog,
      pick: ({ pointNumber }) => choose(rows[pointNumber]),
    };
  }

  /** All groups of the axis: by the largest difference of any scan, or by that of one; undefined last. */
  function inOrder(view, axis, { name: statistic, ascending }, order) {
    const groups = View.groups(view, axis, view.around([axisOfTerms(axis)]));
    const titles = View.shortNames(groups.map(({ name }) => name));
    const sign = ascending ? 1 : -1;
    const found = groups.map((group) => {
      const values = group.record.values(statistic);
      const [least, most] = Columns.ends(values);
      const foremost = ascending ? least : most;
      return { ...group, values, title: titles.get(group.name), rank: order === 'any' ? foremost : values[Number(order)] };
    });
    return found.sort((one, other) => {
      const isUndefined = [one, other].map(({ rank }) => rank === null);
      if (isUndefined[0] !== isUndefined[1]) return isUndefined[0] ? 1 : -1;
      return sign * (one.rank - other.rank) || (one.title < other.title ? -1 : 1);
    });
  }

  /** Columns beside each other, or all bars in one column. */
  function layOut(rows, scans, entry, { theme, width }) {
    const names = rows.map(({ title }) => Format.shorten(title, width < 480 ? 16 : 26));
    const numbers = rows.flatMap(({ values }) => values.map((value) => Format.statistic(value, entry)));
    const left = theme.widest(names) + 12;
    const column = (width - left - GAP * scans.length) / scans.length;
    const isStacked = column < COLUMN;
    return {
      names, left, width, isStacked,
      column: isStacked ? width - left - GAP : column,
      room: theme.widest(numbers) + 16, // pixels for the numbers beside the bars
      row: isStacked ? Math.max(ROW, scans.length * BAR + 12) : ROW,
      top: isStacked ? 4 : HEADING,
      offset: ({ place }) => (isStacked ? ((place - (scans.length - 1) / 2) * BAR) / (scans.length * BAR + 12) : 0),
      thickness: isStacked ? (BAR - 3) / (scans.length * BAR + 12) : 0.6,
    };
  }

  /** One scale for all columns, with room for the numbers beside the longest bar. */
  function scaleOf(rows, entry, isLogarithmic, { column, room }) {
    const values = rows.flatMap((row) => row.values);
    const positive = values.filter((value) => value > 0);
    const share = Math.min(room / column, 0.6);
    const style = { nticks: 4, tickformat: Format.isShare(entry.range) ? '~%' : '~g' };
    if (isLogarithmic && positive.length) {
      const [least, most] = [Math.min(...positive) * 0.8, Math.max(...positive)];
      const [low, high] = [Math.log10(least), Math.log10(most)];
      const range = [low, high + ((high - low) * share) / (1 - share)];
      return { start: least, axis: { type: 'log', range, ...Format.logTicks(least, most, Math.max(2, Math.floor(column / 60))) } };
    }
    const [least, most] = Columns.ends([0, ...values]);
    const length = most - least || 1;
    return { start: 0, axis: { ...style, type: 'linear', range: [least, least + length / (1 - share)], zeroline: true } };
  }

  /** The bars of a scan and their numbers. */
  function traces(scan, rows, { view, entry, grid, scale, theme }) {
    const side = grid.isStacked || scan.place === 0 ? '' : scan.place + 1;
    const y = rows.map((_, place) => place + grid.offset(scan));
    const values = rows.map((row) => row.values[scan.place]);
    const isBar = (value) => value !== null && (scale.axis.type !== 'log' || value > 0);
    const own = Columns.colour(scan, theme);
    return [
      {
        type: 'bar', orientation: 'h', width: grid.thickness, xaxis: `x${side}`, y, name: Columns.title(scan),
        x: values.map((value) => (isBar(value) ? value : null)),
        marker: { color: rows.map((row) => (row.isSelected ? own : theme.faint)), cornerradius: 2 },
        hovertext: rows.map((row) => Columns.hover(row.name, row.record, view.data, entry.name)),
        hovertemplate: '%{hovertext}<extra></extra>',
      },
      {
        type: 'scatter', mode: 'text', xaxis: `x${side}`, y, hoverinfo: 'skip', textposition: 'middle right',
        x: values.map((value) => (isBar(value) ? Math.max(value, scale.start) : scale.start)),
        text: rows.map((row) => `\u2009${Format.label(number(row, scan.place, entry))}`),
        textfont: { color: theme.ink, size: grid.isStacked ? 11 : 12 }, cliponaxis: false,
      },
    ];
  }

  function number({ values, record }, place, entry) {
    return record.of(place) ? Format.statistic(values[place], entry) : 'not compared';
  }

  function inWords(row, data, entry) {
    return data.scans.map(({ letter, place }) => `${letter} ${number(row, place, entry)}`).join(', ');
  }

  function layout(rows, scans, grid, scale, theme) {
    const plot = grid.width - grid.left;
    const height = Math.max(Theme.HOVER, rows.length * grid.row + grid.top + 30);
    const step = grid.column + GAP;
    const axes = grid.isStacked ? scans.slice(0, 1) : scans;
    const domain = ({ place }) => [(place * step) / plot, Math.min((place * step + grid.column) / plot, 1)];
    return {
      height,
      margin: { l: grid.left, r: 0, t: grid.top, b: height - rows.length * grid.row - grid.top },
      yaxis: {
        tickvals: rows.map((_, place) => place), ticktext: grid.names.map(Format.label),
        range: [rows.length - 0.5, -0.5], showgrid: false, ticks: '', ticklabelstandoff: 6, fixedrange: true,
      },
      ...Object.fromEntries(axes.map((scan) => [
        `xaxis${scan.place ? scan.place + 1 : ''}`, { ...scale.axis, domain: domain(scan), anchor: 'y', fixedrange: true },
      ])),
      annotations: grid.isStacked ? [] : scans.map((scan) => Columns.heading(scan, domain(scan)[0], grid.column, theme)),
    };
  }

  // Groups are leading parts of components: selector terms know one axis for both.
  const axisOfTerms = (axis) => (axis === 'group' ? 'component' : axis);

  return { draw };
})();
