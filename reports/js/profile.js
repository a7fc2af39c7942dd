// The profile: a statistic along the depth of the network, a line a component.
const Profile = (() => {
  const NARROW = 480; // pixels
  const [LEFT, RIGHT] = [64, 12]; // beside the figure, on its left for the numbers and the title of the axis
  const TICK = 14; // pixels that an upright label takes

  /** The figure of `view`; options: statistic, logarithmic. */
  function draw(view, { statistic, logarithmic }, { theme, width }) {
    const entry = view.data.statistics.get(statistic);
    const depth = Depth.of(view.data, view.around(Selectors.AXES));
    if (depth.network.length < 2) return { empty: withoutDepth(depth) };
    const named = Palette.groups(view, 'group', theme);
    const lines = linesOf(view, named.filter(({ name }) => name !== null), depth, statistic);
    const defined = lines.flatMap(({ points }) => points).filter(({ value }) => value !== null);
    if (!defined.length) return { empty: `Nothing to draw: ${entry.title} is undefined for these components.` };
    const canLog = defined.every(({ value }) => value >= 0) && defined.some(({ value }) => value > 0);
    const isLog = logarithmic && canLog;
    const isDrawn = ({ value }) => value !== null && !(isLog && value === 0);
    const shown = lines.map((line) => ({ ...line, points: line.points.filter(isDrawn) }));
    const size = Math.max(2, Math.min(7, 0.6 * stepOf(depth.places, width)));
    const others = named.find(({ name }) => name === null);
    return {
      data: [...shown].reverse().map((line) => trace(line, size, view.data, statistic, theme)),
      layout: layout(depth, yaxis(defined, entry, isLog), { theme, width }),
      label: `${entry.title} along ${Format.plural(depth.places.length, 'place')}, a line a component: ${lines.map(({ title }) => title).join(', ')}`,
      legend: lines,
      groups: lines.map((line) => ({
        ...line, value: inWords(line, entry), isSelected: true,
        choose: () => ({ axes: ['component'], terms: Selectors.ofGroup(view.data, 'group', line.name) }),
      })),
      note: notes(view, depth, shown, defined, isLog, others),
      canLog,
      pick: ({ x, customdata: [name] }) => ({
        axes: ['block', 'component'], terms: [depth.places[x].term, ...Selectors.ofGroup(view.data, 'group', name)],
      }),
    };
  }

  function withoutDepth({ network }) {
    if (!network.length) return 'No depth to show: no blocks of this model are known.';
    return `No depth to show: this model has one block, ${Format.shorten(network[0], 40)}.`;
  }

  /** Of every group its points along the depth. */
  function linesOf(view, groups, depth, statistic) {
    const { names, codes } = view.data.axes.group;
    const members = new Map(groups.map(({ name }) => [name, depth.places.map(() => [])]));
    for (const row of view.around(['block'])) members.get(names[codes[row]])?.[depth.at(row)].push(row);
    return groups.map(({ name, title, colour }) => {
      const held = members.get(name).map((rows, at) => ({ rows, at })).filter(({ rows }) => rows.length);
      return { name, title, colour, points: held.map(({ rows, at }) => point(view, depth.places[at], at, rows, statistic)) };
    });
  }

  function point(view, place, at, rows, statistic) {
    const record = view.data.record(rows);
    const value = Statistics.evaluate(statistic, record, view.data);
    return { place, at, record, value, isSelected: rows.some(view.isSelected) };
  }

  /** A line through the network's blocks; what lies beside the network stands alone. */
  function trace({ name, colour, points }, size, data, statistic, theme) {
    const spots = points.flatMap((its, index) => {
      const isApart = index > 0 && !(its.place.isInside && points[index - 1].place.isInside);
      return isApart ? [null, its] : [its];
    });
    const each = (value, none = null) => spots.map((its) => (its ? value(its) : none));
    return {
      type: 'scatter', mode: 'lines+markers', connectgaps: false,
      x: each(({ at }) => at), y: each(({ value }) => value),
      customdata: each(({ place }) => [name, place.title]),
      line: { color: colour, width: Math.min(2, size / 2) },
      marker: {
        size, color: each(({ isSelected }) => (isSelected ? colour : theme.card), colour), line: { color: colour, width: Math.min(1.5, size / 3) },
      },
      hovertext: each(({ place, record }) => Format.hover(`${place.title} · ${name}`, record, data, statistic), ''),
      hovertemplate: '%{hovertext}<extra></extra>',
    };
  }

  function yaxis(defined, entry, isLog) {
    const title = { text: Format.label(entry.title) };
    if (!isLog) {
      const style = { nticks: 8, tickformat: Format.isShare(entry.range) ? '~%' : '~g' };
      return { ...style, title, type: 'linear', rangemode: entry.range.startsWith('0') ? 'tozero' : 'normal' };
    }
    const positive = defined.map(({ value }) => value).filter((value) => value > 0);
    const [low, high] = [Math.min(...positive) / 1.3, Math.max(...positive) * 1.3];
    return { title, type: 'log', range: [Math.log10(low), Math.log10(high)], ...Format.logTicks(low, high, 8) };
  }

  const stepOf = (places, width) => (width - LEFT - RIGHT) / places.length;

  /** Blocks as an axis: labels upright where they are narrow, and only as many as fit. */
  function layout({ places }, y, { theme, width }) {
    const labels = places.map(({ blocks }) => Format.shorten(blocks[0], 18));
    const widest = theme.widest(labels);
    const step = stepOf(places, width);
    const isUpright = widest > step - 6;
    const every = isUpright ? Math.ceil(TICK / step) : 1;
    const tickvals = places.map((_, at) => at).filter((at) => at % every === 0);
    return {
      height: width < NARROW ? 340 : 440,
      margin: { l: LEFT, r: RIGHT, t: 12, b: (isUpright ? widest : 12) + 40 },
      xaxis: {
        tickvals, ticktext: tickvals.map((at) => Format.label(labels[at])), tickangle: isUpright ? -90 : 0,
        range: [-0.6, places.length - 0.4], showgrid: false, title: { text: 'blocks in network order' },
      },
      yaxis: y,
    };
  }

  /** The ends of a line: "0.301 at most, in OUT05, and 0.0412 at least, in IN01". */
  function inWords({ points }, entry) {
    const defined = points.filter(({ value }) => value !== null).sort((one, other) => other.value - one.value);
    if (!defined.length) return 'undefined';
    const end = ({ place, value }) => `${Format.statistic(value, entry)} in ${Format.shorten(place.title, 40)}`;
    if (defined.length === 1) return end(defined[0]);
    return `from ${end(defined.at(-1))} to ${end(defined[0])}`;
  }

  function notes(view, { places }, lines, defined, isLog, others) {
    const points = lines.flatMap((line) => line.points);
    const zeros = isLog ? defined.filter(({ value }) => value === 0).length : 0;
    const count = others && new Set(others.rows.map((row) => view.data.label('group', row))).size;
    return [
      places.some(({ blocks }) => blocks.length > 1) && 'Neighbouring blocks are drawn together: there are too many to tell apart.',
      points.some(({ isSelected }) => !isSelected) && 'Filled points are selected.',
      count && `${Format.plural(count, 'component')} that moved less ${count === 1 ? 'is' : 'are'} not drawn.`,
      zeros && `${Format.plural(zeros, 'point')} at zero ${zeros === 1 ? 'has' : 'have'} no place on a log scale.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
