// What all figures of several scans have in common: a colour for every scan, names, and the lines that
// hovering shows. Knows no figure.
const Columns = (() => {
  const COUNT = new Intl.NumberFormat('en'); // costs much to make, and a figure has thousands of counts
  const LETTERS = 4; // characters that "B12 " takes

  /** The colour of a scan in all figures. */
  const colour = ({ place }, theme) => theme.categories[place % theme.categories.length];

  /** The dash of its line: beyond the last colour they begin again, dashed. */
  const dash = ({ place }, theme) => ['solid', 'dash', 'dot'][Math.floor(place / theme.categories.length) % 3];

  /** Its letter and its name, in so many characters. */
  const title = ({ letter, name }, length = 28) => `${letter} ${Format.shorten(name, Math.max(length - LETTERS, 3))}`;

  /** The name of a scan over its column of a figure, with a square of its colour; x is a share of the plot. */
  function heading(scan, x, pixels, theme) {
    return {
      text: `<span style="color:${colour(scan, theme)}">■</span> ${Format.label(title(scan, Math.floor(pixels / 7.5)))}`,
      x, xref: 'paper', xanchor: 'left', y: 1, yref: 'paper', yanchor: 'bottom', showarrow: false,
      font: { size: 13, color: theme.ink }, align: 'left', xshift: -2,
    };
  }

  const legend = (scans, theme) => scans.map((scan) => ({ title: title(scan), colour: colour(scan, theme) }));

  /**
   * Places for a figure a scan, as many beside each other as are `least` pixels wide: { column, plotWidth,
   * plotHeight, of(scan) }, where `of` gives the figure's [start, end] on both axes in Plotly's paper.
   */
  function facets(scans, { room, least, gap, height, above }) {
    const inRow = Math.max(1, Math.min(scans.length, Math.floor((room + gap) / (least + gap))));
    const lines = Math.ceil(scans.length / inRow);
    const column = (room - gap * (inRow - 1)) / inRow;
    const [plotWidth, plotHeight] = [room, lines * height + (lines - 1) * above];
    const share = (value) => Math.min(Math.max(value, 0), 1);
    const of = ({ place }) => {
      const start = ((place % inRow) * (column + gap)) / plotWidth;
      const end = 1 - (Math.floor(place / inRow) * (height + above)) / plotHeight;
      return {
        isFirst: place % inRow === 0,
        x: [share(start), share(start + column / plotWidth)], y: [share(end - height / plotHeight), share(end)],
      };
    };
    return { column, plotWidth, plotHeight, of };
  }

  /** A group, and of every scan the statistic drawn and what it touched. */
  function hover(heading, record, data, statistic) {
    const entry = data.statistics.get(statistic);
    const lines = data.scans.map((scan) => {
      const { compared, touched } = record.keys(scan.place);
      if (!compared) return `${title(scan)}: not compared`;
      const value = Format.statistic(record.value(scan.place, statistic), entry);
      return record.rows.length === 1 ? `${title(scan)}: ${value}` : `${title(scan)}: ${value}, ${counts({ compared, touched })}`;
    });
    return [Format.shorten(heading, 80), entry.title, ...lines].map(Format.label).join('<br>');
  }

  /** "12 of 48 keys changed". */
  const counts = ({ compared, touched }) => (
    `${COUNT.format(touched)} of ${COUNT.format(compared)} ${compared === 1 ? 'key' : 'keys'} changed`
  );

  /** The names of scans in a sentence: "B1", "B1 and B3", "B1, B2 and B4". */
  function listed(words) {
    return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
  }

  /** The least and the most of what is defined; both null where nothing is. */
  function ends(values) {
    let [least, most] = [null, null];
    for (const value of values) {
      if (value === null || !Number.isFinite(value)) continue;
      least = least === null ? value : Math.min(least, value);
      most = most === null ? value : Math.max(most, value);
    }
    return [least, most];
  }

  /** What most figures note: that scans do not hold the same keys. */
  function uneven(records, data) {
    const isUneven = records.some((record) => !record.isComplete);
    return isUneven && data.scans.length ? 'Not every scan compares the same keys: hover to see how many.' : '';
  }

  return { colour, dash, title, heading, facets, legend, hover, counts, listed, ends, uneven };
})();
