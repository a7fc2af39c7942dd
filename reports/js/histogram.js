// The histogram of |Δ|: how far single elements of the selection moved, beside those of the whole scan.
const Histogram = (() => {
  const NARROW = 480; // pixels
  const VISIBLE = 1e-3; // of the figure's height
  const NOTHING = 'Nothing to draw: no weight of these keys changed.';
  const MEASURES = { // what a bar counts, and its words
    counts: { axis: 'share of the elements that changed', noun: 'elements that changed' },
    energies: { axis: 'share of the change energy', noun: 'change energy' },
  };

  /** The figure of `view`; options: measure, counts or energies; logarithmic. */
  function draw(view, { measure, logarithmic }, { theme, width }) {
    const { data, record } = view;
    const own = barsOf(record.histogram, measure);
    if (!own.length) return { empty: NOTHING };
    if (!own.every(({ share }) => Number.isFinite(share))) return { empty: 'Nothing to draw: the energies are beyond fp64.' };
    const whole = view.text ? barsOf(data.total.histogram, measure).filter(({ share }) => Number.isFinite(share)) : [];
    const every = [...own, ...whole];
    const marks = marksOf(record, theme);
    const most = Math.max(...every.map(({ height }) => height));
    const least = Math.min(...every.map(({ height }) => height).filter((height) => height > 0));
    const range = logarithmic ? [least / 2, most * 1.5] : [0, most * 1.05];
    return {
      data: [
        bars(own, measure, theme),
        outline(whole, theme),
        ...marks.map(({ at, colour }) => ({
          type: 'scatter', mode: 'lines', hoverinfo: 'skip', x: [at, at], y: range, line: { color: colour, width: 1.5, dash: 'dot' },
        })),
      ],
      layout: layout(every, marks, range, { measure, logarithmic, theme, width }),
      label: `Histogram of the absolute difference of single elements: ${halves(record.histogram)}`,
      note: notes(view, record, marks),
      canLog: true,
      pick: () => null,
    };
  }

  /** The bins that hold something: their edges, their share of all, and that share per doubling of |Δ|. */
  function barsOf(histogram, measure) {
    const total = histogram[measure].reduce((sum, value) => sum + value, 0);
    return histogram.counts.flatMap((count, place) => {
      if (!count) return [];
      const [low, high] = edges(histogram.first + place);
      const share = histogram[measure][place] / total;
      return [{ low, high, count, energy: histogram.energies[place], share, height: share / Math.log2(high / low) }];
    });
  }

  /** The edges of a bin as drawn; the outermost have none, and are drawn as wide as the others. */
  function edges(index) {
    return [index, index + 1].map((place) => (place % 2 ? 1.5 : 1) * 2 ** (Spread.LOWEST_EXPONENT + Math.floor(place / 2)));
  }

  function bars(list, measure, theme) {
    return {
      type: 'bar',
      x: list.map(({ low, high }) => (low + high) / 2), width: list.map(({ low, high }) => high - low),
      y: list.map(({ height }) => height), customdata: list.map(({ count, energy }) => [count, energy]),
      marker: { color: theme.accent, opacity: 0.8, line: { width: 0.5, color: theme.card } },
      hovertext: list.map(({ low, high, share, count, energy }) => [
        `|Δ| from ${Format.number(low)} to ${Format.number(high)}`,
        `${Format.share(share)} of the ${MEASURES[measure].noun}`,
        `${Format.count(count)} elements`,
        `change energy  ${Format.number(energy)}`,
      ].map(Format.label).join('<br>')),
      hovertemplate: '%{hovertext}<extra></extra>',
    };
  }

  /** The whole scan as a line of steps around its bars. */
  function outline(list, theme) {
    const corners = list.flatMap(({ low, high, height }) => [[low, height], [high, height]]);
    return {
      type: 'scatter', mode: 'lines', hoverinfo: 'skip', line: { color: theme.ink, width: 1.25 },
      x: corners.map(([x]) => x), y: corners.map(([, y]) => y),
    };
  }

  /** What to compare |Δ| with: its own root mean square, and the one that rounding alone would leave. */
  function marksOf(record, theme) {
    const root = (squares) => Math.sqrt(squares / record.numeric);
    const marks = [
      { at: root(record.sum_ulp_sq / 12), title: 'rounding', colour: theme.ink, rise: 0 },
      { at: root(record.sum_dd), title: 'root mean square', colour: theme.muted, rise: 14 },
    ];
    return marks.filter(({ at }) => at > 0 && at < Infinity);
  }

  function layout(list, marks, range, { measure, logarithmic, theme, width }) {
    // Bars that nobody could see would only make the others narrow.
    const visible = list.filter(({ height }) => logarithmic || height > VISIBLE * range[1]);
    const ends = [...visible.flatMap(({ low, high }) => [low, high]), ...marks.map(({ at }) => at)];
    const [low, high] = [Math.min(...ends) / 1.2, Math.max(...ends) * 1.2];
    const isNarrow = width < NARROW;
    const place = (at) => Math.log10(at / low) / Math.log10(high / low);
    return {
      height: isNarrow ? 340 : 440,
      margin: { l: 64, r: 12, t: 38, b: 48 },
      bargap: 0,
      xaxis: {
        type: 'log', range: [Math.log10(low), Math.log10(high)], ...Format.logTicks(low, high, isNarrow ? 5 : 8),
        showgrid: false, title: { text: '|Δ|, absolute difference of an element' },
      },
      yaxis: { ...yaxis(range, logarithmic), title: { text: `${MEASURES[measure].axis}, per doubling` } },
      annotations: marks.map(({ at, title, colour, rise }) => ({
        x: Math.log10(at), xref: 'x', xanchor: place(at) > 0.6 ? 'right' : 'left', y: 1, yref: 'paper', yanchor: 'bottom',
        yshift: rise, text: title, showarrow: false, font: { size: 12, color: colour },
      })),
    };
  }

  /** Shares as an axis. */
  function yaxis(range, logarithmic) {
    if (!logarithmic) return { type: 'linear', range, tickformat: '~%', nticks: 6 };
    const { tickvals } = Format.logTicks(...range, 6);
    const ticktext = tickvals.map((tick) => `${Number((100 * tick).toPrecision(1))} %`);
    return { type: 'log', range: range.map(Math.log10), tickvals, ticktext };
  }

  /** Where half of the elements, and half of the energy, lie on either side; read from the bins. */
  function halves(histogram) {
    const half = (measure) => {
      const list = barsOf(histogram, measure);
      let left = 0.5;
      for (const { low, high, share } of list) {
        if (share >= left) return low * (high / low) ** (left / share);
        left -= share;
      }
      return list.at(-1).high;
    };
    const middle = `half of the elements that changed moved by less than about ${Format.number(half('counts'))}`;
    if (!histogram.energies.every(Number.isFinite) || !histogram.energies.some(Boolean)) return middle;
    return `${middle}, and half of the change energy is of those that moved by more than ${Format.number(half('energies'))}`;
  }

  function notes({ text }, record, marks) {
    const { histogram } = record;
    const still = 1 - histogram.counts.reduce((sum, count) => sum + count, 0) / record.numeric;
    const sentence = halves(histogram);
    const has = (title) => marks.some((mark) => mark.title === title);
    return [
      `${sentence[0].toUpperCase()}${sentence.slice(1)}.`,
      text && 'The line is the whole scan.',
      still > 0 && `${Format.share(still)} of the elements did not change and are not drawn.`,
      has('rounding') && '“Rounding” is the root mean square that rounding to the coarser of the two dtypes would leave.',
      !has('rounding') && record.sum_ulp_sq === Infinity && 'What rounding would leave is not known for this way of storing.',
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
