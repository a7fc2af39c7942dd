// The treemap: where the change sits. Areas are change energy Σd², and colours relative change.
const Treemap = (() => {
  const LEAVES = 200; // areas that can be told apart; those with the least energy are drawn together
  const BELOW = 52; // pixels for the colour bar
  const NARROW = 480; // pixels
  const LARGEST = 1e100; // of energies that Plotly can square when it lays them out; the smallest is one over it
  const SLIVER = 1e-4; // of the colour scale, below its begin: the colour of what is not selected
  const NOTHING = 'Nothing to draw: nothing changed that counts in a total.';
  const LEVELS = { block: ['part', 'block', 'group'], group: ['part', 'group', 'block'] };

  /** The figure of `view`; options: by, what lies inside the parts: blocks or components. */
  function draw(view, { by }, { theme, width }) {
    const { data } = view;
    const energies = data.sums.sum_dd;
    const rows = view.around(Selectors.AXES).filter((row) => energies[row] > 0);
    if (!rows.length) return { empty: NOTHING };
    const size = total(data, rows);
    if (!(size > 1 / LARGEST && size < LARGEST)) return { empty: 'Nothing to draw: such energies have no areas.' };
    const levels = levelsOf(data, rows, by);
    const tree = { title: 'all that changed', path: [], rows, children: grow(data, rows, levels, []) };
    const isPooled = pool(leavesOf(tree));
    const nodes = [];
    const whole = list(view, tree, null, nodes).energy;
    const order = nodes.filter(({ path }) => path?.length === 1).sort((one, other) => other.energy - one.energy);
    const choose = ({ path }) => ({ axes: ['part', 'block', 'component'], terms: path.flatMap((step) => step.terms()) });
    return {
      data: [trace(view, nodes, colours(view, nodes, theme), whole, theme)],
      layout: {
        height: width < NARROW ? 400 : 440, margin: { l: 0, r: 0, t: 4, b: BELOW }, uniformtext: { minsize: 11, mode: 'hide' },
      },
      label: `Change energy by ${levels.map(({ word }) => word).join(', then ')}`,
      groups: order.map((node) => ({
        ...node, isSelected: node.rows.some(view.isSelected), choose: () => choose(node),
        value: `${Format.share(node.energy / whole)} of the change energy`,
      })),
      note: notes(view, rows, isPooled),
      pick: ({ pointNumber }) => (nodes[pointNumber].path ? choose(nodes[pointNumber]) : null),
    };
  }

  /** What to divide by: an axis on which all rows have one name divides nothing. */
  function levelsOf(data, rows, by) {
    const divides = ({ codes }) => rows.some((row) => codes[row] !== codes[rows[0]]);
    const axes = LEVELS[by].filter((axis) => divides(data.axes[axis]));
    return (axes.length ? axes : ['group']).map((axis) => (axis === 'block' ? depthLevel(data, rows) : level(data, axis)));
  }

  /** An axis: its word, and of a row the index, of an index the name and the selector's terms. */
  function level(data, axis) {
    const { names, codes } = data.axes[axis];
    return {
      word: axis === 'group' ? 'component' : axis,
      of: (row) => codes[row],
      name: (code) => names[code],
      terms: (code) => Selectors.ofGroup(data, axis, names[code]),
    };
  }

  function depthLevel(data, rows) {
    const { places, at } = Depth.of(data, rows);
    return { word: 'block', of: at, name: (place) => places[place].title, terms: (place) => [places[place].term] };
  }

  /** The rows divided by the first level, each division by the next: nodes with their path from the root. */
  function grow(data, rows, [level, ...further], path) {
    if (!level) return [];
    const members = new Map();
    for (const row of rows) {
      const code = level.of(row);
      if (!members.has(code)) members.set(code, []);
      members.get(code).push(row);
    }
    const titles = View.shortNames([...members.keys()].map(level.name));
    return [...members].map(([code, its]) => {
      const name = level.name(code);
      const own = [...path, { name, terms: () => level.terms(code) }];
      return {
        title: titles.get(name), path: own, rows: its, energy: total(data, its), children: grow(data, its, further, own),
      };
    });
  }

  const total = ({ sums }, rows) => rows.reduce((sum, row) => sum + sums.sum_dd[row], 0);

  /** Every leaf with the node that holds it. */
  function leavesOf(node) {
    return node.children.flatMap((child) => (
      child.children.length ? leavesOf(child) : [{ leaf: child, holder: node }]
    ));
  }

  /** Join the leaves with the least energy, each in its own holder; says whether there were any. */
  function pool(leaves) {
    const least = leaves.sort((one, other) => other.leaf.energy - one.leaf.energy).slice(LEAVES);
    const held = new Map();
    for (const { leaf, holder } of least) {
      if (!held.has(holder)) held.set(holder, []);
      held.get(holder).push(leaf);
    }
    for (const [holder, its] of held) {
      const isLeft = new Set(its);
      const rows = its.flatMap((leaf) => leaf.rows);
      const energy = its.reduce((sum, leaf) => sum + leaf.energy, 0);
      const joined = { title: `${its.length} smaller`, path: null, rows, energy, children: [] };
      holder.children = [...holder.children.filter((child) => !isLeft.has(child)), joined];
    }
    return least.length > 0;
  }

  /** A node and all below it as rows of the trace; energies add up exactly, as Plotly demands. */
  function list(view, node, parent, nodes) {
    const place = nodes.length;
    const its = { ...node, parent, record: view.data.record(node.rows), isSelected: node.rows.some(view.isSelected) };
    nodes.push(its);
    const below = node.children.map((child) => list(view, child, place, nodes));
    if (below.length) {
      its.energy = below.reduce((sum, { energy }) => sum + energy, 0);
      its.isSelected = below.every(({ isSelected }) => isSelected);
    }
    return its;
  }

  /** Colours of the nodes by relative change; what is not selected has the colour below the scale. */
  function colours({ data }, nodes, theme) {
    const changes = nodes.map(({ record }) => Statistics.evaluate('relative_change', record, data));
    const shown = changes.map((change, place) => (nodes[place].isSelected ? change : null));
    const top = Math.max(...changes.filter((change) => change !== null)) || 1; // whatever is selected: colours stay
    const stops = theme.sequential.map(([place, its]) => [SLIVER + (1 - SLIVER) * place, its]);
    const tickvals = [0, top / 2, top];
    const ground = (change) => (change === null ? channels(theme.faint) : between(theme.sequential, Math.min(change / top, 1)));
    const marker = {
      colors: shown.map((change) => change ?? -1),
      colorscale: [[0, theme.faint], [SLIVER, theme.faint], ...stops],
      cmin: -SLIVER * top, cmax: top, showscale: true,
      colorbar: {
        orientation: 'h', len: 200, lenmode: 'pixels', thickness: 8, outlinewidth: 0, ticks: '',
        x: 0, xanchor: 'left', xpad: 8, y: 0, yanchor: 'top', ypad: 12, tickfont: { size: 12, color: theme.muted },
        tickvals, ticktext: tickvals.map((tick) => Format.statistic(tick, data.statistics.get('relative_change'))),
      },
    };
    return { marker, ink: shown.map((change) => legible(ground(change))) };
  }

  /** A colour between the two stops around a place of a scale, in 0 … 1, as [red, green, blue] of 0 … 255. */
  function between(scale, place) {
    const upper = Math.max(1, scale.findIndex(([stop]) => stop >= place));
    const [[start, first], [end, last]] = [scale[upper - 1], scale[upper]];
    const [from, to] = [channels(first), channels(last)];
    return from.map((channel, at) => channel + ((to[at] - channel) * (place - start)) / (end - start));
  }

  const channels = (colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));

  /** Black or white, whichever has more contrast with a colour: never less than 4.5 to 1 (WCAG 2.2). */
  function legible(rgb) {
    const linear = rgb.map((channel) => (channel <= 10 ? channel / 3294.6 : ((channel / 255 + 0.055) / 1.055) ** 2.4));
    const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    return luminance > 0.179 ? '#000000' : '#ffffff';
  }

  function trace({ data }, nodes, { marker, ink }, whole, theme) {
    const share = ({ energy }) => Format.share(energy / whole);
    return {
      type: 'treemap', branchvalues: 'total', sort: true, pathbar: { visible: false },
      ids: nodes.map((_, place) => String(place)),
      parents: nodes.map(({ parent }) => (parent === null ? '' : String(parent))),
      labels: nodes.map(({ title }) => Format.label(Format.shorten(title, 28))),
      values: nodes.map(({ energy }) => energy),
      text: nodes.map(share),
      texttemplate: nodes.map(({ children }) => (children.length ? '%{label}  %{text}' : '%{label}<br>%{text}')),
      hovertext: nodes.map((node) => Format.hover(named(node), node.record, data, 'energy_share')),
      hovertemplate: '%{hovertext}<extra></extra>',
      textfont: { size: 12, color: ink },
      root: { color: 'rgba(0,0,0,0)' },
      tiling: { pad: 1 },
      marker: { ...marker, depthfade: false, pad: { t: 20, l: 2, r: 2, b: 2 }, line: { width: 1, color: theme.card } },
    };
  }

  const named = ({ path, title }) => (path?.length ? path.map(({ name }) => name).join(' · ') : title);

  function notes(view, rows, isPooled) {
    const unchanged = view.around(Selectors.AXES).length - rows.length;
    return [
      view.text && 'Grey areas are not selected.',
      unchanged && `${Format.plural(unchanged, 'key')} that did not change ${unchanged === 1 ? 'has' : 'have'} no area.`,
      isPooled && `Of the smallest areas, those beyond the largest ${LEAVES} are drawn together.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
