// The scatter: a point a key, how far it moved against how far it turned.
const Scatter = (() => {
  const POINTS = 4000; // SVG points that a page can draw at once
  const NARROW = 480; // pixels
  const SMALLEST = 6; // pixels across
  const LARGEST = 26;
  const NOTHING = 'Nothing to draw: none of these keys both moved and turned.';

  /** The figure of `view`; options: colour, the axis that colours the points. */
  function draw(view, { colour }, { theme, width }) {
    const { data } = view;
    const around = view.around(Selectors.AXES);
    const [x, y] = [data.column('relative_change'), data.column('cosine_distance')];
    const drawable = around.filter((row) => x[row] > 0 && y[row] > 0);
    if (!drawable.length) return { empty: NOTHING, note: notes(view, around, [], []) };
    const energy = (row) => (view.isSelected(row) ? Infinity : data.sums.sum_dd[row]);
    const drawn = drawable.length > POINTS
      ? [...drawable].sort((one, other) => energy(other) - energy(one) || one - other).slice(0, POINTS)
      : drawable;
    const isNarrow = width < NARROW;
    const size = sizes(data, drawn);
    const named = coloured(view, colour, drawn, theme);
    const point = (rows, marker) => ({
      type: 'scatter', mode: 'markers',
      x: Array.from(rows, (row) => x[row]), y: Array.from(rows, (row) => y[row]), customdata: Array.from(rows),
      marker: { size: Array.from(rows, size), line: { width: 0.75, color: theme.card }, ...marker },
    });
    const faded = Array.from(drawn).filter((row) => !view.isSelected(row));
    return {
      data: [
        turned(x, drawn, theme),
        { ...point(faded, { color: theme.faint, opacity: 0.5 }), hoverinfo: 'skip' },
        ...[...named].reverse().map(({ rows, colour: its }) => ({
          ...point(rows, { color: its, opacity: 0.75 }),
          hovertext: Array.from(rows, (row) => hover(data, row)),
          hovertemplate: '%{hovertext}<extra></extra>',
        })),
      ],
      layout: {
        height: isNarrow ? 340 : 440,
        margin: { l: 64, r: 12, t: 12, b: 48 },
        xaxis: { ...axis(x, drawn, isNarrow ? 6 : 10), title: { text: 'relative change' } },
        yaxis: { ...axis(y, drawn, 8), title: { text: 'cosine distance' } },
      },
      label: `${Format.plural(drawn.length, 'key')} by relative change and cosine distance`,
      legend: named,
      note: notes(view, around, drawable, drawn),
      pick: ({ customdata }) => ({ axes: ['key'], terms: [Selectors.term('key', data.key(customdata))] }),
    };
  }

  /** A logarithmic axis with at most about `room` labels. */
  function axis(values, rows, room) {
    const [least, most] = extent(values, rows);
    const margin = most / least < 3 ? 2 : 1.3; // room for the points at the ends, and for a single one
    const [low, high] = [least / margin, most * margin];
    return { type: 'log', range: [Math.log10(low), Math.log10(high)], ...Format.logTicks(low, high, room) };
  }

  function extent(values, rows) {
    let [least, most] = [Infinity, -Infinity];
    for (const row of rows) [least, most] = [Math.min(least, values[row]), Math.max(most, values[row])];
    return [least, most];
  }

  /** Area for elements: the smallest key stays visible, the largest does not hide the others. */
  function sizes(data, rows) {
    const [, most] = extent(data.sums.numel, rows);
    return (row) => SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(data.sums.numel[row] / most);
  }

  /** The rows that are drawn by their colour; groups without any have none. */
  function coloured(view, axis, drawn, theme) {
    const isDrawn = new Uint8Array(view.data.size);
    for (const row of drawn) isDrawn[row] = 1;
    return Palette.groups(view, axis, theme)
      .map((group) => ({ ...group, rows: group.rows.filter((row) => isDrawn[row]) }))
      .filter(({ rows }) => rows.length);
  }

  /** Where keys lie that turned and kept their length: there, cosine distance = relative change² / 2. */
  function turned(x, rows, theme) {
    const [least, most] = extent(x, rows);
    const ends = [least, Math.min(most, 2)];
    return {
      type: 'scatter', mode: 'lines', hoverinfo: 'skip', line: { color: theme.muted, width: 1, dash: 'dot' },
      x: ends, y: ends.map((end) => end ** 2 / 2),
    };
  }

  function hover(data, row) {
    const place = ['part', 'block', 'component', 'kind'].map((axis) => data.label(axis, row)).join(' · ');
    const lines = Format.hover(data.key(row), data.record([row]), data, 'cosine_distance');
    const [key, ...statistics] = lines.split('<br>');
    return [key, Format.label(Format.shorten(place, 80)), ...statistics].join('<br>');
  }

  /** What the picture means, and how many keys are not in it and why. */
  function notes({ data }, around, drawable, drawn) {
    const isDrawable = new Set(drawable);
    const missing = around.filter((row) => !isDrawable.has(row));
    const unchanged = missing.filter((row) => data.sums.numeric[row] && !data.sums.changed[row]).length;
    const rest = missing.length - unchanged;
    const hidden = drawable.length - drawn.length;
    const are = (number, noun) => `${Format.plural(number, noun)} ${number === 1 ? 'is' : 'are'} not drawn`;
    return [
      drawn.length && 'Larger points hold more elements.',
      drawn.length && 'On the dotted line keys turned and kept their length, off it they also grew or shrank.',
      unchanged && `${are(unchanged, 'unchanged key')}.`,
      rest && `${are(rest, 'key')}: without a direction, or only the length changed.`,
      hidden && `${are(hidden, 'more key')}, having changed less than these.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
