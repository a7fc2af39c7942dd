// The ranking: groups of one axis as bars, the one that differs most on top.
const Ranking = (() => {
  const SHOWN = 30; // bars that fit a screen; a button asks for the rest
  const BAR = 24; // pixels per bar
  const NOTHING = 'Nothing to rank: integers, tables and EMA copies count in no total unless they are named.';

  /** The figure of `view`; options: axis, statistic, logarithmic, whole. */
  function draw(view, { axis, statistic, logarithmic, whole }, { theme, width }) {
    const entry = view.data.statistics.get(statistic);
    const ranked = order(view, axis, entry);
    if (!ranked.length) return { empty: NOTHING };
    const bars = whole ? ranked : ranked.slice(0, SHOWN);
    const canLog = ranked.every(({ value }) => value === null || value >= 0);
    const scale = xaxis(bars, entry, logarithmic && canLog);
    const choose = ({ name }) => ({ axes: [axisOfTerms(axis)], terms: Selectors.ofGroup(view.data, axis, name) });
    return {
      data: [
        {
          type: 'bar', orientation: 'h', width: 0.62, y: bars.map((_, place) => place),
          x: bars.map(({ value }) => (scale.type === 'log' && value <= 0 ? null : value)),
          marker: { color: bars.map((bar) => (bar.isSelected ? theme.accent : theme.faint)), cornerradius: 2 },
          hovertext: bars.map(({ name, record }) => Format.hover(name, record, view.data, statistic)),
          hovertemplate: '%{hovertext}<extra></extra>',
        },
        // Holds the axis on the right, where the numbers stand in a column of their own.
        { type: 'scatter', x: [null], y: [null], yaxis: 'y2', hoverinfo: 'skip' },
      ],
      layout: layout(bars, entry, scale, { theme, width }),
      label: `${entry.title} of ${Format.plural(ranked.length, 'group')}, first ${ranked[0].title}`,
      groups: bars.map((bar) => ({ ...bar, value: Format.statistic(bar.value, entry), choose: () => choose(bar) })),
      more: ranked.length > SHOWN ? ranked.length : 0,
      canLog,
      pick: ({ pointNumber }) => choose(bars[pointNumber]),
    };
  }

  /** Names on the left, numbers on the right, both as wide as they are. */
  function layout(bars, entry, scale, { theme, width }) {
    const names = bars.map(({ title }) => Format.shorten(title, width < 480 ? 16 : 26));
    const numbers = bars.map(({ value }) => Format.statistic(value, entry));
    const side = {
      tickvals: bars.map((_, place) => place), range: [bars.length - 0.5, -0.5],
      showgrid: false, ticks: '', ticklabelstandoff: 6, fixedrange: true,
    };
    const height = Math.max(Theme.HOVER, bars.length * BAR + 36);
    return {
      height,
      margin: { l: theme.widest(names) + 12, r: theme.widest(numbers) + 12, t: 4, b: height - bars.length * BAR - 4 },
      xaxis: scale,
      yaxis: { ...side, ticktext: names.map(Format.label) },
      yaxis2: {
        ...side, ticktext: numbers.map(Format.label), overlaying: 'y', side: 'right', tickfont: { color: theme.ink },
      },
    };
  }

  /** All groups with their value, as analyzer/ranking.py orders them: undefined last, ties by name. */
  function order(view, axis, { name: statistic, ascending }) {
    const groups = View.groups(view, axis, view.around([axisOfTerms(axis)]));
    const titles = View.shortNames(groups.map(({ name }) => name));
    const found = groups.map((group) => ({
      ...group, title: titles.get(group.name), value: Statistics.evaluate(statistic, group.record, view.data.total),
    }));
    const sign = ascending ? 1 : -1;
    return found.sort((one, other) => {
      const isUndefined = [one, other].map(({ value }) => value === null);
      if (isUndefined[0] !== isUndefined[1]) return isUndefined[0] ? 1 : -1;
      return sign * (one.value - other.value) || (one.title < other.title ? -1 : 1);
    });
  }

  function xaxis(bars, entry, isLogarithmic) {
    const positive = bars.map(({ value }) => value).filter((value) => value > 0);
    const style = { nticks: 5, tickformat: entry.range === '0 … 1' ? '~%' : '~g', side: 'bottom' };
    if (!isLogarithmic || !positive.length) return { ...style, type: 'linear', rangemode: 'tozero', zeroline: true };
    const [least, most] = [Math.min(...positive) * 0.8, Math.max(...positive)];
    const range = [Math.log10(least), Math.log10(most)];
    return { ...style, type: 'log', range, ...Format.logTicks(least, most, 5) };
  }

  // Groups are leading parts of components: selector terms know one axis for both.
  const axisOfTerms = (axis) => (axis === 'group' ? 'component' : axis);

  return { draw };
})();
