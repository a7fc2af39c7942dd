// The tasks: what A and B each learned beyond their base, in which direction and where their signs conflict.
const Tasks = (() => {
  const POINTS = 4000; // SVG points that a page can draw at once
  const NAMED = 24; // points with their names beside them
  const NARROW = 480; // pixels
  const SMALLEST = 7; // pixels across
  const LARGEST = 34;
  const SHOWN = ['task_cosine', 'sign_conflict_fraction', 'sign_conflict_expected', 'conflict_mass', 'dominance', 'numel'];
  const NOTHING = 'Nothing to draw: both models must have moved from their base in the same keys.';

  /** The figure of `view`; options: points, what a point is: a component, a block or a key. */
  function draw(view, { points: axis }, { theme, width }) {
    const { data } = view;
    const found = axis === 'key' ? keysOf(view) : groupsOf(view, axis);
    const drawable = found.filter(({ x, y }) => x !== null && y !== null).sort((one, other) => other.energy - one.energy);
    if (!drawable.length) return { empty: NOTHING };
    const drawn = drawable.slice(0, POINTS).map((its, index) => ({ ...its, index }));
    const word = axis === 'group' ? 'component' : axis;
    const choose = (its) => ({ axes: [word], terms: its.terms() });
    const [selected, faded] = [true, false].map((isOn) => drawn.filter(({ isSelected }) => isSelected === isOn));
    const size = sizes(drawn);
    const frame = layout(drawn, width);
    return {
      data: [
        expected(theme),
        points(faded, size, data, { color: theme.faint, opacity: 0.6, line: { width: 0.75, color: theme.card } }),
        points(selected, size, data, { color: theme.accent, opacity: 0.75, line: { width: 0.75, color: theme.card } }),
      ],
      layout: { ...frame, annotations: axis === 'key' ? [] : names(drawn, frame, size, { theme, width }) },
      label: `${Format.plural(drawn.length, word)} by the cosine of the two tasks and the share of conflicting signs`,
      groups: axis === 'key' ? [] : drawn.map((its) => ({ ...its, value: inWords(its, data), choose: () => choose(its) })),
      note: notes(drawable, drawn, found, word),
      pick: ({ customdata }) => choose(drawn[customdata]),
    };
  }

  /** A point a group of the keys that stand beside the selection on this axis. */
  function groupsOf(view, axis) {
    const term = axis === 'group' ? 'component' : axis;
    const groups = View.groups(view, axis, view.around([term]));
    const titles = View.shortNames(groups.map(({ name }) => name));
    return groups.map(({ name, record, isSelected }) => ({
      ...place(view.data, record), name, title: titles.get(name), record, isSelected,
      terms: () => Selectors.ofGroup(view.data, axis, name),
    }));
  }

  function keysOf(view) {
    const { data } = view;
    const measured = new Set(data.tables.tasks.rows);
    return Array.from(view.around(Selectors.AXES).filter((row) => measured.has(row)), (row) => {
      const record = data.record([row]);
      const name = data.key(row);
      return {
        ...place(data, record), name, title: name, record, isSelected: view.isSelected(row), terms: () => [Selectors.term('key', name)],
      };
    });
  }

  function place(data, record) {
    const [x, y] = ['task_cosine', 'sign_conflict_fraction'].map((name) => Statistics.evaluate(name, record, data));
    return { x, y, energy: record.task ? record.task.aa + record.task.bb : 0 };
  }

  /** Area for the energy of both tasks; the least stays visible. */
  function sizes(drawn) {
    const most = Math.max(...drawn.map(({ energy }) => energy).filter(Number.isFinite), 0);
    return ({ energy }) => SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(Math.min(energy / most, 1) || 0);
  }

  function points(list, size, data, marker) {
    return {
      type: 'scatter', mode: 'markers', x: list.map(({ x }) => x), y: list.map(({ y }) => y), customdata: list.map(({ index }) => index),
      marker: { ...marker, size: list.map(size) },
      hovertext: list.map((its) => hover(its, data)), hovertemplate: '%{hovertext}<extra></extra>',
    };
  }

  /** Where Gaussian tasks of a cosine lie: signs conflict in acos(cosine) / π of the elements. */
  function expected(theme) {
    const x = Array.from({ length: 81 }, (_, place) => Math.cos(Math.PI * (1 - place / 80)));
    return {
      type: 'scatter', mode: 'lines', hoverinfo: 'skip', line: { color: theme.muted, width: 1, dash: 'dot' },
      x, y: x.map((cosine) => Math.acos(cosine) / Math.PI),
    };
  }

  function hover({ name, record }, data) {
    const lines = SHOWN.map((its) => {
      const entry = data.statistics.get(its);
      return `${entry.title}  ${Format.statistic(Statistics.evaluate(its, record, data), entry)}`;
    });
    return [Format.shorten(name, 80), ...lines].map(Format.label).join('<br>');
  }

  /** Axes around the points, with the curve's part that lies there. */
  function layout(drawn, width) {
    const range = (values, least, most) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = Math.max(0.15 * (high - low), 0.04 * (most - least));
      return [Math.max(low - room, least - 0.02), Math.min(high + room, most + 0.02)];
    };
    return {
      height: width < NARROW ? 340 : 420,
      margin: { l: 64, r: 16, t: 12, b: 48 },
      xaxis: { range: range(drawn.map(({ x }) => x), -1, 1), title: { text: 'task cosine' }, nticks: width < NARROW ? 5 : 9 },
      yaxis: { range: range(drawn.map(({ y }) => y), 0, 1), title: { text: 'sign conflicts' }, tickformat: '~%', nticks: 8 },
    };
  }

  /** The names of the points that moved most, each where it covers neither a name nor another point. */
  function names(drawn, { height, margin, xaxis, yaxis }, size, { theme, width }) {
    const pixel = (value, [low, high], length) => ((value - low) / (high - low)) * length;
    const spots = drawn.map((its) => ({
      x: pixel(its.x, xaxis.range, width - margin.l - margin.r),
      y: pixel(its.y, yaxis.range, height - margin.t - margin.b), radius: size(its) / 2,
    }));
    const taken = [];
    return drawn.slice(0, NAMED).flatMap((its, index) => {
      const text = Format.shorten(its.title, 24);
      const box = boxes(spots[index], theme.widest([text]) + 4).find((box) => (
        box.left > 0 && box.right < width - margin.l - margin.r
        && !taken.some((other) => overlap(box, other))
        && !spots.some((spot, at) => at !== index && overlap(box, around(spot)))
      ));
      if (!box) return [];
      taken.push(box);
      return [{
        x: its.x, y: its.y, xshift: (box.left + box.right) / 2 - spots[index].x, yshift: (box.low + box.high) / 2 - spots[index].y,
        text: Format.label(text), showarrow: false, font: { size: 12, color: its.isSelected ? theme.ink : theme.muted }, captureevents: false,
      }];
    });
  }

  /** Where a name may stand: to the right of its point, to the left, above, below. */
  function boxes({ x, y, radius }, wide) {
    const [gap, half] = [radius + 3, 8];
    const beside = { low: y - half, high: y + half };
    const centred = { left: x - wide / 2, right: x + wide / 2 };
    return [
      { left: x + gap, right: x + gap + wide, ...beside }, { left: x - gap - wide, right: x - gap, ...beside },
      { ...centred, low: y + gap, high: y + gap + 2 * half }, { ...centred, low: y - gap - 2 * half, high: y - gap },
    ];
  }

  const around = ({ x, y, radius }) => ({ left: x - radius, right: x + radius, low: y - radius, high: y + radius });

  const overlap = (one, other) => (
    one.left < other.right && other.left < one.right && one.low < other.high && other.low < one.high
  );

  function inWords({ x, y }, { statistics }) {
    const conflicts = Format.statistic(y, statistics.get('sign_conflict_fraction'));
    return `task cosine ${Format.statistic(x, statistics.get('task_cosine'))}, signs conflict in ${conflicts}`;
  }

  function notes(drawable, drawn, found, word) {
    const [hidden, missing] = [drawable.length - drawn.length, found.length - drawable.length];
    const are = (count) => `${Format.plural(count, word)} ${count === 1 ? 'is' : 'are'} not drawn`;
    return [
      'Larger points moved further from the base.',
      'The dotted line is what chance gives to tasks of that cosine; above it, more signs conflict.',
      hidden && `${are(hidden)} because they moved less.`,
      missing && `${are(missing)}: the base lacks them, or A or B did not move from it.`,
    ].filter(Boolean).join(' ');
  }

  return { draw };
})();
