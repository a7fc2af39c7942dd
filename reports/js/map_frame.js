// Where the map's cells, names and strips lie, in pixels. Owns the layout that Plotly gets, and finds
// the name under a pointer by the same numbers.
const MapFrame = (() => {
  const GAP = 10; // pixels between parts
  const BELOW = 52; // pixels for the colour bar
  const TALL = 800; // pixels, as which blocks that run downwards shall be together
  const EDGE = 6; // pixels around the outermost strip
  const PARTS = 20; // pixels for the names of parts
  const STRIP = { across: 76, down: 46 }; // pixels for the U over blocks that run across or downwards
  const NAME = 14; // pixels that a line of text needs
  const EVERY = [1, 2, 5, 10, 20, 50, 100];

  /**
   * The frame of a grid: { across, down, edges, centres, step, gap, side, dot, layout, labels, onStrip }.
   * Blocks run across, and downwards where the map is turned; their names and strips lie on their outer side.
   */
  function of(grid, { theme, width, isTurned, sizes }) {
    const [across, down] = isTurned ? [grid.rows, grid.columns] : [grid.columns, grid.rows];
    const texts = [titles(across, 18), titles(down, isTurned ? 16 : 20)];
    const strips = (grid.hasU ? STRIP[isTurned ? 'down' : 'across'] : 0) + (grid.parts.length ? PARTS : 0);
    const beside = marginOf(theme, down, texts[1], isTurned ? strips : 0);
    const left = beside.whole + (isTurned ? EDGE : 0);
    const step = stepOf(across, down, width - left - 2, isTurned, sizes);
    const edges = { across: edgesOf(across, step.across), down: edgesOf(down, step.down) };
    const isUpright = theme.widest(texts[0]) > step.across - 6;
    const above = marginOf(theme, isUpright ? across : [], isUpright ? texts[0] : [], isTurned ? 0 : strips);
    const its = {
      grid, theme, width, isTurned, across, down, step, isUpright, texts, beside, above, left, top: above.whole + EDGE,
      edges,
      centres: { across: centresOf(edges.across), down: centresOf(edges.down) },
      size: { across: step.across * edges.across.at(-1), down: step.down * edges.down.at(-1) },
    };
    return {
      across, down, step, edges: its.edges, centres: its.centres,
      gap: Math.min(step.across, step.down) < 10 ? 1 : 2,
      side: Math.min(step.across, step.down) - 3,
      dot: Math.max(4, Math.min(10, 0.5 * (isTurned ? step.down : step.across))),
      layout: layout(its), labels: (x, y) => labelAt(its, x, y), onStrip: (dots) => onStrip(its, dots),
    };
  }

  /** Pixels of a cell; no narrower than its name where blocks run downwards: such a map scrolls. */
  function stepOf(across, down, width, isTurned, { CELL, WIDEST, SMALLEST }) {
    const fitting = (list, room) => {
      const places = list.filter(Boolean).length;
      return (room - GAP * (list.length - places)) / places;
    };
    return {
      across: Math.min(WIDEST, Math.max(fitting(across, width), isTurned ? SMALLEST.readable : 1)),
      down: isTurned ? Math.max(SMALLEST.low, Math.min(CELL, fitting(down, TALL))) : CELL,
    };
  }

  /**
   * Pixels for the names on a side, and with the strips beyond, over which the names of parts of one column
   * may reach. Names that lie flat need a line.
   */
  function marginOf(theme, list, texts, strips) {
    const ofKind = (isPart) => texts.filter((_, place) => (list[place]?.isPart ?? false) === isPart);
    const names = (isPart) => Math.max(NAME, theme.widest(ofKind(isPart))) + 12;
    return { names: names(false), whole: Math.max(names(false) + strips, names(true)) };
  }

  const titles = (list, length) => list.map((its) => (its ? Format.shorten(its.title, length) : ''));

  /** Where places begin and end, in cells. */
  function edgesOf(list, step) {
    const edges = [0];
    for (const its of list) edges.push(edges.at(-1) + (its ? 1 : GAP / step));
    return edges;
  }

  const centresOf = (edges) => edges.slice(1).map((edge, place) => (edges[place] + edge) / 2);

  // The layout

  /** The plot area holds the cells and, where there is one, the strip of the U with the names between. */
  function layout(its) {
    const { grid, isTurned, left, top, size, width, edges } = its;
    const whole = Math.max(width, left + size.across + 2);
    const height = Math.max(Theme.HOVER, top + size.down + BELOW);
    const inside = { left: grid.hasU && isTurned ? left - EDGE : 0, top: grid.hasU && !isTurned ? top - EDGE : 0 };
    const near = isTurned ? its.beside : its.above;
    const strip = near.whole - near.names - (grid.parts.length ? PARTS : 0); // the U takes what there is
    const area = { across: size.across + inside.left, down: size.down + inside.top };
    const origin = isTurned ? inside.left / area.across : size.down / area.down; // the cells' outer edge
    return {
      width: whole, height,
      margin: {
        l: left - inside.left, r: Math.max(whole - left - size.across, 0),
        t: top - inside.top, b: height - top - size.down,
      },
      xaxis: {
        ...axis(its, 'across'), side: 'top', tickangle: its.isUpright ? -90 : 0,
        range: [0, edges.across.at(-1)], domain: [inside.left / area.across, 1],
      },
      yaxis: {
        ...axis(its, 'down'), ticklabelstandoff: 6,
        range: [edges.down.at(-1), 0], domain: [0, size.down / area.down],
      },
      ...(grid.hasU && (isTurned
        ? { xaxis2: { ...hidden, domain: [0, strip / area.across], range: [-0.12, 1.12] } }
        : { yaxis2: { ...hidden, domain: [1 - strip / area.down, 1], range: [1.12, -0.12] } })),
      ...parts(its, origin),
    };
  }

  const hidden = { visible: false, fixedrange: true };

  /** Names on an axis, upright where the columns are narrow, and only as many as fit. */
  function axis({ texts, step, isUpright, ...its }, side) {
    const [list, labels] = [its[side], texts[side === 'across' ? 0 : 1]];
    const room = side === 'across' && !isUpright ? Infinity : step[side];
    const every = EVERY.find((number) => number * room >= NAME) ?? EVERY.at(-1);
    let place = -1;
    const shown = list.map((item, index) => {
      place = item ? place + 1 : -1; // counted anew behind every gap
      return item && place % every === 0 ? index : -1;
    }).filter((index) => index >= 0);
    return {
      tickvals: shown.map((index) => its.centres[side][index]),
      ticktext: shown.map((index) => Format.label(labels[index])),
      showgrid: false, ticks: '', fixedrange: true, zeroline: false, ticklabeloverflow: 'allow',
    };
  }

  /** The names of parts that have several blocks, each over a line as long as they are. */
  function parts({ grid, theme, isTurned, above, beside, edges }, origin) {
    const away = isTurned ? beside.names : above.names;
    const along = isTurned ? edges.down : edges.across;
    const spans = grid.parts.map((its) => ({ ...its, start: along[its.first] + 0.1, end: along[its.last + 1] - 0.1 }));
    const text = { showarrow: false, font: { size: 12, color: theme.muted } };
    const line = { type: 'line', line: { color: theme.faint, width: 1 } };
    if (isTurned) {
      const place = { xref: 'paper', yref: 'y' };
      const pixels = { xsizemode: 'pixel', xanchor: origin, x0: -away, x1: -away };
      return {
        shapes: spans.map(({ start, end }) => ({ ...line, ...place, ...pixels, y0: start, y1: end })),
        annotations: spans.map(({ part, start, end }) => ({
          ...text, ...place, text: Format.label(Format.shorten(part, 24)), textangle: -90,
          x: origin, xanchor: 'right', xshift: -away - 1, y: (start + end) / 2, yanchor: 'middle',
        })),
      };
    }
    const place = { xref: 'x', yref: 'paper' };
    const pixels = { ysizemode: 'pixel', yanchor: origin, y0: away, y1: away };
    return {
      shapes: spans.map(({ start, end }) => ({ ...line, ...place, ...pixels, x0: start, x1: end })),
      annotations: spans.map(({ part, start, end }) => ({
        ...text, ...place, text: Format.label(Format.shorten(part, 24)),
        x: (start + end) / 2, xanchor: 'center', y: origin, yanchor: 'bottom', yshift: away + 1,
      })),
    };
  }

  /** Dots of the U as a trace's coordinates; null parts one line from the next. */
  function onStrip({ isTurned, centres }, dots) {
    const along = dots.map((dot) => dot && centres[isTurned ? 'down' : 'across'][dot.place]);
    const deep = dots.map((dot) => dot && 1 - (1 - dot.depth) ** 2.5); // steep at its ends, flat at its bottom
    return isTurned ? { x: deep, y: along, xaxis: 'x2', yaxis: 'y' } : { x: along, y: deep, xaxis: 'x', yaxis: 'y2' };
  }

  // Names under a pointer

  /** The name at a place of the figure, in pixels from its corner: { title, axes, terms }, or null. */
  function labelAt({ grid, isTurned, across, down, edges, step, left, top, beside, above }, x, y) {
    const [right, low] = [(x - left) / step.across, (y - top) / step.down]; // in cells
    const found = (list, ends, at) => list[ends.findIndex((edge) => edge > at) - 1] ?? null;
    const [isBlock, its, away, room] = y < 0 || x < 0 || (low < 0) === (right < 0) ? []
      : low < 0 ? [!isTurned, found(across, edges.across, right), top - y, above.names]
        : [isTurned, found(down, edges.down, low), left - x, beside.names];
    if (its && (away <= room || its.isPart)) {
      return { title: its.name, axes: isBlock ? grid.axes : ['component'], terms: its.terms };
    }
    const place = its && isBlock && away <= room + PARTS ? grid.columns.indexOf(its) : -1;
    const part = grid.parts.find(({ first, last }) => first <= place && place <= last);
    return part ? { title: part.part, axes: ['part', 'block'], terms: part.terms } : null;
  }

  return { of };
})();
