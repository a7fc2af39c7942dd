// The profile along the depth: of the selected categories, a line a scan over the blocks in network order.
const CompareProfile = (() => {
  const [HEIGHT, LOWER, NARROW] = [380, 300, 480]; // pixels; the lower one where the figure is narrow
  const NONE = 'This model has no blocks in an order, so there is no depth to follow.';

  /** The figure of `view`; options: statistic, logarithmic. */
  function draw(view, { statistic, logarithmic }, { theme, width }) {
    const { data } = view;
    const entry = data.statistics.get(statistic);
    const depth = Depth.of(data, view.around(Selectors.AXES));
    if (depth.network.length < 2) return { empty: NONE };
    const members = depth.places.map(() => []);
    for (const row of view.around(['block'])) members[depth.at(row)].push(row);
    const places = depth.places.map((place, at) => pointOf(view, place, members[at]));
    const blocks = places.filter(({ isInside, rows }) => isInside && rows.length);
    if (!blocks.length) return { empty: 'The selection lies in no block of the network.' };
    const values = blocks.map(({ record }) => record.values(statistic));
    const canLog = values.flat().every((value) => value === null || value >= 0);
    const isLogarithmic = logarithmic && canLog && values.flat().some((value) => value > 0);
    return {
      data: data.scans.map((scan) => line(scan, blocks, values, { data, statistic, theme, isLogarithmic })),
      layout: layout(blocks, values.flat(), entry, { theme, width, isLogarithmic }),
      label: `${entry.title} along ${Format.plural(blocks.length, 'block')}, a line for each of ${Format.plural(data.scans.length, 'scan')}`,
      note: notes(view, blocks),
      legend: Columns.legend(data.scans, theme),
      canLog,
      pick: ({ x }) => ({ axes: ['block'], terms: [blocks[x].term] }),
    };
  }

  /** A place of the depth with what every scan measured of the rows that lie there. */
  function pointOf({ data, isSelected }, place, rows) {
    return { ...place, rows, record: data.record(rows), isSelected: rows.some(isSelected) };
  }

  function notes(view, places) {
    const most = Math.max(...places.map(({ blocks }) => blocks.length));
    return [
      view.text ? `Of ${Format.shorten(view.text, 60)}.` : 'Of all keys that lie in a block: select a category to see it alone.',
      most > 1 && `Up to ${most} neighbouring blocks share a point.`,
    ].filter(Boolean).join(' ');
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
      hovertext: blocks.map((block) => Columns.hover(block.title, block.record, data, statistic)),
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
    const names = tickvals.map((place) => Format.shorten(blocks[place].blocks[0], 18));
    return {
      height: width < NARROW ? LOWER : HEIGHT,
      margin: { l: left, r: 12, t: 8, b: theme.widest(names) + 16 },
      xaxis: { tickvals, ticktext: names.map(Format.label), tickangle: -90, showgrid: false, range: [-0.5, blocks.length - 0.5] },
      yaxis: { ...scale, zeroline: least !== null && least < 0 },
    };
  }

  return { draw };
})();
