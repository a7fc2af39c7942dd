// Bars beneath the columns of the grid: the mean over the seeds, its interval, and every seed as a dot. All
// bars of one row have one scale.
const Bars = (() => {
  const ROOM = 0.02; // of a scale, beyond its ends

  /** A scale from the least to the most of `values`, which holds all of `always`. */
  function scale(values, always) {
    const every = [...values, ...always].filter((value) => value !== null && Number.isFinite(value));
    const [least, most] = [Math.min(...every), Math.max(...every)];
    const room = (most - least || 1) * ROOM;
    const [low, high] = [least < 0 ? least - room : least, most + room];
    return (value) => (100 * (Math.min(Math.max(value, low), high) - low)) / (high - low); // per cent
  }

  /** A bar from `from` to `value`; `marks` are values that a hairline stands at. */
  function bar({ at, from, value, low = null, high = null, dots = [], marks = [], colour = '' }) {
    const box = Dom.element('div', { class: `bar ${colour}`, 'aria-hidden': 'true' });
    for (const mark of marks) box.append(placed('mark', at(mark)));
    if (value !== null) box.append(placed('length', Math.min(at(from), at(value)), Math.abs(at(value) - at(from))));
    if (low !== null && high !== null) box.append(placed('whisker', at(low), at(high) - at(low)));
    for (const dot of dots) box.append(placed('seed', at(dot)));
    return box;
  }

  function placed(kind, left, width = null) {
    const node = Dom.element('i', { class: kind });
    node.style.left = `${left}%`;
    if (width !== null) node.style.width = `${width}%`;
    return node;
  }

  return { scale, bar };
})();
