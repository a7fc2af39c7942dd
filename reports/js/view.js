// What the page shows at the moment: the selected rows and groups of them. Figures and the key table
// draw from a view; none of them keeps state of its own.
const View = (() => {
  /** The view of a selection; the empty text selects every counted row. */
  function of(data, text) {
    const selector = text && Selectors.compile(data, text);
    const rows = text ? selector.rows() : data.counted;
    const isSelected = new Uint8Array(data.size);
    for (const row of rows) isSelected[row] = 1;
    return {
      data,
      text,
      rows,
      isSelected: (row) => isSelected[row] === 1,
      record: data.record(rows),
      around: (axes) => union(data, text ? selector.rows(axes) : data.counted, isSelected),
    };
  }

  /** The rows by their name on an axis, in order of appearance; the group's record adds theirs. */
  function groups(view, axis, rows) {
    const { names, codes } = view.data.axes[axis];
    const members = new Map();
    for (const row of rows) {
      if (!members.has(codes[row])) members.set(codes[row], []);
      members.get(codes[row]).push(row);
    }
    const found = [...members].map(([code, its]) => ({ name: names[code], rows: its }));
    return found.map((group) => ({
      ...group,
      record: view.data.record(group.rows),
      isSelected: group.rows.some(view.isSelected),
    }));
  }

  /** A short title for every path: as many of its last segments as tell it from the others. */
  function shortNames(paths) {
    const ending = (path, length) => path.split('/').slice(-length).join('/');
    const titles = new Map();
    for (let length = 1, left = paths; left.length; length += 1) {
      const often = new Map();
      for (const path of paths) often.set(ending(path, length), (often.get(ending(path, length)) ?? 0) + 1);
      const isClear = (path) => often.get(ending(path, length)) === 1 || path.split('/').length <= length;
      for (const path of left.filter(isClear)) titles.set(path, ending(path, length));
      left = left.filter((path) => !isClear(path));
    }
    return titles;
  }

  /** Some rows and the selected ones beside them, in the scan's order. */
  function union(data, rows, isSelected) {
    const isIn = Uint8Array.from(isSelected);
    for (const row of rows) isIn[row] = 1;
    return data.all.filter((row) => isIn[row]);
  }

  return { of, groups, shortNames };
})();
