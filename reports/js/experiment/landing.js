// Where every category lands: how far toward B, and how far off that way. One scale for both, so that lengths
// in the figure are those of latents, pixels or features.
const Landing = (() => {
  const [LEFT, BELOW, ABOVE, RIGHT] = [58, 44, 8, 12]; // pixels around the plot
  const [LEAST, MOST] = [220, 460]; // pixels that the plot is high
  const ARCS = [0.25, 0.5, 0.75, 1];
  const LONGEST = 28; // characters of a name

  /** The figure of `view`, { data, measured }. */
  function draw({ data, measured }, _, { theme, width }) {
    const prefix = measured.prefix;
    const points = data.columns.map((column, place) => ({
      ...column,
      x: data.summary(column.selector, `${prefix}toward_b`).mean,
      y: data.summary(column.selector, `${prefix}neither`).mean,
      colour: theme.categories[place % theme.categories.length],
    })).filter(({ x, y }) => x !== null && y !== null);
    if (!points.length) return { empty: 'Nothing to draw: A and B show the same, or nothing was measured.' };
    const seeds = points.flatMap((point) => seedsOf(data, point, prefix));
    const frame = framed([...points, ...seeds], width);
    return {
      data: traces(data, points, seeds, frame, theme),
      layout: layout(frame, measured, theme),
      label: `${Experiment.categories(points.length)} by how far they are toward B and off that way`,
      note: notes(data, points),
      pick: ({ customdata }) => customdata ?? null,
    };
  }

  function seedsOf(data, { selector, place, colour }, prefix) {
    return data.seeds.map((seed, at) => ({ ...data.row(selector, seed), at })).map((row) => ({
      selector, place, colour, seed: row.seed, at: row.at, x: row[`${prefix}toward_b`] ?? null, y: row[`${prefix}neither`] ?? null,
    })).filter(({ x, y }) => x !== null && y !== null);
  }

  /** Ranges that hold all points with A and B, and the pixels that give both axes one scale. */
  function framed(points, width) {
    const room = width - LEFT - RIGHT;
    const xs = points.map(({ x }) => x);
    const [low, high] = [Math.min(-0.06, ...xs.map((x) => x - 0.04)), Math.max(1.08, ...xs.map((x) => x + 0.04))];
    const top = Math.max(0.3, ...points.map(({ y }) => y)) * 1.06;
    const bottom = -0.05;
    const wanted = (room * (top - bottom)) / (high - low);
    const height = Math.min(Math.max(wanted, LEAST), MOST);
    const scale = Math.min(room / (high - low), height / (top - bottom)); // pixels a unit
    const spare = [(room / scale - (high - low)) / 2, height / scale - (top - bottom)];
    const x = [low - spare[0], high + spare[0]];
    const y = [bottom, top + spare[1]];
    return { room, height, x, y, pixel: (point) => ({ x: (point.x - x[0]) * scale, y: (y[1] - point.y) * scale }) };
  }

  function traces(data, points, seeds, frame, theme) {
    const ends = [{ x: 0, y: 0, text: 'A' }, { x: 1, y: 0, text: 'B' }];
    const positions = Tags.sides(
      points.map((point) => ({ ...frame.pixel(point), width: theme.widest([Format.shorten(point.selector, LONGEST)]) })),
      { width: frame.room, height: frame.height, others: ends.map(frame.pixel) },
    );
    const dots = (its, more) => ({
      type: 'scatter', mode: 'markers', x: its.map(({ x }) => x), y: its.map(({ y }) => y), hovertemplate: '%{hovertext}<extra></extra>', ...more,
    });
    const hover = ({ selector, x, y }, what) => [selector, what, `toward B  ${Experiment.number(x)}`, `neither  ${Experiment.number(y)}`].map((text) => Format.label(Format.shorten(text, 80))).join('<br>');
    return [
      { type: 'scatter', mode: 'lines', x: [0, 1], y: [0, 0], line: { color: theme.faint, width: 2 }, hoverinfo: 'skip' },
      dots(ends, {
        mode: 'markers+text', text: ends.map(({ text }) => text), textposition: 'middle center', textfont: { color: theme.card, size: 12 },
        marker: { size: 20, color: theme.muted }, hoverinfo: 'skip', hovertemplate: null,
      }),
      ...(data.seeds.length > 1 ? [dots(seeds, {
        marker: { size: 5, color: seeds.map(({ colour }) => colour), opacity: 0.55 },
        hovertext: seeds.map((point) => hover(point, `seed ${point.seed}`)), customdata: seeds.map(({ place, at }) => ({ place, at })),
      })] : []),
      dots(points, {
        mode: 'markers+text', text: points.map(({ selector }) => Format.label(Format.shorten(selector, LONGEST))), textposition: positions, textfont: { color: theme.ink, size: 12 },
        marker: { size: 11, color: points.map(({ colour }) => colour), line: { width: 1.5, color: theme.card } }, cliponaxis: false,
        hovertext: points.map((point) => hover(point, data.seeds.length > 1 ? 'mean over the seeds' : '')), customdata: points.map(({ place }) => ({ place, at: 0 })),
      }),
    ];
  }

  function layout({ height, x, y }, measured, theme) {
    const arcs = ARCS.map((radius) => ({
      type: 'circle', layer: 'below', x0: -radius, x1: radius, y0: -radius, y1: radius, line: { color: theme.line, width: 1, dash: radius === 1 ? 'solid' : 'dot' },
    }));
    const axis = { showgrid: false, fixedrange: true, tickformat: '~g' };
    return {
      height: height + ABOVE + BELOW,
      margin: { l: LEFT, r: RIGHT, t: ABOVE, b: BELOW },
      shapes: arcs,
      xaxis: { ...axis, range: x, dtick: 0.25, title: { text: `toward B, in ${measured.title}` } },
      yaxis: { ...axis, range: y, dtick: 0.25, title: { text: 'neither A nor B' } },
    };
  }

  function notes(data, points) {
    const missing = data.columns.length - points.length;
    return [
      'Arcs are equally far from A.',
      data.seeds.length > 1 && 'Small points are seeds, large ones their mean.',
      missing && `Without a place, for nothing was measured: ${Experiment.categories(missing)}.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
