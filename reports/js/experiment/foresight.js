// A statistic of the weights against an effect, a point a category: whether the one foretells the other.
const Foresight = (() => {
  const [LEFT, BELOW, ABOVE, RIGHT, HEIGHT] = [56, 44, 12, 16, 330]; // pixels around the plot, and its own height
  const WIDE = 30; // of the largest over the least: then the axis is logarithmic
  const LONGEST = 28; // characters of a name

  /** The figure of `view`, { data }; options: statistic, effect. */
  function draw({ data }, { statistic, effect }, { theme, width }) {
    const entry = data.statistics.get(statistic);
    const points = data.columns.map((column) => ({
      ...column, x: column.statistics[statistic] ?? null, ...seen(data.summary(column.selector, effect)),
    })).filter(({ x, y }) => x !== null && y !== null);
    if (!entry || !points.length) return { empty: 'Nothing to draw: no category has both.' };
    const frame = framed(points, width);
    return {
      data: traces(data, points, frame, { entry, effect }, theme),
      layout: layout(frame, entry, Experiment.title(data, effect)),
      label: `${Experiment.title(data, effect)} of ${Experiment.categories(points.length)} by ${entry.title}`,
      note: sentence(data, statistic, effect, points.length),
      pick: ({ customdata }) => customdata ?? null,
    };
  }

  const seen = ({ mean: y, low, high }) => ({ y, low, high });

  function framed(points, width) {
    const xs = points.map(({ x }) => x);
    const isLog = Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > WIDE;
    const across = isLog ? Math.log10 : (value) => value;
    const x = around(xs.map(across), 0.08);
    const y = around([0, ...points.flatMap((its) => [its.y, its.low ?? its.y, its.high ?? its.y])], 0.06);
    const room = width - LEFT - RIGHT;
    const pixel = (its) => ({ x: (room * (across(its.x) - x[0])) / (x[1] - x[0]), y: (HEIGHT * (y[1] - its.y)) / (y[1] - y[0]) });
    return { isLog, x, y, room, pixel };
  }

  function around(values, share) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low || Math.abs(high) || 1) * share;
    return [low - room, high + room];
  }

  function traces(data, points, frame, { entry, effect }, theme) {
    const positions = Tags.sides(
      points.map((its) => ({ ...frame.pixel(its), width: theme.widest([Format.shorten(its.selector, LONGEST)]) })), { width: frame.room, height: HEIGHT },
    );
    const reach = (length) => points.map((its) => (its.low === null ? NaN : length(its)));
    return [{
      type: 'scatter', mode: 'markers+text', x: points.map(({ x }) => x), y: points.map(({ y }) => y),
      text: points.map(({ selector }) => Format.label(Format.shorten(selector, LONGEST))), textposition: positions, textfont: { color: theme.ink, size: 12 },
      marker: { size: 10, color: theme.accent, line: { width: 1.5, color: theme.card } }, cliponaxis: false,
      error_y: {
        type: 'data', symmetric: false, color: theme.faint, thickness: 1.25, width: 0,
        array: reach(({ y, high }) => high - y), arrayminus: reach(({ y, low }) => y - low),
      },
      hovertext: points.map((its) => [
        its.selector, `${entry.title}  ${Format.statistic(its.x, entry)}`, `${Experiment.title(data, effect)}  ${Experiment.number(its.y)} ${Experiment.reach(its)}`,
      ].map((text) => Format.label(Format.shorten(text, 80))).join('<br>')),
      hovertemplate: '%{hovertext}<extra></extra>',
      customdata: points.map(({ place }) => ({ place, at: 0 })),
    }];
  }

  function layout({ isLog, x, y, room }, entry, effect) {
    const ticks = isLog ? Format.logTicks(10 ** x[0], 10 ** x[1], Math.max(2, Math.floor(room / 60))) : { nticks: 6, tickformat: Format.isShare(entry.range) ? '~%' : '~g' };
    return {
      height: HEIGHT + ABOVE + BELOW,
      margin: { l: LEFT, r: RIGHT, t: ABOVE, b: BELOW },
      xaxis: { type: isLog ? 'log' : 'linear', range: x, fixedrange: true, ...ticks, title: { text: `${entry.title} of the weights` } },
      yaxis: { range: y, fixedrange: true, zeroline: true, tickformat: '~g', title: { text: effect } },
    };
  }

  function sentence(data, statistic, effect, count) {
    const found = data.correlations.find((its) => its.statistic === statistic && its.effect === effect);
    if (!found || found.spearman === null) return `ρ is undefined: too few of ${Experiment.categories(count)} have both, or all have the same.`;
    const interval = found.low === null ? '' : ` (95 %: ${Experiment.number(found.low)} … ${Experiment.number(found.high)})`;
    return `Spearman’s ρ = ${Experiment.number(found.spearman)}${interval} over ${Experiment.categories(found.n)}.`;
  }

  return { draw };
})();
