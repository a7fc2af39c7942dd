// The scatter of several scans: of each its keys by how far they moved and how far they turned, on common
// axes and in common colours.
const CompareScatter = (() => {
  const POINTS = 4000; // SVG points that a page can draw at once, in all scans together
  const [LEAST, HEIGHT, GAP, HEADING] = [250, 330, 34, 30]; // pixels
  const [LEFT, BELOW] = [64, 48]; // pixels for the numbers
  const [SMALLEST, LARGEST] = [5, 20]; // pixels that a point is across

  /** The figure of `view`; options: colour, the axis that colours the points. */
  function draw(view, { colour }, { theme, width }) {
    const { data } = view;
    const found = data.scans.map((scan) => drawable(view, scan, POINTS / data.scans.length));
    const every = found.flatMap(({ points }) => points);
    if (!every.length) return { empty: 'Nothing to draw: none of these keys both moved and turned.' };
    const groups = Palette.groups(view, colour, theme);
    const colourOf = new Map(groups.flatMap(({ rows, colour: its }) => rows.map((row) => [row, its])));
    const grid = Columns.facets(data.scans, { room: width - LEFT - 12, least: LEAST, gap: GAP, height: HEIGHT, above: HEADING + BELOW });
    const largest = Math.max(...every.map(({ numel }) => numel));
    const isDrawn = new Set(every.map(({ row }) => row));
    return {
      data: data.scans.flatMap((scan) => traces(scan, found[scan.place].points, { view, theme, colourOf, largest })),
      layout: layout(data.scans, every, grid, theme),
      label: `${Format.plural(every.length, 'point')} by relative change and cosine distance, in ${Format.plural(data.scans.length, 'scan')}`,
      legend: groups.filter(({ rows }) => rows.some((row) => isDrawn.has(row))),
      note: notes(data.scans, found),
      pick: ({ customdata }) => ({ axes: ['key'], terms: [Selectors.term('key', data.key(customdata))] }),
    };
  }

  /** The keys of a scan that have a place: what is selected first, then those that changed most. */
  function drawable(view, scan, most) {
    const [x, y] = ['relative_change', 'cosine_distance'].map((name) => scan.data.column(name));
    const { sum_dd: energies, numel } = scan.data.sums;
    const points = [];
    for (const row of view.around(Selectors.AXES)) {
      const own = scan.own[row];
      if (own >= 0 && x[own] > 0 && y[own] > 0) {
        points.push({ row, x: x[own], y: y[own], numel: numel[own], weight: view.isSelected(row) ? Infinity : energies[own] });
      }
    }
    points.sort((one, other) => (one.weight === other.weight ? one.row - other.row : other.weight - one.weight));
    return { points: points.slice(0, most), hidden: Math.max(0, points.length - most) };
  }

  function traces(scan, points, { view, theme, colourOf, largest }) {
    const side = scan.place ? scan.place + 1 : '';
    const trace = (its, marker) => ({
      type: 'scatter', mode: 'markers', xaxis: `x${side}`, yaxis: `y${side}`, name: Columns.title(scan),
      x: its.map(({ x }) => x), y: its.map(({ y }) => y), customdata: its.map(({ row }) => row),
      marker: {
        size: its.map(({ numel }) => SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(numel / largest)),
        line: { width: 0.75, color: theme.card }, ...marker,
      },
    });
    const shown = points.filter(({ row }) => view.isSelected(row));
    return [
      { ...trace(points.filter(({ row }) => !view.isSelected(row)), { color: theme.faint, opacity: 0.5 }), hoverinfo: 'skip' },
      {
        ...trace(shown, { color: shown.map(({ row }) => colourOf.get(row) ?? theme.muted), opacity: 0.75 }),
        hovertext: shown.map(({ row }) => Columns.hover(view.data.key(row), view.data.record([row]), view.data, 'relative_change')),
        hovertemplate: '%{hovertext}<extra></extra>',
      },
    ];
  }

  function layout(scans, points, grid, theme) {
    const axes = scans.map((scan) => {
      const { x, y, isFirst } = grid.of(scan);
      const side = scan.place ? scan.place + 1 : '';
      return [
        [`xaxis${side}`, {
          ...axis(points.map((its) => its.x), grid.column / 60), domain: x, anchor: `y${side}`, title: { text: 'relative change' },
        }],
        [`yaxis${side}`, {
          ...axis(points.map((its) => its.y), 8), domain: y, anchor: `x${side}`, showticklabels: isFirst,
          ...(isFirst && { title: { text: 'cosine distance' } }),
        }],
      ];
    });
    return {
      height: grid.plotHeight + HEADING + BELOW,
      margin: { l: LEFT, r: 12, t: HEADING, b: BELOW },
      ...Object.fromEntries(axes.flat()),
      annotations: scans.map((scan) => ({ ...Columns.heading(scan, grid.of(scan).x[0], grid.column, theme), y: grid.of(scan).y[1], yshift: 4 })),
    };
  }

  /** One logarithmic axis for all scans, with at most about `room` labels. */
  function axis(values, room) {
    const [least, most] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, 0]);
    const margin = most / least < 3 ? 2 : 1.3; // room for the points at the ends, and for a single one
    const [low, high] = [least / margin, most * margin];
    const ticks = Format.logTicks(low, high, Math.max(2, Math.floor(room)));
    return { type: 'log', range: [Math.log10(low), Math.log10(high)], fixedrange: true, ...ticks };
  }

  function notes(scans, found) {
    const still = scans.filter(({ place }) => !found[place].points.length).map(({ letter }) => letter);
    const hidden = found.reduce((sum, its) => sum + its.hidden, 0);
    return [
      'Larger points hold more elements; axes and colours are the same for all.',
      still.length && `No key of these both moved and turned in ${Columns.listed(still)}.`,
      hidden && `${Format.plural(hidden, 'point')} of keys that changed less ${hidden === 1 ? 'is' : 'are'} not drawn.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
