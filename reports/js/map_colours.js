// How the map's values become colours, and what to write on a cell that has none.
const MapColours = (() => {
  /**
   * { z, ink, mark, axis, undefined }: the number that a value has on the scale, the colour of text upon
   * it, the sign for what has no colour, Plotly's colour axis, and how many cells are undefined.
   */
  function of(cells, entry, { theme, isLogarithmic, centre }) {
    const hasColour = (value) => value !== null && (!isLogarithmic || value > 0);
    const z = (value) => (hasColour(value) ? (isLogarithmic ? Math.log10(value) : value) : null);
    const values = cells.map(({ value }) => z(value)).filter((value) => value !== null);
    const { low, high, isDiverging } = limits(values, entry, isLogarithmic ? undefined : centre, isLogarithmic);
    const hasZeros = isLogarithmic || values.some(Boolean);
    const colours = theme[isDiverging ? 'diverging' : entry.ascending ? 'reversed' : 'sequential'];
    return {
      z,
      mark: ({ value }) => (value === null ? Format.UNDEFINED : value === 0 && hasZeros ? '0' : ''),
      ink: (value) => readable(mixed(colours, (z(value) - low) / (high - low))),
      undefined: cells.filter(({ value }) => value === null).length,
      axis: {
        cmin: low, cmax: high, colorscale: colours,
        colorbar: {
          orientation: 'h', len: 200, lenmode: 'pixels', thickness: 8, outlinewidth: 0, ticks: '',
          x: 0, xanchor: 'left', xpad: 0, y: 0, yanchor: 'top', ypad: 12,
          tickfont: { size: 12, color: theme.muted }, ...barTicks(low, high, entry, isLogarithmic),
        },
      },
    };
  }

  /** The ends of the scale: around "no difference" where a statistic has that, from 0 where it starts there. */
  function limits(values, { range }, centre, isLogarithmic) {
    let [least, most] = values.length ? [Infinity, -Infinity] : [0, 0];
    for (const value of values) [least, most] = [Math.min(least, value), Math.max(most, value)];
    const reach = Math.max(Math.abs(most - centre), Math.abs(least - centre));
    if (reach > 0) return { low: centre - reach, high: centre + reach, isDiverging: true };
    const low = isLogarithmic || !range.startsWith('0') ? least : 0;
    return { low, high: most > low ? most : low + 1, isDiverging: false };
  }

  function barTicks(low, high, entry, isLogarithmic) {
    if (isLogarithmic) {
      const { tickvals, ticktext } = Format.logTicks(10 ** low, 10 ** high, 4);
      return { tickvals: tickvals.map(Math.log10), ticktext };
    }
    const tickvals = [low, (low + high) / 2, high];
    return { tickvals, ticktext: tickvals.map((tick) => Format.statistic(tick, entry)) };
  }

  /** The colour of a scale at a place from 0 to 1, as channels from 0 to 255. */
  function mixed(scale, place) {
    const at = Math.min(Math.max(place, 0), 1);
    const above = Math.max(1, scale.findIndex(([stop]) => stop >= at));
    const [[start, one], [end, other]] = [scale[above - 1], scale[above]];
    const share = (at - start) / (end - start);
    const [from, to] = [one, other].map(channels);
    return from.map((channel, index) => channel + share * (to[index] - channel));
  }

  const channels = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));

  /** Black or white, whichever stands out more from a colour: at least 4.5 : 1 (WCAG 2.2, relative luminance). */
  function readable(colour) {
    const contrast = (hex) => {
      const [one, other] = [luminance(channels(hex)), luminance(colour)];
      return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    };
    return contrast('#000000') > contrast('#ffffff') ? '#000000' : '#ffffff';
  }

  function luminance(rgb) {
    const [r, g, b] = rgb.map((channel) => {
      const share = channel / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  return { of };
})();
