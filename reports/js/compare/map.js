// Small multiples of the map: block × component of every scan, in the same places and on one colour scale.
const CompareMap = (() => {
  const ROWS = 24; // components; what moved least in every scan stays out
  const NARROW = 560; // pixels: below, blocks run downwards
  const [LEAST, MOST] = [7, 34]; // pixels a cell is wide
  const CELL = 19; // pixels high
  const SEAM = 0.4; // of a cell, between parts
  const HEADING = 24; // pixels for the name of a scan
  const GAP = 22; // pixels between maps
  const BELOW = 52; // pixels for the colour bar
  const NAME = 13; // pixels that a line of text needs

  /** The figure of `view`; options: statistic, logarithmic, whole. */
  function draw(view, { statistic, logarithmic, whole }, { theme, width }) {
    const { data } = view;
    const entry = data.statistics.get(statistic);
    const isTurned = width < NARROW;
    const room = isTurned ? { columns: 128, rows: Math.floor((width - 90) / 14) } : { columns: Math.floor((width - 150) / LEAST), rows: ROWS };
    const grid = MapGrid.layOut(view, { ...room, rows: whole ? 120 : room.rows });
    const cells = grid.cells.map((line) => line.map((its) => its && { ...its, values: its.record.values(statistic) }));
    const held = valuesOf(cells.flat().filter(Boolean), data);
    if (!held.length) return { empty: 'Nothing to draw: none of these keys counts in a total.' };
    const canLog = held.every(({ value }) => value === null || value >= 0);
    const isLogarithmic = logarithmic && canLog;
    const colour = MapColours.of(held, entry, { theme, isLogarithmic, centre: HeatMap.CENTRES[statistic] });
    const [across, down] = isTurned ? [grid.rows, grid.columns] : [grid.columns, grid.rows];
    const at = (x, y) => (isTurned ? cells[x][y] : cells[y][x]);
    const lay = layOut(across, down, data.scans.length, { theme, width });
    return {
      data: data.scans.flatMap((scan) => traces(scan, { across, down, at, lay, data, colour, theme, statistic })),
      layout: { ...layout(data.scans, lay, theme), coloraxis: colour.axis },
      label: `${entry.title} by ${grid.axes.at(-1)} and component in ${Format.plural(data.scans.length, 'scan')}, one colour scale`,
      note: notes(grid, cells.flat().filter(Boolean), data),
      more: grid.total > room.rows ? Math.min(grid.total, 120) : 0,
      canLog,
      pick: ({ pointNumber }) => {
        const its = Array.isArray(pointNumber) && at(pointNumber[1], pointNumber[0]);
        return its ? { axes: [...grid.axes, 'component'], terms: [...its.column.terms(), ...its.row.terms()] } : null;
      },
    };
  }

  /** The values of all cells in all scans that hold keys there: what the colours must tell apart. */
  function valuesOf(cells, { scans }) {
    return cells.flatMap(({ record, values }) => (
      scans.filter(({ place }) => record.of(place)).map(({ place }) => ({ value: values[place] }))
    ));
  }

  const edgesOf = (list) => list.reduce((edges, its) => [...edges, edges.at(-1) + (its ? 1 : SEAM)], [0]);

  /** As many maps beside each other as have room, in pixels. */
  function layOut(across, down, count, { theme, width }) {
    const titles = (list, length) => list.map((its) => (its ? Format.shorten(its.title, length) : ''));
    const [above, beside] = [titles(across, 16), titles(down, 20)];
    const [x, y] = [edgesOf(across), edgesOf(down)];
    const left = theme.widest(beside) + 12;
    const room = width - left;
    const inRow = Math.max(1, Math.min(count, Math.floor((room + GAP) / (x.at(-1) * LEAST + GAP))));
    const step = Math.min(MOST, (room - GAP * (inRow - 1)) / inRow / x.at(-1));
    const isUpright = theme.widest(above) > step - 4;
    const labels = (isUpright ? theme.widest(above) : 12) + 12;
    const [mapWidth, mapHeight] = [step * x.at(-1), y.at(-1) * CELL];
    const lines = Math.ceil(count / inRow);
    return {
      above, beside, x, y, left, step, isUpright, labels, mapWidth, mapHeight, inRow, width,
      top: labels + HEADING,
      plotWidth: inRow * mapWidth + (inRow - 1) * GAP,
      plotHeight: lines * mapHeight + (lines - 1) * (labels + HEADING + GAP),
    };
  }

  const centre = (edges, place) => (edges[place] + edges[place + 1]) / 2;

  /** A scan's map: its cells, the signs on them, and what fades those that are not selected. */
  function traces(scan, { across, down, at, lay, data, colour, theme, statistic }) {
    const { place } = scan;
    const axes = { xaxis: `x${place ? place + 1 : ''}`, yaxis: `y${place ? place + 1 : ''}` };
    const isHeld = (its) => its?.record.of(place);
    const matrix = (value) => down.map((_, y) => across.map((__, x) => (isHeld(at(x, y)) ? value(at(x, y)) : null)));
    const base = { type: 'heatmap', x: lay.x, y: lay.y, xgap: 1, ygap: 1, hoverongaps: false, ...axes };
    const marks = down.flatMap((_, y) => across.map((__, x) => ({ x, y, its: at(x, y) })))
      .filter(({ its }) => isHeld(its))
      .map((its) => ({ ...its, sign: colour.mark({ value: its.its.values[place] }) }))
      .filter(({ sign }) => sign);
    const faded = `${theme.card}bf`;
    return [
      {
        ...base, coloraxis: 'coloraxis', name: Columns.title(scan),
        z: matrix(({ values }) => colour.z(values[place])),
        hovertext: matrix(({ title, record }) => Columns.hover(title, record, data, statistic)),
        hovertemplate: '%{hovertext}<extra></extra>',
      },
      {
        type: 'scatter', mode: 'text', hoverinfo: 'skip', textfont: { color: theme.muted, size: 10 }, ...axes,
        x: marks.map(({ x }) => centre(lay.x, x)), y: marks.map(({ y }) => centre(lay.y, y)), text: marks.map(({ sign }) => sign),
      },
      {
        ...base, z: matrix(({ isSelected }) => (isSelected ? null : 1)), hoverinfo: 'skip', showscale: false,
        colorscale: [[0, faded], [1, faded]],
      },
    ];
  }

  function layout(scans, lay, theme) {
    const axes = {};
    const annotations = [];
    const share = (value) => Math.min(Math.max(value, 0), 1);
    for (const scan of scans) {
      const [column, line] = [scan.place % lay.inRow, Math.floor(scan.place / lay.inRow)];
      const start = (column * (lay.mapWidth + GAP)) / lay.plotWidth;
      const end = share(1 - (line * (lay.mapHeight + lay.top + GAP)) / lay.plotHeight);
      const side = scan.place ? scan.place + 1 : '';
      axes[`xaxis${side}`] = {
        ...ticks(lay.above, lay.x, lay.isUpright ? lay.step : Infinity), anchor: `y${side}`, side: 'top', tickangle: lay.isUpright ? -90 : 0,
        range: [0, lay.x.at(-1)], domain: [start, share(start + lay.mapWidth / lay.plotWidth)],
      };
      axes[`yaxis${side}`] = {
        ...ticks(lay.beside, lay.y, CELL), anchor: `x${side}`, range: [lay.y.at(-1), 0], ticklabelstandoff: 6,
        showticklabels: column === 0, domain: [share(end - lay.mapHeight / lay.plotHeight), end],
      };
      annotations.push({ ...Columns.heading(scan, start, lay.mapWidth, theme), y: end, yshift: lay.labels });
    }
    return {
      height: lay.top + lay.plotHeight + BELOW, ...axes, annotations,
      margin: { l: lay.left, r: Math.max(0, lay.width - lay.left - lay.plotWidth), t: lay.top, b: BELOW },
    };
  }

  /** As many names as fit; `room` is that of a line of text. */
  function ticks(names, edges, room) {
    const every = Math.ceil(NAME / room);
    let place = -1;
    const shown = names.map((name, index) => {
      place = name ? place + 1 : -1; // counted anew behind every gap
      return name && place % every === 0 ? index : -1;
    }).filter((index) => index >= 0);
    return {
      tickvals: shown.map((index) => centre(edges, index)), ticktext: shown.map((index) => Format.label(names[index])),
      showgrid: false, ticks: '', fixedrange: true, zeroline: false,
    };
  }

  function notes({ rows, columns, omitted, folded }, cells, data) {
    const isFull = cells.length === rows.filter(Boolean).length * columns.filter(Boolean).length;
    return [
      'The colours mean the same in every map.',
      folded > 1 && `${folded} neighbouring blocks share a column.`,
      !isFull && 'Empty places hold no keys.',
      omitted && `${Format.plural(omitted, 'component')} that changed least ${omitted === 1 ? 'is' : 'are'} not drawn.`,
      Columns.uneven(cells.map(({ record }) => record), data),
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
