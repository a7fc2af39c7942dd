// The histogram of |Δ| in several scans: how far single elements of the selection moved, a line a scan.
const CompareHistogram = (() => {
  const NARROW = 480; // pixels
  const WORDS = { counts: 'elements that changed', energies: 'change energy' };

  /** The figure of `view`; options: measure, counts or energies; logarithmic. */
  function draw(view, { measure, logarithmic }, { theme, width }) {
    const { data } = view;
    const lines = data.scans.map((scan) => ({ scan, bins: bins(view.record.of(scan.place)?.histogram, measure) }));
    const every = lines.flatMap((line) => line.bins);
    if (!every.length) return { empty: 'Nothing to draw: no weight of these keys changed in any of them.' };
    const heights = every.map(({ height }) => height).filter((height) => height > 0);
    return {
      data: lines.map((line) => outline(line, measure, theme)),
      layout: layout(every, [Math.min(...heights), Math.max(...heights)], { measure, logarithmic, width }),
      label: `Histogram of the absolute difference of single elements, a line for each of ${Format.plural(data.scans.length, 'scan')}`,
      legend: Columns.legend(data.scans, theme),
      note: notes(lines),
      canLog: true,
      pick: () => null,
    };
  }

  /** The bins that hold something: their edges, their share of all, and that share per doubling of |Δ|. */
  function bins(histogram, measure) {
    if (!histogram) return [];
    const total = histogram[measure].reduce((sum, value) => sum + value, 0);
    const edge = (place) => (place % 2 ? 1.5 : 1) * 2 ** (Spread.LOWEST_EXPONENT + Math.floor(place / 2));
    const found = histogram.counts.map((count, place) => {
      const [low, high] = [edge(histogram.first + place), edge(histogram.first + place + 1)];
      const share = histogram[measure][place] / total;
      return { low, high, count, share, height: share / Math.log2(high / low) };
    });
    return found.every(({ share }) => Number.isFinite(share)) ? found : [];
  }

  /** A line of steps over the bins of one scan. */
  function outline({ scan, bins: its }, measure, theme) {
    const corners = its.flatMap((bin) => [{ ...bin, at: bin.low }, { ...bin, at: bin.high }]);
    return {
      type: 'scatter', mode: 'lines', name: Columns.title(scan),
      x: corners.map(({ at }) => at), y: corners.map(({ height }) => height || null), connectgaps: false,
      line: { color: Columns.colour(scan, theme), width: 2, dash: Columns.dash(scan, theme) },
      hovertext: corners.map(({ low, high, share, count }) => [
        Columns.title(scan), `|Δ| from ${Format.number(low)} to ${Format.number(high)}`,
        `${Format.share(share)} of its ${WORDS[measure]}`, `${Format.count(count)} elements`,
      ].map(Format.label).join('<br>')),
      hovertemplate: '%{hovertext}<extra></extra>',
    };
  }

  function layout(every, [least, most], { measure, logarithmic, width }) {
    const [low, high] = [Math.min(...every.map((bin) => bin.low)) / 1.2, Math.max(...every.map((bin) => bin.high)) * 1.2];
    const log = { type: 'log', range: [Math.log10(least / 2), Math.log10(most * 1.5)], ...Format.logTicks(least / 2, most * 1.5, 6) };
    return {
      height: width < NARROW ? 320 : 380,
      margin: { l: 64, r: 12, t: 12, b: 48 },
      xaxis: {
        type: 'log', range: [Math.log10(low), Math.log10(high)], ...Format.logTicks(low, high, width < NARROW ? 5 : 8),
        showgrid: false, title: { text: '|Δ|, absolute difference of an element' },
      },
      yaxis: {
        ...(logarithmic ? log : { type: 'linear', range: [0, most * 1.05], tickformat: '~%', nticks: 6 }),
        title: { text: `share of the ${WORDS[measure]}, per doubling` },
      },
    };
  }

  function notes(lines) {
    const still = lines.filter((line) => !line.bins.length).map(({ scan }) => scan.letter);
    const nothing = still.length ? ` Nothing to draw of ${Columns.listed(still)}.` : '';
    return `Each line is drawn over what changed in its own model.${nothing}`;
  }

  return { draw };
})();
