// The treemap of several scans: of each where its change sits, in the report's own drawing, with one scale
// of colours for all.
const CompareTreemap = (() => {
  const [LEAST, HEIGHT, GAP, HEADING, BELOW] = [260, 300, 20, 30, 52]; // pixels
  const SLIVER = 1e-4; // of the colour scale, below its begin, as Treemap draws what is not selected

  /** The figure of `view`; options: by, what lies inside the parts: blocks or components. */
  function draw(view, options, { theme, width }) {
    const { scans } = view.data;
    const grid = Columns.facets(scans, { room: width, least: LEAST, gap: GAP, height: HEIGHT, above: HEADING });
    const drawn = scans.map((scan) => Treemap.draw(Scans.viewOf(view, scan), options, { theme, width: grid.column }));
    const figures = drawn.filter(({ empty }) => !empty);
    if (!figures.length) return { empty: drawn[0].empty };
    const still = scans.filter(({ place }) => drawn[place].empty).map(({ letter }) => letter);
    const nothing = still.length ? ` Nothing changed in ${Columns.listed(still)}.` : '';
    const foremost = figures.reduce((one, other) => (colours(other).cmax > colours(one).cmax ? other : one));
    const { cmax } = colours(foremost);
    return {
      data: scans.filter(({ place }) => !drawn[place].empty).map((scan) => {
        const [trace] = drawn[scan.place].data;
        const { x, y } = grid.of(scan);
        return {
          ...trace, name: Columns.title(scan), domain: { x, y },
          root: { color: theme.card },
          marker: {
            ...trace.marker, cmin: -SLIVER * cmax, cmax, showscale: drawn[scan.place] === foremost,
            colorbar: { ...trace.marker.colorbar, xpad: 8 },
          },
        };
      }),
      layout: {
        height: grid.plotHeight + HEADING + BELOW, margin: { l: 0, r: 0, t: HEADING, b: BELOW },
        annotations: scans.map((scan) => ({ ...Columns.heading(scan, grid.of(scan).x[0], grid.column, theme), y: grid.of(scan).y[1], yshift: 2 })),
      },
      label: `${figures[0].label}, in ${Format.plural(scans.length, 'scan')}`,
      note: `Areas are shares of the change energy of each model; colours mean the same in all.${nothing}`,
      pick: (point) => figures[point.curveNumber].pick(point),
    };
  }

  const colours = ({ data: [{ marker }] }) => marker;

  return { draw };
})();
