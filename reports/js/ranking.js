// The ranking: groups of one axis as bars, the one that differs most on top. Of the whole scan it also
// shows how sure it is: intervals as error bars, and brackets around groups that cannot be told apart.
const Ranking = (() => {
  const SHOWN = 30; // bars that fit a screen; a button asks for the rest
  const BAR = 24; // pixels per bar
  const BRACKET = 16; // pixels beside the numbers
  // The colour of a group by the largest difference that its keys show, and that difference in words.
  const SHADES = {
    changed: ['accent', 'changed'], rounding: ['partly', 'rounding alone'], cast: ['slightly', 'equal after a cast'],
    identical: ['line', 'identical'],
  };
  const NOTHING = 'Nothing to rank: integers, tables and EMA copies count in no total unless they are named.';

  /** The figure of `view`; options: axis, statistic, logarithmic, whole. */
  function draw(view, { axis, statistic, logarithmic, whole }, { theme, width }) {
    const entry = view.data.statistics.get(statistic);
    const intervals = view.data.intervals(axis, statistic);
    const around = view.around([axisOfTerms(axis)]);
    const isWhole = around.length === view.data.counted.length; // the intervals are of all that counts
    const ranked = order(view, axis, entry, around).map((bar) => (
      { ...bar, sure: (isWhole && bar.value !== null && intervals.get(bar.name)) || null }
    ));
    if (!ranked.length) return { empty: NOTHING };
    const bars = whole ? ranked : ranked.slice(0, SHOWN);
    const runs = runsOf(bars);
    const canLog = ranked.every(({ value }) => value === null || value >= 0);
    const scale = xaxis(bars, entry, logarithmic && canLog);
    const choose = ({ name }) => ({ axes: [axisOfTerms(axis)], terms: Selectors.ofGroup(view.data, axis, name) });
    const frame = layout(bars, entry, scale, runs, { theme, width });
    return {
      data: [
        {
          type: 'bar', orientation: 'h', width: 0.62, y: bars.map((_, place) => place),
          x: bars.map(({ value }) => (scale.type === 'log' && value <= 0 ? null : value)),
          marker: {
            color: bars.map((bar) => theme[bar.isSelected ? shade(bar, view.data) : 'faint']), cornerradius: 2,
          },
          error_x: errorBars(bars, scale, theme),
          hovertext: bars.map((bar) => hover(bar, view.data, entry)),
          hovertemplate: '%{hovertext}<extra></extra>',
        },
        // Holds the axis on the right, where the numbers stand in a column of their own.
        { type: 'scatter', x: [null], y: [null], yaxis: 'y2', hoverinfo: 'skip' },
      ],
      layout: frame,
      label: `${entry.title} of ${Format.plural(ranked.length, 'group')}, first ${ranked[0].title}`,
      note: intervals.size ? notes(ranked, runs, isWhole, view.data) : '',
      groups: bars.map((bar) => ({ ...bar, value: inWords(bar, entry), choose: () => choose(bar) })),
      more: ranked.length > SHOWN ? ranked.length : 0,
      canLog,
      legend: legend(bars, view.data, theme),
      labels: (x, y) => labelAt(bars, frame, axis, x, y, choose),
      pick: ({ pointNumber }) => choose(bars[pointNumber]),
    };
  }

  /** The intervals as Plotly draws them; null where no group has one. */
  function errorBars(bars, { range }, theme) {
    if (!bars.some(hasInterval)) return null;
    const lowest = range ? 10 ** range[0] : -Infinity; // a logarithmic axis begins there
    // NaN, since Plotly would draw a bar of no length for null
    const reach = (length) => bars.map((bar) => (hasInterval(bar) ? Math.max(length(bar.sure, bar.value), 0) : NaN));
    return {
      type: 'data', symmetric: false, color: theme.ink, thickness: 1.25, width: 3,
      array: reach(({ high }, value) => high - value),
      arrayminus: reach(({ low }, value) => value - Math.max(low, lowest)),
    };
  }

  /**
   * First and last of the groups of one tier, where a tier has two or more: no two of their intervals are
   * disjoint. Groups without a tier, of which too little is known, may lie between them.
   */
  function runsOf(bars) {
    const runs = new Map();
    bars.forEach(({ sure }, place) => {
      const tier = sure?.tier ?? null;
      if (tier !== null && sure.note !== 'nothing changed') runs.set(tier, { start: runs.get(tier)?.start ?? place, end: place });
    });
    return [...runs.values()].filter(({ start, end }) => start < end);
  }

  /** A bracket on the far right, beside the numbers of its groups. */
  function bracket({ start, end }, offset, theme) {
    const [top, bottom] = [start - 0.32, end + 0.32];
    return {
      type: 'path', xref: 'paper', xsizemode: 'pixel', xanchor: 1, yref: 'y', line: { color: theme.muted, width: 1 },
      path: `M${offset},${top}L${offset + 4},${top}L${offset + 4},${bottom}L${offset},${bottom}`,
    };
  }

  function hover(bar, data, entry) {
    const [title, value, ...others] = Format.hover(bar.name, bar.record, data, entry.name).split('<br>');
    const lines = [...(bar.sure ? [range(bar.sure, entry)] : []), verdicts(bar.rows, data)];
    return [title, value, ...lines.map(Format.label), ...others].join('<br>');
  }

  const hasInterval = ({ sure }) => sure !== null && sure.low !== null && sure.high !== null;

  /** The interval in words, or why there is none. */
  function range({ low, high, keys, note }, entry) {
    if (low === null || high === null) return `no 95 % interval${note && `: ${note}`}`;
    return `95 %: ${Format.statistic(low, entry)} – ${Format.statistic(high, entry)}, from ${Format.plural(keys, 'key')}`;
  }

  /** The largest difference that the keys of a group show. */
  const verdict = ({ rows }, data) => data.verdicts[rows.reduce((most, row) => Math.max(most, data.verdict(row)), 0)];
  const shade = (bar, data) => SHADES[verdict(bar, data)][0];

  /** What the colours of bars mean, where there are several. */
  function legend(bars, data, theme) {
    const found = new Set(bars.filter(({ value }) => value).map((bar) => verdict(bar, data)));
    const shown = [...data.verdicts].reverse().filter((name) => found.has(name));
    return shown.length > 1 ? shown.map((name) => ({ title: SHADES[name][1], colour: theme[SHADES[name][0]] })) : [];
  }

  /** The group whose name or number lies at a place of the figure, in pixels from its corner. */
  function labelAt(bars, { width, margin }, axis, x, y, choose) {
    const bar = bars[Math.floor((y - margin.t) / BAR)];
    if (!bar || y < margin.t || (x >= margin.l && x < width - margin.r)) return null;
    return { title: bar.name, axes: [axisOfTerms(axis)], terms: () => choose(bar).terms };
  }

  /** How many keys have which verdict, the largest difference first: "12 changed, 3 identical". */
  function verdicts(rows, data) {
    const often = data.verdicts.map(() => 0);
    for (const row of rows) often[data.verdict(row)] += 1;
    const words = often.map((count, code) => count && `${count.toLocaleString('en')} ${data.verdicts[code]}`);
    return words.filter(Boolean).reverse().join(', ');
  }

  function inWords({ value, sure }, entry) {
    const words = Format.statistic(value, entry);
    if (!sure) return words;
    return `${words} (${[range(sure, entry), sure.tier !== null && `tier ${sure.tier}`].filter(Boolean).join('; ')})`;
  }

  /** What error bars and brackets mean, and which groups have none. */
  function notes(ranked, runs, isWhole, data) {
    if (!isWhole) return 'Error bars are of the whole scan: clear the selection to see them.';
    const changed = data.verdicts.indexOf('changed');
    const isNoise = !ranked.some(({ rows }) => rows.some((row) => data.verdict(row) === changed));
    return [
      isNoise && 'Only rounding differs in all of these groups: their order means little.',
      ranked.some(hasInterval) && 'Error bars are 95 % intervals, with the keys of a group as its sample.',
      missing(ranked),
      runs.length && 'A bracket joins groups of one tier: no two of their intervals lie apart.',
    ].filter(Boolean).join(' ');
  }

  /** How many groups have no error bar, and why: "No error bar: 2 groups with too few keys." */
  function missing(ranked) {
    const often = new Map();
    for (const { sure } of ranked) {
      if (sure?.note) often.set(sure.note, (often.get(sure.note) ?? 0) + 1);
    }
    const words = Array.from(often, ([note, count]) => `${Format.plural(count, 'group')} (${note})`);
    return words.length && `No error bar: ${words.join(', ')}.`;
  }

  /** Names on the left, numbers on the right, both as wide as they are, and brackets beside them. */
  function layout(bars, entry, scale, runs, { theme, width }) {
    const names = bars.map(({ title }) => Format.shorten(title, width < 480 ? 16 : 26));
    const numbers = bars.map(({ value }) => Format.statistic(value, entry));
    const side = {
      tickvals: bars.map((_, place) => place), range: [bars.length - 0.5, -0.5],
      showgrid: false, ticks: '', ticklabelstandoff: 6, fixedrange: true,
    };
    const height = Math.max(Theme.HOVER, bars.length * BAR + 36);
    const right = theme.widest(numbers) + 12;
    return {
      height, width, // of the figure, by which `labelAt` finds its margins
      shapes: runs.map((run) => bracket(run, right, theme)),
      margin: { l: theme.widest(names) + 12, r: right + (runs.length ? BRACKET : 0), t: 4, b: height - bars.length * BAR - 4 },
      xaxis: scale,
      yaxis: { ...side, ticktext: names.map(Format.label) },
      yaxis2: {
        ...side, ticktext: numbers.map(Format.label), overlaying: 'y', side: 'right', tickfont: { color: theme.ink },
      },
    };
  }

  /** All groups with their value, as analyzer/ranking.py orders them: undefined last, ties by name. */
  function order(view, axis, { name: statistic, ascending }, rows) {
    const groups = View.groups(view, axis, rows);
    const titles = View.shortNames(groups.map(({ name }) => name));
    const found = groups.map((group) => ({
      ...group, title: titles.get(group.name), value: Statistics.evaluate(statistic, group.record, view.data),
    }));
    const sign = ascending ? 1 : -1;
    return found.sort((one, other) => {
      const isUndefined = [one, other].map(({ value }) => value === null);
      if (isUndefined[0] !== isUndefined[1]) return isUndefined[0] ? 1 : -1;
      return sign * (one.value - other.value) || (one.title < other.title ? -1 : 1);
    });
  }

  function xaxis(bars, entry, isLogarithmic) {
    const positive = bars.flatMap(({ value, sure }) => [value, sure?.low, sure?.high]).filter((value) => value > 0);
    const style = { nticks: 5, tickformat: Format.isShare(entry.range) ? '~%' : '~g', side: 'bottom' };
    if (!isLogarithmic || !positive.length) return { ...style, type: 'linear', rangemode: 'tozero', zeroline: true };
    const [least, most] = [Math.min(...positive) * 0.8, Math.max(...positive)];
    const range = [Math.log10(least), Math.log10(most)];
    return { ...style, type: 'log', range, ...Format.logTicks(least, most, 5) };
  }

  // Groups are leading parts of components: selector terms know one axis for both.
  const axisOfTerms = (axis) => (axis === 'group' ? 'component' : axis);

  return { draw };
})();
