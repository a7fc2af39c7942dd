// What a scan says of a merge: analyzer/guidance/guiding.py for `--top` and `--budget`. A choice says which keys
// are merged at all, a setting how far they go. Knows groups and their statistics, no plan.
const Guide = (() => {
  const LABELS = new Map([['part', 'part'], ['block', 'block'], ['component', 'group'], ['kind', 'kind']]);
  const BY = 'relative_change';
  const AXIS = 'component';

  /** The request contradicts itself or names what is not there; the message is fit to show. */
  class GuideError extends Error {}

  const MOST = 200; // things that are remembered of a scan
  const remembered = new WeakMap();

  /** What a function finds, computed once for the scan and this name. */
  function once(data, name, find) {
    if (!remembered.has(data)) remembered.set(data, new Map());
    const found = remembered.get(data);
    if (!found.has(name)) {
      const value = find();
      if (found.size >= MOST) found.delete(found.keys().next().value);
      found.set(name, value);
    }
    return found.get(name);
  }

  /** The labels' axes that a name such as "block" or "block*component" stands for. */
  function axesOf(text) {
    const axes = text.split('*').map((word) => LABELS.get(word.trim()));
    if (axes.includes(undefined) || axes.length > 2 || new Set(axes).size < axes.length) {
      throw new GuideError(`“${text}” is no axis: choose part, block, component or kind, or cross two: block*component.`);
    }
    return axes;
  }

  /** The counted rows by group: { name, rows, record }, in the scan's order. */
  function groups(data, axis) {
    const axes = axesOf(axis);
    return once(data, `groups ${axis}`, () => {
      const members = new Map();
      for (const row of data.counted) {
        const place = JSON.stringify(axes.map((its) => data.axes[its].codes[row]));
        if (!members.has(place)) members.set(place, []);
        members.get(place).push(row);
      }
      const short = axes.map((its) => shortNames(new Set(Array.from(data.counted, (row) => data.label(its, row)))));
      return [...members.values()].map((rows) => ({
        name: axes.map((its, place) => short[place].get(data.label(its, rows[0]))).join(' × '),
        rows,
        record: data.record(rows),
      }));
    });
  }

  /** The shortest end of each path that no other path has: "attn2", or "attn2/to_q". */
  function shortNames(paths) {
    const ends = (path) => path.split('/').map((_, place, words) => words.slice(words.length - 1 - place).join('/'));
    const often = new Map();
    for (const end of [...paths].flatMap(ends)) often.set(end, (often.get(end) ?? 0) + 1);
    return new Map(Array.from(paths, (path) => [path, ends(path).find((end) => often.get(end) === 1) ?? path]));
  }

  /** The rows of the `n` groups of an axis that differ most by a statistic: a Uint8Array by row. */
  function top(data, { n, by = BY, axis = AXIS }) {
    if (!(Number.isInteger(n) && n >= 1)) throw new GuideError(`The number of categories is ${n}: choose one or more.`);
    const statistic = data.statistics.get(by);
    if (!statistic) throw new GuideError(`“${by}” is no statistic of this scan.`);
    const ranked = once(data, `ranking ${axis} ${by}`, () => {
      const sign = statistic.ascending ? 1 : -1;
      return groups(data, axis)
        .map((group) => ({ ...group, value: Statistics.evaluate(by, group.record, data) }))
        .filter(({ value }) => value !== null)
        .sort((one, other) => sign * (one.value - other.value) || (one.name < other.name ? -1 : 1));
    });
    if (!ranked.length) throw new GuideError(`${statistic.title} is undefined for every ${axis} of the scan.`);
    return once(data, `top ${n} ${axis} ${by}`, () => {
      const isChosen = new Uint8Array(data.size);
      for (const { rows } of ranked.slice(0, n)) for (const row of rows) isChosen[row] = 1;
      return isChosen;
    });
  }

  /**
   * By row, the alpha with which no group moves by more than `most` of its own norm: min(1, most / change);
   * 0 where the change is undefined, and of rows that do not count. `isChosen` is what `top` chose, if it did.
   */
  function budget(data, most, { per = AXIS, isChosen } = {}) {
    if (!(most >= 0 && most < Infinity)) {
      throw new GuideError(`The budget is ${most}: the most that a category may move is a number of 0 or more, such as 0.03.`);
    }
    const alphas = new Float64Array(data.size);
    let isDefined = false;
    for (const { rows, change } of changes(data, per)) {
      if (change !== null && (!isChosen || rows.some((row) => isChosen[row]))) isDefined = true;
      if (change === null) continue;
      const alpha = change ? Math.min(1, most / change) : 1;
      for (const row of rows) alphas[row] = alpha;
    }
    if (!isDefined) throw new GuideError('The budget is undefined for every category that it is asked of: nothing would be merged.');
    return alphas;
  }

  const changes = (data, per) => once(data, `changes ${per}`, () => groups(data, per).map(({ rows, record }) => (
    { rows, change: Statistics.evaluate('relative_change', record, data) }
  )));

  return { GuideError, BY, AXIS, axesOf, once, top, budget };
})();
