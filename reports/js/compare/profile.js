// The profile along the depth: of the selected categories, a line a scan over the blocks in network order.
const CompareProfile = (() => {
  const HEIGHT = 280; // pixels
  const NONE = 'This model has no blocks in an order, so there is no depth to follow.';

  /** The figure of `view`; options: statistic, logarithmic. */
  function draw(view, { statistic, logarithmic }, { theme, width }) {
    const { data } = view;
    const entry = data.statistics.get(statistic);
    const depth = new Set(data.embedded.blocks);
    const rows = view.around(['block']).filter((row) => depth.has(data.label('block', row)));
    const found = new Map(View.groups(view, 'block', rows).map((group) => [group.name, group]));
    const blocks = data.embedded.blocks.filter((name) => found.has(name)).map((name) => found.get(name));
    if (blocks.length < 2) return { empty: depth.size < 2 ? NONE : 'The selection lies in no two blocks of the network.' };
    const values = blocks.map(({ record }) => record.values(statistic));
    const canLog = values.flat().every((value) => value === null || value >= 0);
    const isLogarithmic = logarithmic && canLog && values.flat().some((value) => value > 0);
    return {
      data: data.scans.map((scan) => line(scan, blocks, values, { data, statistic, theme, isLogarithmic })),
      layout: layout(blocks, values.flat(), entry, { theme, width, isLogarithmic }),
      label: `${entry.title} along ${Format.plural(blocks.length, 'block')}, a line for each of ${Format.plural(data.scans.length, 'scan')}`,
      note: view.text ? `Of ${Format.shorten(view.text, 60)}.` : 'Of all keys that lie in a block: select a category to see it alone.',
      legend: Columns.legend(data.scans, theme),
      canLog,
      pick: ({ x }) => ({ axes: ['block'], terms: [Selectors.term('block', blocks[x].name)] }),
    };
  }

  function line(scan, blocks, values, { data, statistic, theme, isLogarithmic }) {
    const colour = Columns.colour(scan, theme);
    const value = (place) => values[place][scan.place];
    return {
      type: 'scatter', mode: 'lines+markers', name: Columns.title(scan), connectgaps: false,
      x: blocks.map((_, place) => place),
      y: blocks.map((_, place) => (isLogarithmic && !(value(place) > 0) ? null : value(place))),
      line: { color: colour, width: 2, dash: Columns.dash(scan, theme) },
      marker: {
        color: blocks.map(({ isSelected }) => (isSelected ? colour : theme.card)),
        line: { color: colour, width: 1.5 }, size: blocks.length > 60 ? 4 : 7,
      },
      hovertext: blocks.map(({ name, record }) => Columns.hover(name, record, data, statistic)),
      hovertemplate: '%{hovertext}<extra></extra>',
    };
  }

  function layout(blocks, values, entry, { theme, width, isLogarithmic }) {
    const [least, most] = Columns.ends(values);
    const left = theme.widest([Format.statistic(most, entry), '0.0001']) + 14;
    const every = Math.ceil((blocks.length * 18) / Math.max(width - left, 1)); // labels are 18 pixels wide upright
    const tickvals = blocks.map((_, place) => place).filter((place) => place % every === 0);
    const positive = values.filter((value) => value > 0);
    const scale = isLogarithmic
      ? { type: 'log', ...Format.logTicks(Math.min(...positive), most, 5) }
      : { type: 'linear', rangemode: least >= 0 ? 'tozero' : 'normal', tickformat: Format.isShare(entry.range) ? '~%' : '~g', nticks: 6 };
    const names = tickvals.map((place) => blocks[place].name);
    return {
      height: HEIGHT,
      margin: { l: left, r: 12, t: 8, b: theme.widest(names) + 16 },
      xaxis: { tickvals, ticktext: names.map(Format.label), tickangle: -90, showgrid: false, range: [-0.5, blocks.length - 0.5] },
      yaxis: { ...scale, zeroline: least !== null && least < 0 },
    };
  }

  return { draw };
})();
