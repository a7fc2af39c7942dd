// The profile: a statistic along the depth of the network, a line a component.
const Profile = (() => {
  const NARROW = 480; // pixels
  const LEFT = 64; // for the numbers and the title of the axis
  const TICK = 14; // pixels that an upright label takes

  /** The figure of `view`; options: statistic, logarithmic. */
  function draw(view, { statistic, logarithmic }, { theme, width }) {
    const entry = view.data.statistics.get(statistic);
    const depth = depthOf(view);
    if (depth.network.size < 2) return { empty: withoutDepth(depth) };
    const named = Palette.groups(view, 'group', theme);
    const lines = linesOf(view, named.filter(({ name }) => name !== null), depth, statistic);
    const defined = lines.flatMap(({ points }) => points).filter(({ value }) => value !== null);
    if (!defined.length) return { empty: `Nothing to draw: ${entry.title} is undefined for these components.` };
    const canLog = defined.every(({ value }) => value >= 0) && defined.some(({ value }) => value > 0);
    const isLog = logarithmic && canLog;
    const shown = lines.map((line) => ({ ...line, points: line.points.filter(({ value }) => value !== null && !(isLog && value === 0)) }));
    const others = named.find(({ name }) => name === null);
    return {
      data: [...shown].reverse().map((line) => trace(line, depth, view.data, statistic, theme)),
      layout: layout(depth, yaxis(defined, entry, isLog), { theme, width }),
      label: `${entry.title} along ${Format.plural(depth.blocks.length, 'block')}, a line a component: ${lines.map(({ title }) => title).join(', ')}`,
      legend: lines,
      groups: lines.map((line) => ({
        ...line, value: inWords(line, entry), isSelected: true,
        choose: () => ({ axes: ['component'], terms: Selectors.ofGroup(view.data, 'group', line.name) }),
      })),
      note: notes(view, shown, defined, isLog, others),
      canLog,
      pick: ({ customdata: [name, block] }) => ({
        axes: ['block', 'component'],
        terms: [Selectors.term('block', block), ...Selectors.ofGroup(view.data, 'group', name)],
      }),
    };
  }

  /** The blocks that hold keys, in order, and which of them are the network's own: BASE and VAE are not. */
  function depthOf(view) {
    const { data } = view;
    const { names, codes } = data.axes.block;
    const present = new Set();
    for (const row of view.around(Selectors.AXES)) present.add(names[codes[row]]);
    const blocks = data.blocks.filter((name) => present.has(name));
    const network = new Set(data.embedded.blocks.filter((name) => present.has(name)));
    return { blocks, network, place: new Map(blocks.map((name, place) => [name, place])) };
  }

  function withoutDepth({ network }) {
    if (!network.size) return 'No depth to show: no blocks of this model are known.';
    return `No depth to show: this model has one block, ${Format.shorten([...network][0], 40)}.`;
  }

  /** Of every group its points in network order. */
  function linesOf(view, groups, depth, statistic) {
    const { data } = view;
    const [group, block] = [data.axes.group, data.axes.block];
    const members = new Map(groups.map(({ name }) => [name, new Map()]));
    for (const row of view.around(['block'])) {
      const its = members.get(group.names[group.codes[row]]);
      if (!its) continue;
      const name = block.names[block.codes[row]];
      if (!its.has(name)) its.set(name, []);
      its.get(name).push(row);
    }
    return groups.map(({ name, title, colour }) => {
      const held = depth.blocks.filter((its) => members.get(name).has(its));
      return { name, title, colour, points: held.map((its) => point(view, its, members.get(name).get(its), statistic)) };
    });
  }

  function point(view, block, rows, statistic) {
    const record = view.data.record(rows);
    const value = Statistics.evaluate(statistic, record, view.data);
    return { block, record, value, isSelected: rows.some(view.isSelected) };
  }

  /** A line through the network's blocks; what lies beside the network stands alone. */
  function trace({ name, colour, points }, { network, place }, data, statistic, theme) {
    const spots = points.flatMap((its, index) => {
      const isApart = index > 0 && !(network.has(its.block) && network.has(points[index - 1].block));
      return isApart ? [null, its] : [its];
    });
    const each = (value, none = null) => spots.map((its) => (its ? value(its) : none));
    return {
      type: 'scatter', mode: 'lines+markers', connectgaps: false,
      x: each(({ block }) => place.get(block)), y: each(({ value }) => value),
      customdata: each(({ block }) => [name, block]),
      line: { color: colour, width: 2 },
      marker: {
        size: 7, color: each(({ isSelected }) => (isSelected ? colour : theme.card), colour), line: { color: colour, width: 1.5 },
      },
      hovertext: each(({ block, record }) => Format.hover(`${block} · ${name}`, record, data, statistic), ''),
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

  /** Blocks as an axis: labels upright where they are narrow, and only as many as fit. */
  function layout({ blocks }, y, { theme, width }) {
    const labels = blocks.map((name) => Format.shorten(name, 18));
    const step = (width - LEFT - 12) / blocks.length;
    const isUpright = theme.widest(labels) > step - 6;
    const every = isUpright ? Math.ceil(TICK / step) : 1;
    const tickvals = blocks.map((_, place) => place).filter((place) => place % every === 0);
    return {
      height: width < NARROW ? 340 : 440,
      margin: { l: LEFT, r: 12, t: 12, b: (isUpright ? theme.widest(labels) : 12) + 40 },
      xaxis: {
        tickvals, ticktext: tickvals.map((place) => Format.label(labels[place])), tickangle: isUpright ? -90 : 0,
        range: [-0.6, blocks.length - 0.4], showgrid: false, title: { text: 'blocks in network order' },
      },
      yaxis: y,
    };
  }

  /** The ends of a line: "0.301 at most, in OUT05, and 0.0412 at least, in IN01". */
  function inWords({ points }, entry) {
    const defined = points.filter(({ value }) => value !== null).sort((one, other) => other.value - one.value);
    if (!defined.length) return 'undefined';
    const end = ({ block, value }) => `${Format.statistic(value, entry)} in ${Format.shorten(block, 40)}`;
    if (defined.length === 1) return end(defined[0]);
    return `from ${end(defined.at(-1))} to ${end(defined[0])}`;
  }

  function notes(view, lines, defined, isLog, others) {
    const points = lines.flatMap((line) => line.points);
    const zeros = isLog ? defined.filter(({ value }) => value === 0).length : 0;
    const count = others && new Set(others.rows.map((row) => view.data.label('group', row))).size;
    return [
      points.some(({ isSelected }) => !isSelected) && 'Filled points are selected.',
      count && `${Format.plural(count, 'component')} that moved less ${count === 1 ? 'is' : 'are'} not drawn.`,
      zeros && `${Format.plural(zeros, 'point')} at zero ${zeros === 1 ? 'has' : 'have'} no place on a log scale.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
